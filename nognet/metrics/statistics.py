"""All that a site tells of its pairs: predictor -> metric -> mergeable sums, and their wire form.

On the wire they are numbers under keys such as ``federated|dsc|growing|total``; sums that a site
withholds are the one number ``federated|dsc|growing|withheld``. What comes back is checked as input
from outside: known fields, finite, and sums that some set of values can have.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import reduce
from typing import Any, TypeVar

from nognet.errors import WireError
from nognet.metrics.definitions import DEFINITIONS, GROWTH_AUC
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

SEPARATOR = "|"
ALL = "all"
WITHHELD = "withheld"
MAX_COUNT = 10**9
_MAX_VALUE = 1e9  # of a metric of one pair, far above any that can occur
_PREDICTOR = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_COUNTS = ("n_pairs", "n_patients", "comparisons")
Sums = TypeVar("Sums", Moments, Concordance)


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
        if bad := [name for name in by_predictor if not _PREDICTOR.fullmatch(name)]:
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
            flat |= _flat_sums((predictor, GROWTH_AUC, ALL), statistics.growth)
            for metric, moments in statistics.metrics.items():
                flat |= _flat_sums((predictor, metric, ALL), moments.all)
                for stratum, part in moments.strata.items():
                    flat |= _flat_sums((predictor, metric, stratum), part)
        return dict(sorted(flat.items()))

    @classmethod
    def from_flat(cls, flat: Mapping[str, float]) -> SiteStatistics:
        """Rebuild from `to_flat`'s numbers; what a site sends is checked, never trusted.

        Raises:
            WireError: an unknown or missing key, a number that is not finite, a count that is
                negative or no integer, or sums that no set of values can have.
        """
        groups = _grouped(flat)
        predictors = {}
        for predictor in sorted({group[0] for group in groups}):
            metrics = sorted({m for p, m, _ in groups if p == predictor} - {GROWTH_AUC})
            strata = {metric: _stratified(groups, predictor, metric) for metric in metrics}
            growth = _rebuilt(Concordance, groups, (predictor, GROWTH_AUC, ALL))
            predictors[predictor] = PredictorStatistics(strata, growth)
        if groups:
            raise WireError(f"statistics hold unexpected keys, first {min(groups)}", code="keys")
        return cls(predictors)


def merge_all(parts: Iterable[SiteStatistics]) -> SiteStatistics:
    """Merge any number of sites, in the order given; none give empty statistics."""
    return reduce(SiteStatistics.merge, parts, SiteStatistics())


Groups = dict[tuple[str, str, str], dict[str, float]]


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


def _flat_sums(prefix: tuple[str, str, str], sums: Moments | Concordance) -> dict[str, float]:
    values = asdict(sums)
    withheld = values.pop(WITHHELD)
    if withheld and sums.n_pairs:
        raise ValueError("merged statistics of which a part is withheld don't travel")
    values = {WITHHELD: withheld} if withheld else values
    return {SEPARATOR.join((*prefix, key)): value for key, value in values.items()}


def _grouped(flat: Mapping[str, float]) -> Groups:
    groups: Groups = {}
    for key, value in flat.items():
        parts = key.split(SEPARATOR)
        if len(parts) != 4 or not _PREDICTOR.fullmatch(parts[0]) or parts[1] not in DEFINITIONS:
            raise WireError(f"statistics hold an unknown key of {len(key)} characters", code="keys")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise WireError(f"statistics {key}: expected a number", code="not-a-number")
        if not math.isfinite(value):
            raise WireError(f"statistics {key}: the number is not finite", code="not-finite")
        groups.setdefault((parts[0], parts[1], parts[2]), {})[parts[3]] = value
    return groups


def _stratified(groups: Groups, predictor: str, metric: str) -> StratifiedMoments:
    overall = _rebuilt(Moments, groups, (predictor, metric, ALL))
    strata = {name: _rebuilt(Moments, groups, (predictor, metric, name)) for name in STRATA}
    known = sum(part.n_pairs for part in strata.values())
    is_whole = not any(part.withheld for part in (overall, *strata.values()))
    if (known != overall.n_pairs) if is_whole else (known > overall.n_pairs):
        raise WireError(
            f"statistics {predictor}|{metric}: the strata's pairs don't add up to all pairs",
            code="inconsistent",
        )
    return StratifiedMoments(overall, strata)


def _rebuilt(kind: type[Sums], groups: Groups, name: tuple[str, str, str]) -> Sums:
    """Take one group of numbers out of `groups` and make its sums of it."""
    values = groups.pop(name, {})
    if values == {WITHHELD: 1}:
        return kind(withheld=1)
    expected = {entry.name for entry in fields(kind)} - {WITHHELD}
    if set(values) != expected:
        raise WireError(
            f"statistics {SEPARATOR.join(name)}: found fields {sorted(values)}, expected "
            f"{sorted(expected)}",
            code="keys",
        )
    counts = {key: value for key, value in values.items() if key in _COUNTS}
    if any(value != int(value) or not 0 <= value <= MAX_COUNT for value in counts.values()):
        raise WireError(f"statistics {SEPARATOR.join(name)}: found {counts}, expected counts")
    typed: dict[str, Any] = {
        key: int(value) if key in counts else float(value) for key, value in values.items()
    }
    sums = kind(**typed)
    if not _is_possible(sums):
        raise WireError(
            f"statistics {SEPARATOR.join(name)}: no set of values has these sums: {sums}",
            code="inconsistent",
        )
    return sums


def _is_possible(sums: Moments | Concordance) -> bool:
    patients_fit = (sums.n_pairs == 0) == (sums.n_patients == 0) and sums.n_patients <= sums.n_pairs
    if isinstance(sums, Concordance):
        # With g growing of n pairs there are g (n - g) comparisons, n^2 / 4 at most.
        wins_fit = 0 <= sums.wins <= sums.comparisons and (2 * sums.wins).is_integer()
        return patients_fit and wins_fit and 4 * sums.comparisons <= sums.n_pairs**2
    if sums.n_pairs == 0:
        return patients_fit and sums.total == 0 and sums.total_squares == 0
    # Cauchy-Schwarz, with room for rounding of the sums; and no sum that overflows when merged.
    least = sums.total * sums.total / sums.n_pairs
    most = sums.n_pairs * _MAX_VALUE**2
    return patients_fit and least * (1 - 1e-9) <= sums.total_squares <= most
