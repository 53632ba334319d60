"""`nognet benchmark networks`: MT-NoGNet, its peers and its own parts, on the same pairs."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nognet.console import emit, say
from nognet.errors import ConfigError, SiteDataError

if TYPE_CHECKING:
    from nognet.fit.contest.cohort import Cohort
    from nognet.fit.contest.train import Budget, Training

FAIR_SHARE = 1.1
"""What a training may spend of its budget, as it ends between steps, without a word about it."""
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class Device(StrEnum):
    """Where to train."""

    cpu = "cpu"
    cuda = "cuda"


def networks(  # noqa: PLR0913, PLR0917  one parameter an option, typer passes them by name
    budget: Annotated[
        str, typer.Option(help="Of each training: CPU seconds on a CPU, seconds on a GPU; 90s, 4m.")
    ] = "120s",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps instead of seconds: equal bits each time.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of JSON, CSV and picture.")] = Path(
        "runs/networks"
    ),
    seeds: Annotated[str, typer.Option(help="Seeds of weights and order, with commas.")] = "1,2,3",
    names: Annotated[
        str | None, typer.Option("--networks", help="Some of them, with commas; by default all.")
    ] = None,
    ablations: Annotated[
        bool,
        typer.Option("--ablations", help="MT-NoGNet with each of its parts taken away or put in."),
    ] = False,
    pairs: Annotated[
        Path | None, typer.Option(help="A prepared cache: its training and test split.")
    ] = None,
    background: Annotated[
        Path | None, typer.Option(help="A real CT to grow the phantom's nodules in.")
    ] = None,
    patients: Annotated[int, typer.Option(min=1, help="Phantom patients to train on.")] = 51,
    test_patients: Annotated[int, typer.Option(min=1, help="Phantom patients to test on.")] = 54,
    cohort_seed: Annotated[int, typer.Option(help="Of the phantom cohort.")] = 2026,
    roi: Annotated[int, typer.Option(help="Edge of the phantom's ROI in voxels.")] = 48,
    width: Annotated[int | None, typer.Option(help="Of every network; default: its own.")] = None,
    device: Annotated[Device, typer.Option(help="Where to train.")] = Device.cpu,
    workers: Annotated[int, typer.Option(min=1, help="Trainings side by side.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier result.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print networks.json.")] = False,
) -> None:
    """Train MT-NoGNet and its peers for the same budget on the same pairs, and compare.

    Copying, isotropic growth and an oracle stand beside. Differences come with intervals of 95 %
    over patients.
    """
    from nognet.commands.benchmark_networks_record import about, result_lines
    from nognet.commands.train_record import utc_now
    from nognet.fit.contest.run import Plan, run_contest
    from nognet.report.contest import JSON_NAME, differences_of, document_of, write_contest

    _check_width(width)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file; give a folder to write to", code="exists")
    if (out / JSON_NAME).exists() and not force:
        raise ConfigError(
            f"{out / JSON_NAME}: there is a result already; give another --out, or --force",
            code="exists",
        )
    plan = Plan(
        names=_chosen(names, ablations=ablations),
        seeds=_seeds(seeds),
        budget=_budget(budget, steps),
        width=width,
        device=_device(device),
        workers=workers,
    )
    cohort = _cohort(pairs, background, (patients, test_patients, cohort_seed, roi))
    count = len(plan.names) * len(plan.seeds)
    say(f"{cohort.source}: {len(cohort.train)} training, {len(cohort.test)} test pairs")
    say(f"{count} trainings, {plan.workers} side by side ...")
    started = utc_now()
    outcome = run_contest(plan, cohort, lambda *trained: _tell(plan.budget, *trained))
    differences = differences_of(outcome)
    document = document_of(outcome, differences, about(plan, cohort, started))
    write_contest(out, document, differences)
    if as_json:
        emit(json.dumps(document, indent=2, allow_nan=False))
    else:
        for line in result_lines(document["table"], differences, device=plan.device):
            emit(line)
    say(f"written: {out}")


def _chosen(names: str | None, *, ablations: bool) -> tuple[str, ...]:
    from nognet.fit.contest.contestants import ABLATIONS, MODEL, network_names

    if names is not None and ablations:
        raise typer.BadParameter("--networks names what competes: leave out --ablations")
    if names is not None:
        found = tuple(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
        if not found:
            raise typer.BadParameter(f"--networks: found '{names}', expected names with commas")
        return found
    return (MODEL, *ABLATIONS) if ablations else network_names()


def _check_width(width: int | None) -> None:
    from pydantic import ValidationError

    from nognet.config import NetworkConfig

    try:
        NetworkConfig() if width is None else NetworkConfig(width=width)
    except ValidationError as err:
        raise typer.BadParameter(f"--width: {err.errors()[0]['msg']}, found {width}") from err


def _seeds(text: str) -> tuple[int, ...]:
    try:
        found = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError as err:
        raise typer.BadParameter(f"--seeds: found '{text}', expected numbers as 1,2,3") from err
    return found


def _budget(text: str, steps: int | None) -> Budget:
    from nognet.fit.contest.train import Budget

    if steps is not None:
        return Budget(steps=steps)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    seconds = float(match[1]) * _UNITS[match[2] or "s"] if match else 0.0
    if seconds <= 0:
        raise typer.BadParameter(f"--budget: found '{text}', expected a time as 120s or 4m")
    return Budget(seconds=seconds)


def _device(device: Device) -> str:
    from nognet.fit.device import resolve_device

    return str(resolve_device(device.value))


def _cohort(
    pairs: Path | None, background: Path | None, phantom: tuple[int, int, int, int]
) -> Cohort:
    from pydantic import ValidationError

    from nognet.config import RoiConfig
    from nognet.fit.contest.cohort import phantom_cohort, stored_cohort

    if pairs is not None:
        return stored_cohort(pairs)
    patients, test_patients, seed, size = phantom
    try:
        roi = RoiConfig(size_vox=size)
    except ValidationError as err:
        raise typer.BadParameter(f"--roi: {err.errors()[0]['msg']}") from err
    if background is not None and not background.exists():
        raise SiteDataError(f"{background}: no such file; give a CT to grow nodules in")
    return phantom_cohort(patients, test_patients, seed=seed, roi=roi, background=background)


def _tell(budget: Budget, name: str, seed: int, training: Training) -> None:
    say(
        f"  {name}, seed {seed}: {training.steps} steps in {training.cpu_s:.0f} s of CPU, "
        f"loss {training.loss:.3f}"
    )
    if budget.share(training.counted_s, training.steps) > FAIR_SHARE:
        say(
            f"  {name}, seed {seed}: {training.counted_s:.1f} s of {budget.seconds} s, its steps "
            "are long for this budget; give a longer --budget for a fair contest"
        )
