"""What `nognet benchmark privacy` records beside its figures, and the lines that it prints."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from nognet.commands.benchmark_privacy_cells import (
    ROI,
    SITES,
    TEST_PATIENTS,
    VALIDATION_PATIENTS,
    PrivacyPlan,
)
from nognet.commands.machine import processor_name, versions
from nognet.commands.train_record import utc_now


def about(plan: PrivacyPlan) -> dict[str, Any]:
    """Record command, date, versions, commit, machine and plan."""
    return {
        "command": ["nognet", *sys.argv[1:]],
        "ended": utc_now(),
        "versions": versions(),
        "machine": {"processor": processor_name(), "cores": os.cpu_count()},
        "plan": {
            **asdict(plan),
            "delta": plan.delta,
            "sites": SITES,
            "validation_patients": VALIDATION_PATIENTS,
            "test_patients": TEST_PATIENTS,
            "roi": ROI.model_dump(mode="json"),
        },
    }


def result_lines(table: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Give the rows of all sites pooled; those of each site are in CSV and JSON."""
    metrics = list(table[0]["figures"])
    yield f"{'begins with':12}{'epsilon':>9}{'runs':>6}" + "".join(f"{m:>20}" for m in metrics)
    for row in table:
        if row["site"] != "all sites":
            continue
        cells = "".join(f"{_cell(row['figures'][metric]):>20}" for metric in metrics)
        shown = "inf" if row["epsilon"] is None else f"{row['epsilon']:g}"
        yield f"{row['kind']:12}{shown:>9}{row['runs']:>6}{cells}"
    yield "(mean over the seeds' runs, and their standard deviation)"


def _cell(figure: Mapping[str, float | None]) -> str:
    if figure["mean"] is None:
        return "-"
    return f"{figure['mean']:.4f}" + ("" if figure["sd"] is None else f" ({figure['sd']:.4f})")
