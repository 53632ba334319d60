"""Membership inference against naive counts, closed forms and its own nominal coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nognet.errors import PrivacyError
from nognet.privacy.membership import advantage_at, attack, patient_scores
from tests.builders.null_leakage import SIZES, WARN, false_alarms

SCORES = st.lists(st.integers(-5, 5), min_size=5, max_size=12)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def normal(count: int, seed: int, mean: float = 0.0) -> np.ndarray:
    return generator(seed).normal(mean, 1.0, count)


@given(SCORES, SCORES)
def test_the_auc_is_the_share_of_won_comparisons_and_mann_whitneys(
    members: list[int], others: list[int]
) -> None:
    found = attack(np.array(members, float), np.array(others, float), generator()).auc
    naive = np.mean([(m > o) + 0.5 * (m == o) for m in members for o in others])
    assert found == pytest.approx(naive)
    u = stats.mannwhitneyu(members, others).statistic
    assert found == pytest.approx(u / (len(members) * len(others)))


@given(SCORES, SCORES)
def test_members_and_others_swapped_mirror_the_auc(members: list[int], others: list[int]) -> None:
    one, two = np.array(members, float), np.array(others, float)
    assert attack(one, two, generator()).auc == pytest.approx(1 - attack(two, one, generator()).auc)


def test_parted_scores_have_an_auc_of_one_and_normal_ones_the_closed_form() -> None:
    parted = attack(normal(9, 1, 50.0), normal(9, 2), generator())
    assert (parted.auc, parted.interval) == (1.0, (1.0, 1.0))
    shifted = attack(normal(800, 1, 0.8), normal(800, 2), generator())
    assert shifted.auc == pytest.approx(stats.norm.cdf(0.8 / math.sqrt(2)), abs=0.04)


def test_without_a_difference_the_interval_covers_a_half_as_often_as_it_says() -> None:
    covered = 0
    for trial in range(200):
        low, high = attack(normal(25, 2 * trial), normal(20, 2 * trial + 1), generator()).interval
        covered += low <= 0.5 <= high
    assert 0.90 <= covered / 200 <= 0.985  # nominal .95; its standard error is .015


def test_the_bootstrap_has_the_width_of_hanley_and_mcneil() -> None:
    members, others = normal(60, 5, 0.6), normal(50, 6)
    found = attack(members, others, generator())
    a, m, n = found.auc, 60, 50
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    variance = (a * (1 - a) + (m - 1) * (q1 - a * a) + (n - 1) * (q2 - a * a)) / (m * n)
    width = found.interval[1] - found.interval[0]
    assert width == pytest.approx(2 * 1.96 * math.sqrt(variance), rel=0.15)


def test_a_patients_pairs_count_as_one() -> None:
    scores, patients = [1.0, 3.0, 10.0, 2.0], ["b", "b", "a", "b"]
    assert patient_scores(scores, patients).tolist() == [10.0, 2.0]
    crowded = patient_scores([0.3] * 50 + [0.1], ["one"] * 50 + ["two"])
    assert crowded.tolist() == pytest.approx([0.3, 0.1])
    with pytest.raises(ValueError, match="zip"):
        patient_scores([1.0], [])


def test_the_advantage_at_a_low_rate_is_that_of_the_best_threshold() -> None:
    others = np.arange(20.0)
    members = np.array([18.5, 18.5, 100.0, 3.0])
    assert advantage_at(members, others, 0.1) == pytest.approx(0.75 - 0.1)  # 18 and 19 accepted
    assert advantage_at(members, others, 0.05) == pytest.approx(0.75 - 0.05)
    assert advantage_at(members, others, 0.01) is None  # one of 20 is five times that rate
    assert advantage_at(np.zeros(5), others, 0.1) == 0.0


def test_the_same_generator_gives_the_same_interval() -> None:
    members, others = normal(8, 1), normal(9, 2)
    assert attack(members, others, generator(3)) == attack(members, others, generator(3))


@pytest.mark.parametrize(("members", "others"), [(4, 9), (9, 4), (0, 0)])
def test_a_handful_of_patients_is_refused(members: int, others: int) -> None:
    with pytest.raises(PrivacyError, match="needs 5 of each") as caught:
        attack(np.zeros(members), np.zeros(others), generator())
    assert caught.value.code == "leakage-patients"


def test_a_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(PrivacyError, match="not finite"):
        attack(np.full(5, np.nan), np.zeros(5), generator())


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_a_model_that_tells_nothing_is_seldom_warned_of_or_refused(
    sizes: tuple[int, int],
) -> None:
    """`python -m tests.builders.null_leakage` gives the figures of docs/privacy.md."""
    rates = false_alarms(sizes, (WARN, 0.8), 100, np.random.default_rng(1))
    assert rates[WARN] <= 0.1  # 3 %, and what a hundred tries may be off by
    assert rates[0.8] <= 0.05  # 1 %, likewise
