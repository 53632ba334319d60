"""The table of a contest: a row a predictor, means over test pairs and seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from nognet.fit.contest.contestants import ABLATIONS, MODEL, UNTRAINED_TITLES, contestant
from nognet.fit.contest.judge import Judged
from nognet.fit.contest.run import Outcome
from nognet.metrics.moments import Concordance
from nognet.types import STRATA, Stratum

COLUMNS: tuple[tuple[str, str, Stratum | None, int], ...] = (
    ("PSNR dB", "psnr", None, 2),
    ("PSNR* dB", "psnr_nodule", None, 2),
    ("SSIM", "ssim", None, 4),
    ("DSC", "dsc", None, 3),
    *((stratum, "dsc", stratum, 3) for stratum in STRATA),
    ("|ln V|", "log_volume_error", None, 3),
    ("folded", "folded_fraction", None, 5),
)
"""Title, metric, stratum, decimals."""


def table(outcome: Outcome) -> list[dict[str, Any]]:
    """One row a predictor: title, parameters, what trainings took, mean and SD over seeds.

    Steps and seconds are medians over seeds, None for what isn't trained.
    """
    names = list(dict.fromkeys(row.predictor for row in outcome.rows))
    return [_row(outcome, name) for name in names]


def _row(outcome: Outcome, name: str) -> dict[str, Any]:
    entries = [entry for entry in outcome.entries if entry.name == name]
    rows = [row for row in outcome.rows if row.predictor == name]
    seeds = list(dict.fromkeys(row.seed for row in rows))
    of_seed = [[row for row in rows if row.seed == seed] for seed in seeds]
    return {
        "predictor": name,
        "title": title_of(name),
        "parameters": entries[0].parameters if entries else 0,
        "steps": _median([entry.training.steps for entry in entries]),
        "cpu_s": _median([entry.training.cpu_s for entry in entries]),
        "wall_s": _median([entry.training.wall_s for entry in entries]),
        "columns": {
            title: _over_seeds([_mean(part, metric, stratum) for part in of_seed])
            for title, metric, stratum, _ in COLUMNS
        }
        | {"growth AUC": _over_seeds([_auc(part) for part in of_seed])},
    }


def title_of(name: str) -> str:
    """Name a predictor for people."""
    return UNTRAINED_TITLES.get(name) or contestant(name).title


def is_ablation(name: str) -> bool:
    """Say whether a predictor is MT-NoGNet with a part taken away."""
    return name in ABLATIONS


def compared_names(outcome: Outcome) -> list[str]:
    """Name all that MT-NoGNet is compared with."""
    names = dict.fromkeys(row.predictor for row in outcome.rows)
    return [name for name in names if name != MODEL]


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _mean(rows: Sequence[Judged], metric: str, stratum: Stratum | None) -> float:
    values = [row.metrics[metric] for row in rows if stratum in {None, row.stratum}]
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan


def _auc(rows: Sequence[Judged]) -> float:
    found = Concordance.of(
        (row.metrics["growth_ratio"] for row in rows),
        (row.stratum == "growing" for row in rows),
        (row.patient_id for row in rows),
    ).auc
    return math.nan if found is None else found


def _over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Mean and sample standard deviation over seeds; None where nothing is defined."""
    if any(math.isnan(value) for value in values):
        return {"mean": None, "sd": None, "seeds": []}
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "sd": spread, "seeds": list(values)}
