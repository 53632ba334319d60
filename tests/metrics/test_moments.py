import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nognet.metrics.moments import Concordance, Moments, StratifiedMoments

# Integers up to 2^20 add exactly in float64, so the laws hold to the bit.
exact = st.integers(-(2**20), 2**20).map(float)
values = st.lists(st.floats(-1e3, 1e3), max_size=30)
moments = st.lists(st.tuples(exact, st.sampled_from("abc")), max_size=8).map(
    lambda rows: Moments.of([v for v, _ in rows], [p for _, p in rows])
)
concordances = st.lists(
    st.tuples(st.integers(0, 4).map(float), st.booleans(), st.sampled_from("abcd")), max_size=12
).map(lambda rows: Concordance.of(*([row[i] for row in rows] for i in range(3))))


@given(moments, moments, moments)
def test_merging_moments_is_associative_and_commutative_with_an_identity(
    a: Moments, b: Moments, c: Moments
) -> None:
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(b) == b.merge(a)
    assert a.merge(Moments()) == a == Moments().merge(a)


@given(concordances, concordances, concordances)
def test_merging_concordance_is_associative_and_commutative_with_an_identity(
    a: Concordance, b: Concordance, c: Concordance
) -> None:
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(b) == b.merge(a)
    assert a.merge(Concordance()) == a


@given(values, values)
def test_mean_and_sd_of_merged_sites_equal_numpys_over_all_values(
    first: list[float], second: list[float]
) -> None:
    merged = Moments.of(first, ["a"] * len(first)).merge(Moments.of(second, ["b"] * len(second)))
    together = np.array([*first, *second])
    assert merged.n_pairs == together.size
    if together.size:
        assert merged.mean == pytest.approx(together.mean(), rel=1e-9, abs=1e-9)
    if together.size >= 2:
        assert merged.sd == pytest.approx(together.std(ddof=1), rel=1e-6, abs=1e-4)


def test_mean_and_sd_are_none_without_enough_pairs() -> None:
    assert Moments().mean is None
    assert Moments().sd is None
    assert Moments.of([3.0], ["a"]).mean == 3.0
    assert Moments.of([3.0], ["a"]).sd is None


def test_equal_values_have_a_deviation_of_zero_despite_rounding() -> None:
    assert Moments.of([0.1] * 7, list("abcdefg")).sd == pytest.approx(0, abs=1e-8)


def test_patients_are_counted_once_however_many_pairs_they_have() -> None:
    assert Moments.of([1.0, 2.0, 3.0], ["a", "a", "b"]).n_patients == 2


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        Moments.of([1.0, bad], ["a", "b"])


@given(
    st.lists(
        st.tuples(st.one_of(st.integers(0, 5).map(float), st.floats(0, 10)), st.booleans()),
        max_size=25,
    )
)
def test_auc_equals_counting_every_pair(rows: list[tuple[float, bool]]) -> None:
    scores, growing = [r[0] for r in rows], [r[1] for r in rows]
    found = Concordance.of(scores, growing, ["a"] * len(rows))
    wins = comparisons = 0.0
    for score_1, grows_1 in rows:
        for score_2, grows_2 in rows:
            if grows_1 and not grows_2:
                comparisons += 1
                wins += 1.0 if score_1 > score_2 else 0.5 if score_1 == score_2 else 0.0
    assert (found.wins, found.comparisons) == (wins, comparisons)
    assert found.auc == (wins / comparisons if comparisons else None)


def test_pooling_makes_no_comparison_across_sites() -> None:
    site_1 = Concordance.of([2.0, 1.0], [True, False], ["a", "b"])
    site_2 = Concordance.of([0.2, 0.1], [True, False], ["c", "d"])
    assert site_1.merge(site_2).auc == 1.0
    assert site_1.merge(site_2).comparisons == 2


def test_one_score_for_all_gives_one_half() -> None:
    assert Concordance.of([1.0] * 5, [True, False, True, False, False], "abcde").auc == 0.5


def test_a_growth_score_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not a number"):
        Concordance.of([math.nan], [True], ["a"])


def test_strata_are_always_there_and_no_others() -> None:
    empty = StratifiedMoments()
    assert list(empty.strata) == ["growing", "stable", "shrinking"]
    with pytest.raises(ValueError, match="unknown strata"):
        StratifiedMoments(Moments(), {"exploding": Moments()})  # type: ignore[dict-item]  # no stratum on purpose
