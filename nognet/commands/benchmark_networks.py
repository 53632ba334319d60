"""`nognet benchmark networks`: MT-NoGNet, its peers and its own parts, on the same pairs."""

from __future__ import annotations

import os
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nognet.console import emit, say
from nognet.errors import ConfigError, SiteDataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nognet.fit.contest.cohort import Cohort
    from nognet.fit.contest.intervals import Difference
    from nognet.fit.contest.run import Outcome, Plan
    from nognet.fit.contest.train import Budget, Training

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
) -> None:
    """Train MT-NoGNet and its peers for the same budget on the same pairs, and compare.

    Copying, isotropic growth and an oracle stand beside. Differences come with intervals of 95 %
    over patients.
    """
    from nognet.fit.contest.run import Plan, run_contest
    from nognet.report.contest import JSON_NAME, differences_of, write_contest

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
    outcome = run_contest(plan, cohort, _tell)
    differences = differences_of(outcome)
    write_contest(out, outcome, differences, _about(plan, cohort))
    _print(outcome, differences)
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


def _tell(name: str, seed: int, training: Training) -> None:
    say(
        f"  {name}, seed {seed}: {training.steps} steps in {training.cpu_s:.0f} s of CPU, "
        f"loss {training.loss:.3f}"
    )


def _about(plan: Plan, cohort: Cohort) -> dict[str, Any]:
    import platform
    from dataclasses import asdict

    import torch

    import nognet
    from nognet.fit.contest.contestants import contestant

    return {
        "command": ["nognet", *sys.argv[1:]],
        "versions": {
            "nognet": nognet.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "device": torch.cuda.get_device_name() if plan.device == "cuda" else plan.device,
            "threads_a_training": 1,
        },
        "plan": asdict(plan),
        "networks": {name: contestant(name, plan.width).about for name in plan.names},
        "cohort": cohort.described(),
    }


def _print(outcome: Outcome, differences: Sequence[Difference]) -> None:
    from nognet.fit.contest.table import COLUMNS, table, title_of

    decimals = {title: places for title, _, _, places in COLUMNS} | {"growth AUC": 3}
    heads = [f"{title:>9}" for title in decimals]
    emit(f"{'predictor':32}{'steps':>6}" + "".join(heads))
    for row in table(outcome):
        cells = [
            f"{'-' if cell['mean'] is None else format(cell['mean'], f'.{decimals[title]}f'):>9}"
            for title, cell in row["columns"].items()
        ]
        emit(f"{row['title'][:31]:32}{row['steps'] or '-':>6}" + "".join(cells))
    if not differences:
        return
    emit("")
    emit("MT-NoGNet's mean minus the other's, with the 95 % interval over patients")
    for found in differences:
        if found.mean is None:
            continue
        what = found.metric if found.stratum is None else f"{found.metric}, {found.stratum}"
        interval = "" if found.low is None else f"  [{found.low:+.4f}, {found.high:+.4f}]"
        emit(f"{title_of(found.against)[:31]:32}{what:20}{found.mean:+9.4f}{interval}")
