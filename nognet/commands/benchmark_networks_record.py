"""What `nognet benchmark networks` records beside its figures, and the lines it prints of them."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from nognet.commands.machine import processor_name, versions
from nognet.commands.train_record import utc_now
from nognet.fit.contest.cohort import Cohort
from nognet.fit.contest.contestants import contestant
from nognet.fit.contest.intervals import Difference
from nognet.fit.contest.run import THREADS_A_TRAINING, Plan
from nognet.fit.contest.table import COLUMNS, title_of

_PLACES = {title: places for title, _, _, places in COLUMNS} | {"growth AUC": 3}


def about(plan: Plan, cohort: Cohort, started: str) -> dict[str, Any]:
    """Record command, dates, versions, commit, machine, plan, networks and cohort.

    Args:
        plan: Of the contest.
        cohort: Its pairs.
        started: By `utc_now`, before the first training.
    """
    return {
        "command": ["nognet", *sys.argv[1:]],
        "started": started,
        "ended": utc_now(),
        "versions": versions(),
        "machine": {
            "architecture": platform.machine(),
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "device": torch.cuda.get_device_name() if plan.device == "cuda" else plan.device,
            "threads_a_training": THREADS_A_TRAINING,
        },
        "plan": asdict(plan),
        "networks": {name: contestant(name, plan.width).about for name in plan.names},
        "cohort": cohort.described(),
    }


def result_lines(
    table: Sequence[Mapping[str, Any]], differences: Sequence[Difference], *, device: str
) -> Iterator[str]:
    """Give the table, then the differences over all pairs and of DSC by stratum.

    Args:
        table: By `nognet.fit.contest.table.table`.
        differences: By `nognet.report.contest.differences_of`; all of them are in the JSON.
        device: Of the trainings: on a GPU their seconds are those on the wall.
    """
    seconds, title = ("cpu_s", "CPU s") if device == "cpu" else ("wall_s", "seconds")
    heads = "".join(f"{column:>9}" for column in _PLACES)
    yield f"{'predictor':32}{'steps':>6}{title:>8}{heads}"
    for row in table:
        cells = "".join(_cell(row["columns"][c]["mean"], places) for c, places in _PLACES.items())
        took = f"{_cell(row['steps'], 0, 6)}{_cell(row[seconds], 1, 8)}"
        yield f"{row['title'][:31]:32}{took}{cells}"
    yield f"(steps and {title}: medians over seeds)"
    if not differences:
        return
    yield ""
    yield "MT-NoGNet's mean minus the other's, with the 95 % interval over patients"
    for found in differences:
        if found.stratum is not None and found.metric != "dsc":
            continue
        if found.mean is None:
            continue
        what = found.metric if found.stratum is None else f"{found.metric}, {found.stratum}"
        interval = "" if found.low is None else f"  [{found.low:+.4f}, {found.high:+.4f}]"
        yield f"{title_of(found.against)[:31]:32}{what:20}{found.mean:+9.4f}{interval}"


def _cell(value: float | None, places: int, width: int = 9) -> str:
    return f"{'-' if value is None else format(value, f'.{places}f'):>{width}}"
