"""All that a site tells of its pairs: predictor -> metric -> mergeable sums.

How they travel is `nognet.metrics.flat_sums`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from nognet.errors import WireError
from nognet.metrics.definitions import DEFINITIONS, GROWTH_AUC
from nognet.metrics.flat_sums import ALL, PREDICTOR, flat_sums, grouped, rebuilt, stratified
from nognet.metrics.moments import Concordance, Moments, StratifiedMoments
from nognet.types import STRATA, Stratum

__all__ = [
    "Concordance",
    "Moments",
    "PairRow",
    "PredictorStatistics",
    "SiteStatistics",
    "StratifiedMoments",
    "merge_all",
]


@dataclass(frozen=True)
class PairRow:
    """One predictor's result on one pair; it never leaves the site.

    Attributes:
        predictor: ``federated``, ``copy``, ``isotropic`` ...
        patient_id: The patient's pseudonym, to count patients.
        stratum: The pair's true growth stratum.
        metrics: Metric name to value; NaN means undefined for this pair.
        growth_ratio: Predicted V_hat / V0.
    """

    predictor: str
    patient_id: str
    stratum: Stratum
    metrics: Mapping[str, float]
    growth_ratio: float

    @property
    def is_growing(self) -> bool:
        """Whether the nodule truly grew by 25 % or more."""
        return self.stratum == "growing"


@dataclass(frozen=True)
class PredictorStatistics:
    """One predictor's moments by metric, and its growth concordance."""

    metrics: Mapping[str, StratifiedMoments] = field(default_factory=dict)
    growth: Concordance = field(default_factory=Concordance)

    def merge(self, other: PredictorStatistics) -> PredictorStatistics:
        """Merge metric by metric."""
        names = sorted({*self.metrics, *other.metrics})
        none = StratifiedMoments()
        merged = {n: self.metrics.get(n, none).merge(other.metrics.get(n, none)) for n in names}
        return PredictorStatistics(merged, self.growth.merge(other.growth))


@dataclass(frozen=True)
class SiteStatistics:
    """The mergeable statistics of one site's split, or of several sites merged."""

    predictors: Mapping[str, PredictorStatistics] = field(default_factory=dict)

    @classmethod
    def from_pairs(cls, rows: Iterable[PairRow]) -> SiteStatistics:
        """Sum the rows of all pairs of a site; an undefined (NaN) value is left out of its sums.

        Raises:
            ValueError: an unknown metric, an infinite value, or a predictor's name that can't
                travel.
        """
        by_predictor: dict[str, list[PairRow]] = {}
        for row in rows:
            by_predictor.setdefault(row.predictor, []).append(row)
        if bad := [name for name in by_predictor if not PREDICTOR.fullmatch(name)]:
            raise ValueError(f"predictors {bad} can't travel: use lower-case letters and digits")
        return cls({name: _predictor(by_predictor[name]) for name in sorted(by_predictor)})

    def merge(self, other: SiteStatistics) -> SiteStatistics:
        """Merge the statistics of two disjoint sets of patients."""
        names = sorted({*self.predictors, *other.predictors})
        none = PredictorStatistics()
        return SiteStatistics(
            {
                name: self.predictors.get(name, none).merge(other.predictors.get(name, none))
                for name in names
            }
        )

    def figures(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Compute predictor -> metric -> figure, as `metrics.json` has it."""
        return {
            name: {
                metric: statistics.growth.figure()
                if metric == GROWTH_AUC
                else statistics.metrics.get(metric, StratifiedMoments()).figure()
                for metric in DEFINITIONS
            }
            for name, statistics in self.predictors.items()
        }

    def to_flat(self) -> dict[str, float]:
        """Flatten to numbers under stable keys ``predictor|metric|stratum|field``, sorted.

        Raises:
            ValueError: sites were merged, some of which withheld something: that doesn't travel.
        """
        flat: dict[str, float] = {}
        for predictor, statistics in self.predictors.items():
            flat |= flat_sums((predictor, GROWTH_AUC, ALL), statistics.growth)
            for metric, moments in statistics.metrics.items():
                flat |= flat_sums((predictor, metric, ALL), moments.all)
                for stratum, part in moments.strata.items():
                    flat |= flat_sums((predictor, metric, stratum), part)
        return dict(sorted(flat.items()))

    @classmethod
    def from_flat(cls, flat: Mapping[str, float]) -> SiteStatistics:
        """Rebuild from `to_flat`'s numbers; what a site sends is checked, never trusted.

        Raises:
            WireError: an unknown or missing key, a number that is not finite, a count that is
                negative or no integer, or sums that no set of values can have.
        """
        groups = grouped(flat)
        predictors = {}
        for predictor in sorted({group[0] for group in groups}):
            metrics = sorted({m for p, m, _ in groups if p == predictor} - {GROWTH_AUC})
            strata = {metric: stratified(groups, predictor, metric) for metric in metrics}
            growth = rebuilt(Concordance, groups, (predictor, GROWTH_AUC, ALL))
            predictors[predictor] = PredictorStatistics(strata, growth)
        if groups:
            raise WireError(f"statistics hold unexpected keys, first {min(groups)}", code="keys")
        return cls(predictors)


def merge_all(parts: Iterable[SiteStatistics]) -> SiteStatistics:
    """Merge any number of sites, in the order given; none give empty statistics."""
    return reduce(SiteStatistics.merge, parts, SiteStatistics())


def _predictor(rows: Sequence[PairRow]) -> PredictorStatistics:
    names = sorted({name for row in rows for name in row.metrics})
    if unknown := set(names) - set(DEFINITIONS) | ({GROWTH_AUC} & set(names)):
        raise ValueError(f"metrics {sorted(unknown)} have no definition as a metric of a pair")
    growth = Concordance.of(
        (row.growth_ratio for row in rows),
        (row.is_growing for row in rows),
        (row.patient_id for row in rows),
    )
    return PredictorStatistics({name: _stratify(rows, name) for name in names}, growth)


def _stratify(rows: Sequence[PairRow], metric: str) -> StratifiedMoments:
    defined = [row for row in rows if not math.isnan(row.metrics.get(metric, math.nan))]

    def moments(chosen: Sequence[PairRow]) -> Moments:
        return Moments.of((r.metrics[metric] for r in chosen), (r.patient_id for r in chosen))

    strata = {name: moments([row for row in defined if row.stratum == name]) for name in STRATA}
    return StratifiedMoments(moments(defined), strata)
