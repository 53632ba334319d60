"""What central privacy costs, against closed forms and dp-accounting; its price in words."""

from __future__ import annotations

import math

import dp_accounting
import pytest
from dp_accounting import pld
from dp_accounting import rdp as dp_rdp
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from nognet.config import AdaptiveClipping, CentralPrivacyConfig
from nognet.errors import PrivacyBudgetError, PrivacyError
from nognet.privacy.accounting import PRV_ERROR, PrivacyHistory
from nognet.privacy.central import CentralPlan, central_plan, cost_in_words

RUNS = [(1.0, 1, 1e-3), (1.0, 10, 1e-5), (4.0, 10, 1e-3), (2.0, 30, 1e-5), (10.0, 50, 1e-3)]


def plan(noise: float = 1.0, rounds: int = 10, delta: float = 1e-3, **more: object) -> CentralPlan:
    values = {"clip_norm": 1.0, "sites": 3, "max_weight": 1, **more}
    return CentralPlan(noise_multiplier=noise, rounds=rounds, delta=delta, **values)  # type: ignore[arg-type]  # any


def exact_epsilon(noise: float, delta: float) -> float:
    """Solve the analytic Gaussian mechanism for epsilon (Balle and Wang 2018, theorem 8)."""

    def excess(epsilon: float) -> float:
        half, shift = 1 / (2 * noise), epsilon * noise
        missed = stats.norm.cdf(half - shift) - math.exp(epsilon) * stats.norm.cdf(-half - shift)
        return float(missed) - delta

    return float(optimize.brentq(excess, 0, 100))


@pytest.mark.parametrize(("noise", "rounds", "delta"), RUNS)
def test_rounds_cost_what_one_gaussian_mechanism_of_less_noise_costs(
    noise: float, rounds: int, delta: float
) -> None:
    accounts = plan(noise, rounds, delta).accounts(plan(noise, rounds).whole_run())
    exact = exact_epsilon(noise / math.sqrt(rounds), delta)
    assert exact <= accounts.epsilon <= exact + 1.2 * PRV_ERROR
    assert accounts.epsilon == accounts.prv
    assert accounts.rdp >= exact


@pytest.mark.parametrize(("noise", "rounds", "delta"), RUNS)
def test_both_accountants_agree_with_dp_accounting(noise: float, rounds: int, delta: float) -> None:
    accounts = plan(noise, rounds, delta).accounts(plan(noise, rounds).whole_run())
    event = dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(noise), rounds)
    tight = pld.PLDAccountant().compose(event).get_epsilon(delta)
    moments = dp_rdp.RdpAccountant().compose(event).get_epsilon(delta)
    assert accounts.prv == pytest.approx(tight, abs=2 * PRV_ERROR)
    assert accounts.rdp == pytest.approx(moments, rel=0.02)


def test_a_round_after_the_other_costs_what_the_whole_run_does() -> None:
    history = PrivacyHistory()
    for _ in range(10):
        history = plan().after_round(history)
    assert history == plan().whole_run()


@given(noise=st.floats(0.1, 100), share=st.floats(0.001, 0.999))
def test_count_and_sum_together_are_one_mechanism_of_the_noise_that_is_charged(
    noise: float, share: float
) -> None:
    adaptive = AdaptiveClipping(name="adaptive", count_share=share)
    made = plan(noise, adaptive=adaptive)
    # per unit of noise one site moves the sum by 1 / sum_multiplier, the count by 1/2 / count_std
    moved = math.hypot(1 / made.sum_multiplier, 0.5 / made.count_std)
    assert moved == pytest.approx(1 / noise, rel=1e-9)


def test_the_noise_is_that_of_a_site_with_the_largest_weight_and_norm() -> None:
    assert plan(2.0, max_weight=40).sum_std(0.25) == 2.0 * 40 * 0.25
    assert plan(max_weight=40).total_weight == 3 * 40


def test_a_target_gives_noise_that_stays_just_below_it() -> None:
    privacy = CentralPrivacyConfig(target_epsilon=4.0, clip_norm=1.0, delta=1e-3)
    made = central_plan(privacy, sites=3, rounds=10)
    spent = made.accounts(made.whole_run()).epsilon
    assert 3.98 < spent <= 4.0
    exact = exact_epsilon(made.noise_multiplier / math.sqrt(10), 1e-3)
    assert exact == pytest.approx(spent, abs=1.2 * PRV_ERROR)


def test_a_target_that_no_noise_meets_is_refused_in_words_of_rounds() -> None:
    privacy = CentralPrivacyConfig(target_epsilon=1e-4, clip_norm=1.0, delta=1e-9)
    with pytest.raises(PrivacyError, match="can't be met in 1000 rounds; take fewer rounds"):
        central_plan(privacy, sites=3, rounds=1000)


def test_a_study_whose_rounds_pass_the_limit_is_refused_and_one_within_is_not() -> None:
    spent = plan().accounts(plan().whole_run()).epsilon
    plan(max_epsilon=spent).check_affordable()
    with pytest.raises(PrivacyBudgetError, match=r"10 rounds with noise_multiplier 1 cost epsilon"):
        plan(max_epsilon=spent - 0.01).check_affordable()


def test_there_is_room_for_exactly_the_rounds_that_the_limit_covers() -> None:
    limited = plan(max_epsilon=plan().accounts(plan(rounds=4).whole_run()).epsilon)
    history = PrivacyHistory()
    while limited.has_room(history):
        history = limited.after_round(history)
    assert history.steps == 4


def test_few_sites_are_told_that_the_noise_drowns_the_update() -> None:
    lines = cost_in_words(plan(), 152_203)
    assert "with 3 sites the noise of a round is 130 times as long" in lines[1]
    assert "as long with 391 sites" in lines[2]
    assert len(cost_in_words(plan(sites=1000), 152_203)) == 2
