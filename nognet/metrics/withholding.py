"""What of a site's statistics may leave: nothing with fewer than `min_patients` behind it.

Nor anything from which that could be told. Pairs and sums of the three strata add up to those of
all pairs, so a single withheld stratum is the difference of what is known (Willenborg and de Waal,
*Elements of Statistical Disclosure Control*, 2001, chapter 4: secondary suppression). The rules:

1. All pairs of a split: fewer patients, and nothing of the split leaves (`TooFewPatientsError`).
2. A stratum with fewer patients is withheld, none at all included: "no patient's nodule grew" says
   something of each of them.
3. Of what is withheld, the patients together, at least all of them less those of the strata that
   are known, are `min_patients`; else the smallest known stratum is withheld too.
4. The strata that are withheld are the same for every metric and predictor.
5. A metric that is undefined for some pairs gives no strata, and nothing at all unless that many
   patients are without it: the difference of two counts is a count. One that is undefined for all
   pairs is an honest zero.
6. The growth AUC's number of comparisons tells how many nodules grew, so it is withheld where that
   stratum is.
7. Of a predictor that tells of others than the split's patients (`Limits.without`), nothing leaves.

No rule needs to know which patient is behind which pair, so the gate can hold what is to leave
against the same rules: `withhold` changes nothing that it has made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from nognet.metrics.definitions import GROWTH_AUC
from nognet.metrics.flat_sums import ALL
from nognet.metrics.moments import Concordance, Moments, StratifiedMoments
from nognet.metrics.statistics import PredictorStatistics, SiteStatistics
from nognet.types import STRATA, Stratum

INTERVALS = frozenset({"interval_coverage", "interval_width"})
"""Metrics that depend on the validation patients too, by the factor that they calibrate."""
HELD_BACK = Moments(withheld=1)
_ALL_HELD_BACK = StratifiedMoments(HELD_BACK, dict.fromkeys(STRATA, HELD_BACK))


class TooFewPatientsError(ValueError):
    """Fewer patients stand behind a split than behind any figure that may leave."""


@dataclass(frozen=True)
class Limits:
    """What may leave of a split.

    Attributes:
        min_patients: As few patients as may stand behind a number; 1 withholds nothing.
        strata: Whether strata may leave at all.
        intervals: Whether `INTERVALS` may.
        counts: Pairs and patients of the split, whose sums don't matter. None: those of a metric
            that is defined for all pairs, where the statistics have such a metric.
        without: Predictors of which nothing may leave, whoever stands behind the split.
    """

    min_patients: int
    strata: bool = True
    intervals: bool = True
    counts: StratifiedMoments | None = None
    without: frozenset[str] = frozenset()


def withhold(statistics: SiteStatistics, limits: Limits) -> SiteStatistics:
    """Withhold what has too few patients behind it, or would tell it.

    Args:
        statistics: One site's, of one split.
        limits: What may leave.

    Raises:
        TooFewPatientsError: nothing of the split may leave.
    """
    few = statistics if limits.min_patients <= 1 else _without_few(statistics, limits)
    if not limits.without:
        return few
    return SiteStatistics(
        {
            name: _nothing_of(found) if name in limits.without else found
            for name, found in few.predictors.items()
        }
    )


def _nothing_of(predictor: PredictorStatistics) -> PredictorStatistics:
    return PredictorStatistics(
        dict.fromkeys(predictor.metrics, _ALL_HELD_BACK), Concordance(withheld=1)
    )


def _without_few(statistics: SiteStatistics, limits: Limits) -> SiteStatistics:
    """Withhold what has too few of the split's patients behind it (rules 1 to 6)."""
    min_patients = limits.min_patients
    whole = limits.counts or _whole(statistics)
    if whole.all.n_patients < min_patients:
        raise TooFewPatientsError(f"fewer than {min_patients} patients stand behind the figures")
    hidden = withheld_strata(
        whole.all.n_patients,
        {name: None if part.withheld else part.n_patients for name, part in whole.strata.items()},
        min_patients,
    )
    if not limits.strata:
        hidden = frozenset(STRATA)
    without = frozenset() if limits.intervals else INTERVALS
    predictors = {
        name: PredictorStatistics(
            {
                metric: _ALL_HELD_BACK
                if metric in without
                else _released(moments, whole, hidden, min_patients)
                for metric, moments in predictor.metrics.items()
            },
            _released_growth(predictor.growth, hidden, min_patients),
        )
        for name, predictor in statistics.predictors.items()
    }
    return SiteStatistics(predictors)


def withheld_strata(
    n_patients: int, strata: Mapping[Stratum, int | None], min_patients: int
) -> frozenset[Stratum]:
    """Name the strata to withhold (rules 2 and 3).

    Args:
        n_patients: Of all pairs.
        strata: Patients of each stratum; None where it is withheld already.
        min_patients: As few as may stand behind a number.

    >>> sorted(withheld_strata(30, {"growing": 2, "stable": 20, "shrinking": 8}, 5))
    ['growing', 'shrinking']
    """
    known = {name: count for name, count in strata.items() if count is not None}
    hidden = {name for name in strata if name not in known or known[name] < min_patients}
    while hidden and len(hidden) < len(strata):
        open_ones = {name: known[name] for name in STRATA if name not in hidden}
        if n_patients - sum(open_ones.values()) >= min_patients:
            break
        hidden.add(min(open_ones, key=lambda name: open_ones[name]))
    return frozenset(hidden)


def names_withheld(statistics: SiteStatistics) -> list[str]:
    """Name what is withheld, as ``federated|dsc|growing``, sorted."""
    flat = statistics.to_flat()
    return sorted(key.rpartition("|")[0] for key in flat if key.endswith("|withheld"))


def counts_told(statistics: SiteStatistics) -> dict[str, dict[str, int]]:
    """Count the pairs behind each figure that is told: ``federated|dsc`` -> stratum -> pairs.

    What is withheld, and what no pair is behind, is not in it.
    """
    told: dict[str, dict[str, int]] = {}
    for predictor, found in statistics.predictors.items():
        for metric, moments in found.metrics.items():
            strata = {str(name): part.n_pairs for name, part in moments.strata.items()}
            told[f"{predictor}|{metric}"] = {ALL: moments.all.n_pairs, **strata}
        told[f"{predictor}|{GROWTH_AUC}"] = {ALL: found.growth.n_pairs}
    kept = {name: {n: pairs for n, pairs in of.items() if pairs} for name, of in told.items()}
    return {name: of for name, of in sorted(kept.items()) if of}


def _whole(statistics: SiteStatistics) -> StratifiedMoments:
    """Take the moments of a metric that is defined for all pairs."""
    every = [m for p in statistics.predictors.values() for m in p.metrics.values()]
    return max(every, key=lambda m: m.all.n_pairs, default=StratifiedMoments())


def _released(
    moments: StratifiedMoments,
    whole: StratifiedMoments,
    hidden: frozenset[Stratum],
    min_patients: int,
) -> StratifiedMoments:
    overall = moments.all
    if overall.withheld:
        return _ALL_HELD_BACK
    if overall.n_pairs == 0:
        return moments
    if overall.n_pairs != whole.all.n_pairs:
        without = whole.all.n_patients - overall.n_patients
        if min(without, overall.n_patients) < min_patients:
            return _ALL_HELD_BACK
        hidden = frozenset(STRATA)
    elif not _counts_agree(moments, whole):
        return _ALL_HELD_BACK
    parts = {n: HELD_BACK if n in hidden else part for n, part in moments.strata.items()}
    return replace(moments, strata=parts)


def _counts_agree(moments: StratifiedMoments, whole: StratifiedMoments) -> bool:
    """Whether a metric of all pairs counts what the others count, where both tell it."""
    groups = [(moments.all, whole.all)]
    groups += [(moments.strata[name], whole.strata[name]) for name in STRATA]
    return all(
        one.withheld
        or other.withheld
        or (one.n_pairs, one.n_patients) == (other.n_pairs, other.n_patients)
        for one, other in groups
    )


def _released_growth(
    growth: Concordance, hidden: frozenset[Stratum], min_patients: int
) -> Concordance:
    if growth.withheld or "growing" in hidden or growth.n_patients < min_patients:
        return Concordance(withheld=1)
    return growth
