"""`python -m nognet_server.robustness`: one bad site among honest ones, strategy by strategy."""

from __future__ import annotations

import contextlib
import json
import logging
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

import nognet
from nognet.console import LogFormat, emit, run_guarded, say, set_up_logging
from nognet.errors import ConfigError
from nognet.files import write_json_atomic
from nognet_server.robustness.attacks import ATTACKS, FACTORS
from nognet_server.robustness.cohort import write_hospitals
from nognet_server.robustness.trial import STRATEGIES, Plan, Trial, run_trial

JSON_NAME = "robustness.json"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def robustness(  # noqa: PLR0913, PLR0917  one parameter an option, typer passes them by name
    out: Annotated[Path, typer.Option(help="Folder of hospitals, runs and figures.")] = Path(
        "runs/robustness"
    ),
    sites: Annotated[int, typer.Option(min=2, help="Hospitals; the last one attacks.")] = 7,
    patients: Annotated[int, typer.Option(min=3, help="Of each hospital.")] = 6,
    rounds: Annotated[int, typer.Option(min=1)] = 4,
    steps: Annotated[int, typer.Option(min=1, help="Of a site in a round.")] = 8,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    seeds: Annotated[str, typer.Option(help="Several, with commas, in place of --seed.")] = "",
    strategies: Annotated[
        str, typer.Option(help="With commas; krum only if named, as it chooses as multikrum does.")
    ] = ",".join(name for name in STRATEGIES if name != "krum"),
    attacks: Annotated[str, typer.Option(help="With commas.")] = ",".join(ATTACKS),
    norm_check: Annotated[
        bool, typer.Option("--norm-check", help="With federation.max_update_ratio at its default.")
    ] = False,
    commit: Annotated[str, typer.Option(help="Of the code, for the record.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier result.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print robustness.json.")] = False,
) -> None:
    """Let one hospital attack a small federation, and compare what the honest ones get."""
    set_up_logging(LogFormat.text)
    plan = Plan(
        sites=sites,
        patients=patients,
        rounds=rounds,
        steps=steps,
        seed=seed,
        norm_check=norm_check,
        strategies=_chosen(strategies, STRATEGIES, "--strategies"),
        attacks=tuple(a for a in ATTACKS if a in _chosen(attacks, ATTACKS, "--attacks")),
    )
    plans = [replace(plan, seed=number) for number in _numbers(seeds)] or [plan]
    _make_room(out, force=force)
    with _quiet():
        played = [
            (each, _trials(each, out if len(plans) == 1 else out / f"seed-{each.seed}"))
            for each in plans
        ]
    document = {
        "plan": asdict(plans[0]),
        "seeds": [each.seed for each in plans],
        "factors": FACTORS,
        "commit": commit or None,
        "nognet": nognet.__version__,
        "python": platform.python_version(),
        "processor": platform.processor() or platform.machine(),
        "trials": [
            {"seed": each.seed, **asdict(trial)} for each, trials in played for trial in trials
        ],
    }
    write_json_atomic(out / JSON_NAME, document)
    if as_json:
        emit(json.dumps(document, indent=2, allow_nan=False))
    else:
        for number, (each, trials) in enumerate(played):
            for line in (*([""] if number else []), *markdown(each, trials)):
                emit(line)
    say(f"written: {out / JSON_NAME}")


def markdown(plan: Plan, trials: Sequence[Trial]) -> Iterator[str]:
    """Write the figures as a table of Markdown."""
    check = "on" if plan.norm_check else "off"
    yield (
        f"{plan.sites} hospitals, one attacks; {plan.rounds} rounds of {plan.steps} steps; seed "
        f"{plan.seed}; check of the updates' length (federation.max_update_ratio) {check}. Means "
        "over the honest hospitals' pairs: test of the chosen round, validation of the last."
    )
    yield ""
    yield "| attack | strategy | test DSC | test PSNR | last DSC | last PSNR | left out | status |"
    yield "|---|---|---|---|---|---|---|---|"
    copied = next((t.copy for t in trials if t.copy["dsc"] is not None), None)
    if copied is not None:
        yield f"| - | copy of the baseline | {_cells(copied)} | - | - | - | - |"
    for trial in sorted(trials, key=lambda t: plan.attacks.index(t.attack)):
        yield (
            f"| {trial.attack} | {trial.strategy} | {_cells(trial.test)} | "
            f"{_cells(trial.last_validation)} | {trial.rounds_left_out} of {plan.rounds} | "
            f"{trial.status} |"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave the runs' own logs out."""
    logger = logging.getLogger("nognet")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _trials(plan: Plan, out: Path) -> list[Trial]:
    say(f"{plan.sites} hospitals of {plan.patients} patients, seed {plan.seed} ...")
    hospitals = write_hospitals(
        out / "hospitals", sites=plan.sites, patients=plan.patients, seed=plan.seed
    )
    trials = []
    for attack in plan.attacks:
        for strategy in plan.strategies:
            trial = run_trial(plan, strategy, attack, hospitals, out / "runs")
            trials.append(trial)
            say(f"  {attack}, {strategy}: {trial.status}, {trial.seconds:.0f} s")
    return trials


def _cells(figures: Any) -> str:  # noqa: ANN401  a mapping of a trial
    dsc, psnr = figures["dsc"], figures["psnr"]
    shown = "-" if dsc is None else f"{dsc:.3f}"
    return f"{shown} | {'-' if psnr is None else f'{psnr:.2f}'}"


def _chosen(text: str, known: Sequence[str] | dict[str, Any], option: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ConfigError(
            f"{option}: found '{text}', expected some of {', '.join(known)}, with commas"
        )
    return names


def _numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ConfigError(f"--seeds: found '{text}', expected whole numbers from 0, with commas")
    return tuple(dict.fromkeys(int(part) for part in parts))


def _make_room(out: Path, *, force: bool) -> None:
    """Refuse what is no result of an earlier call; remove one that is, if asked to."""
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and not (out / JSON_NAME).is_file()):
        raise ConfigError(f"{out}: is no result of this benchmark; give another --out")
    if not force and any(out.iterdir()):
        raise ConfigError(f"{out}: there is a result already; give another --out, or --force")
    for old in (out / "hospitals", out / "runs", *out.glob("seed-*")):
        shutil.rmtree(old, ignore_errors=True)


def main() -> None:
    """Run the benchmark."""
    run_guarded(app)


if __name__ == "__main__":
    main()
