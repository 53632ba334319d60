"""Paired differences between predictors, with intervals from a bootstrap over patients.

A patient's pairs share anatomy, scanner and growth, so patients are drawn, not pairs (Field and
Welsh 2007, the cluster bootstrap); differences are averaged over seeds first, pair by pair.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nognet.fit.contest.judge import Judged
from nognet.randomness import numpy_generator
from nognet.types import STRATA, Stratum

RESAMPLES = 2000
LEVEL = 0.95
_METRICS = ("psnr", "psnr_nodule", "ssim", "dsc")
COMPARED: tuple[tuple[str, Stratum | None], ...] = (
    *((metric, None) for metric in _METRICS),
    *((metric, stratum) for metric in _METRICS for stratum in STRATA),
)
"""Metric and stratum (None: all pairs) of each difference."""


@dataclass(frozen=True)
class Difference:
    """One predictor's mean minus another's, on the same pairs.

    Attributes:
        predictor: Whose figures count positive.
        against: Whose are subtracted.
        metric: Of which.
        stratum: Of which pairs; None is all.
        mean: Over pairs, seeds averaged first; None without pairs.
        low: Lower end of the interval of 95 %; None with fewer than two patients.
        high: Upper end.
        pairs: Counted.
        patients: Behind them.
        of_seeds: Seed to the mean with this seed's weights alone; empty where neither is trained.
    """

    predictor: str
    against: str
    metric: str
    stratum: Stratum | None
    mean: float | None
    low: float | None
    high: float | None
    pairs: int
    patients: int
    of_seeds: dict[int, float | None]


def seed_means(
    rows: Sequence[Judged], predictor: str, metric: str, stratum: Stratum | None = None
) -> dict[str, float]:
    """Average a metric over seeds: pair to mean; pairs where it's undefined are left out."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.predictor == predictor and stratum in {None, row.stratum}:
            values[row.pair_id].append(row.metrics[metric])
    means = {pair: math.fsum(found) / len(found) for pair, found in values.items()}
    return {pair: mean for pair, mean in means.items() if not math.isnan(mean)}


def compare(
    rows: Sequence[Judged], predictor: str, against: str, *, seed: int = 1
) -> list[Difference]:
    """Compare two predictors in every metric and stratum of `COMPARED`."""
    patients = {row.pair_id: row.patient_id for row in rows}
    found = []
    for metric, stratum in COMPARED:
        ours = seed_means(rows, predictor, metric, stratum)
        theirs = seed_means(rows, against, metric, stratum)
        differences = {pair: ours[pair] - theirs[pair] for pair in ours if pair in theirs}
        groups = {pair: patients[pair] for pair in differences}
        low, high = bootstrap_interval(differences, groups, seed=seed) or (None, None)
        found.append(
            Difference(
                predictor=predictor,
                against=against,
                metric=metric,
                stratum=stratum,
                mean=_mean(differences),
                low=low,
                high=high,
                pairs=len(differences),
                patients=len(set(groups.values())),
                of_seeds=_of_seeds(rows, (predictor, against), metric, stratum),
            )
        )
    return found


def _of_seeds(
    rows: Sequence[Judged], both: tuple[str, str], metric: str, stratum: Stratum | None
) -> dict[int, float | None]:
    """Compare seed by seed; what isn't trained is the same beside every seed."""
    seeds = {row.seed for row in rows if row.predictor in both and row.seed is not None}
    found = {}
    for seed in sorted(seeds):
        part = [row for row in rows if row.seed in {None, seed}]
        ours, theirs = (seed_means(part, name, metric, stratum) for name in both)
        found[seed] = _mean({pair: ours[pair] - theirs[pair] for pair in ours if pair in theirs})
    return found


def _mean(values: Mapping[str, float]) -> float | None:
    return math.fsum(values.values()) / len(values) if values else None


def bootstrap_interval(
    values: Mapping[str, float],
    groups: Mapping[str, str],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> tuple[float, float] | None:
    """Draw whole patients with replacement; give the percentile interval of the mean over pairs.

    Args:
        values: Pair to value.
        groups: Pair to patient.
        seed: The draw depends on it and on the number of patients alone, so that every comparison
            over the same patients draws the same ones.
        resamples: How often.

    Returns:
        Lower and upper end of the interval of 95 %; None with fewer than two patients.
    """
    names = sorted({groups[pair] for pair in values})
    if len(names) < 2:
        return None
    place = {name: index for index, name in enumerate(names)}
    sums, counts = np.zeros(len(names)), np.zeros(len(names))
    for pair, value in values.items():
        sums[place[groups[pair]]] += value
        counts[place[groups[pair]]] += 1
    rng = numpy_generator(seed, "contest", "bootstrap")
    drawn = rng.integers(0, len(names), size=(resamples, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
