"""What may leave of statistics, against what somebody could compute from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nognet.metrics.moments import Concordance
from nognet.metrics.statistics import PairRow, SiteStatistics, merge_all
from nognet.metrics.withholding import (
    Limits,
    TooFewPatientsError,
    names_withheld,
    withheld_strata,
    withhold,
)
from nognet.types import STRATA, Stratum

K = 5
Pair = tuple[int, Stratum, bool]
"""Patient, stratum, and whether `ssim_nodule` is defined."""

cohorts = st.lists(
    st.tuples(st.integers(0, 25), st.sampled_from(STRATA), st.booleans()), min_size=1, max_size=60
)


def statistics(pairs: Sequence[Pair]) -> SiteStatistics:
    draws = np.random.default_rng(len(pairs))
    return SiteStatistics.from_pairs(
        PairRow(
            predictor,
            f"p{patient}",
            stratum,
            {"dsc": draws.random(), "ssim_nodule": draws.random() if defined else math.nan},
            draws.random(),
        )
        for patient, stratum, defined in pairs
        for predictor in ("federated", "copy")
    )


def evenly(**patients: int) -> list[Pair]:
    """Make so many patients of each stratum, with a pair each."""
    numbers = iter(range(1000))
    return [(next(numbers), s, True) for s in STRATA for _ in range(patients.get(s, 0))]


def derivable(published: Sequence[frozenset[Stratum]]) -> list[frozenset[Stratum]]:
    """List the unions of strata whose sums are linear combinations of what is published."""

    def row(strata: frozenset[Stratum]) -> list[int]:
        return [int(name in strata) for name in STRATA]

    basis = np.array([row(p) for p in published])
    rank = np.linalg.matrix_rank(basis)
    subsets = [frozenset(c) for size in (1, 2, 3) for c in combinations(STRATA, size)]
    return [s for s in subsets if np.linalg.matrix_rank(np.vstack([basis, row(s)])) == rank]


@settings(max_examples=300, deadline=None)
@given(cohorts)
def test_whatever_can_be_computed_has_enough_patients_behind_it(pairs: list[Pair]) -> None:
    try:
        released = withhold(statistics(pairs), Limits(K))
    except TooFewPatientsError:
        assert len({patient for patient, _, _ in pairs}) < K
        return
    for predictor in released.predictors.values():
        for metric, moments in predictor.metrics.items():
            mine = [p for p in pairs if p[2] or metric == "dsc"]
            if moments.all.withheld or not mine:
                continue
            published = [frozenset(STRATA)]
            published += [frozenset({s}) for s in STRATA if not moments.strata[s].withheld]
            for strata in derivable(published):
                assert len({p for p, s, _ in mine if s in strata}) >= K
            without = {p for p, _, defined in pairs if not defined}
            if metric == "ssim_nodule" and without:
                assert len(without) >= K
                assert published == [frozenset(STRATA)]
        if not predictor.growth.withheld:  # comparisons = g (n - g): both are told
            for grows in (True, False):
                assert len({p for p, s, _ in pairs if (s == "growing") == grows}) >= K


@settings(max_examples=200, deadline=None)
@given(cohorts, st.booleans(), st.booleans(), st.sampled_from([frozenset(), {"federated"}]))
def test_withholding_twice_changes_nothing_and_it_travels(
    pairs: list[Pair], strata: bool, intervals: bool, without: frozenset[str]
) -> None:
    limits = Limits(K, strata=strata, intervals=intervals, without=frozenset(without))
    try:
        once = withhold(statistics(pairs), limits)
    except TooFewPatientsError:
        return
    assert withhold(once, limits) == once
    flat = once.to_flat()
    assert SiteStatistics.from_flat(flat) == once
    assert len(names_withheld(once)) == sum(key.endswith("|withheld") for key in flat)


@pytest.mark.parametrize("least", [1, K])
def test_of_a_predictor_that_may_not_leave_there_is_nothing_and_the_others_are_as_without_it(
    least: int,
) -> None:
    pairs: list[Pair] = [(i, STRATA[i % 3], True) for i in range(6 * K)]
    everything = statistics(pairs)
    both = SiteStatistics({**everything.predictors, "other": everything.predictors["federated"]})
    released = withhold(both, Limits(least, without=frozenset({"other"})))
    flat = released.to_flat()
    assert {key.rpartition("|")[2] for key in flat if key.startswith("other|")} == {"withheld"}
    assert (
        released.predictors["federated"]
        == withhold(everything, Limits(least)).predictors["federated"]
    )


@pytest.mark.parametrize(
    ("patients", "withheld"),
    [
        ({"growing": 5, "stable": 6, "shrinking": 7}, set()),
        ({"growing": 2, "stable": 20, "shrinking": 8}, {"growing", "shrinking"}),
        ({"growing": 0, "stable": 20, "shrinking": 8}, {"growing", "shrinking"}),
        ({"growing": 3, "stable": 3, "shrinking": 9}, {"growing", "stable"}),
        ({"growing": 1, "stable": 1, "shrinking": 9}, set(STRATA)),
        ({"growing": 0, "stable": 0, "shrinking": 9}, set(STRATA)),
    ],
)
def test_a_second_stratum_is_withheld_where_the_first_would_be_a_difference(
    patients: dict[Stratum, int], withheld: set[Stratum]
) -> None:
    assert withheld_strata(sum(patients.values()), patients, K) == withheld
    released = withhold(statistics(evenly(**patients)), Limits(K))
    for predictor in released.predictors.values():
        found = {s for s in STRATA if predictor.metrics["dsc"].strata[s].withheld}
        assert found == withheld
        assert bool(predictor.growth.withheld) == ("growing" in withheld)


def test_one_withholds_nothing() -> None:
    whole = statistics(evenly(growing=1, stable=2))
    assert withhold(whole, Limits(1)) is whole


def test_intervals_are_withheld_with_too_few_validation_patients() -> None:
    rows = [
        PairRow("federated", f"p{n}", "stable", {"dsc": 0.5, "interval_coverage": 1.0}, 1.0)
        for n in range(9)
    ]
    released = withhold(SiteStatistics.from_pairs(rows), Limits(K, intervals=False))
    metrics = released.predictors["federated"].metrics
    assert metrics["interval_coverage"].all.withheld == 1
    assert metrics["dsc"].all.n_pairs == 9


def test_pooled_figures_say_how_many_sites_withheld() -> None:
    whole = statistics(evenly(growing=6, stable=6, shrinking=6))
    part = withhold(statistics(evenly(growing=2, stable=20, shrinking=8)), Limits(K))
    pooled = merge_all([whole, part, whole])
    figure = pooled.figures()["federated"]["dsc"]
    assert (figure["withheld"], figure["n_pairs"]) == (0, 18 + 30 + 18)
    assert figure["strata"]["growing"]["withheld"] == 1
    assert figure["strata"]["growing"]["n_pairs"] == 12
    assert figure["strata"]["stable"] == {
        **figure["strata"]["stable"], "withheld": 0, "n_pairs": 32,
    }  # fmt: skip
    assert pooled.predictors["federated"].growth.withheld == 1
    with pytest.raises(ValueError, match="don't travel"):
        pooled.to_flat()


def test_a_withheld_concordance_is_the_identity_but_for_its_mark() -> None:
    known = Concordance(2.0, 4, 5, 5)
    assert known.merge(Concordance(withheld=1)) == Concordance(2.0, 4, 5, 5, withheld=1)
