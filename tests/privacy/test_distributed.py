"""Noise of the sites: the share, its grid, and what it is charged, against dp-accounting."""

from __future__ import annotations

import math
from fractions import Fraction

import dp_accounting
import numpy as np
import pytest
from dp_accounting import pld
from dp_accounting import rdp as dp_rdp
from hypothesis import given, settings
from hypothesis import strategies as st

from nognet.errors import PrivacyError
from nognet.privacy.accounting import NoisedSteps, PrivacyHistory, concentrated
from nognet.privacy.central import CentralPlan, cost_in_words
from nognet.privacy.discrete_gaussian import discrete_gaussian, noise_table
from nognet.privacy.distributed import (
    LEAST_STEPS,
    NoiseShare,
    noise_share,
    shared_noise_for_epsilon,
)
from nognet.privacy.secret import SecretStream

RUNS = [(1.0, 1, 1e-3), (1.0, 10, 1e-5), (4.0, 10, 1e-3), (2.0, 30, 1e-5), (10.0, 50, 1e-3)]
NUMBERS = 152_203


def plan(noise: float, rounds: int, delta: float, *, honest: int = 7) -> CentralPlan:
    share = noise_share(noise, clip_norm=0.5, numbers=NUMBERS, honest=honest)
    return CentralPlan(noise, 0.5, 10, 1, rounds, delta, share=share)


@settings(max_examples=60, deadline=None)
@given(
    noise=st.floats(0.05, 20),
    honest=st.integers(1, 63),
    numbers=st.integers(1, 5_000_000),
    clip_norm=st.floats(1e-3, 100),
)
def test_shares_add_up_to_the_noise_that_is_charged(
    noise: float, honest: int, numbers: int, clip_norm: float
) -> None:
    try:
        share = noise_share(noise, clip_norm=clip_norm, numbers=numbers, honest=honest)
    except PrivacyError:
        assert noise * math.sqrt(numbers / honest) > 37_000
        return
    assert share.variance * honest == (Fraction(noise) * share.levels) ** 2  # z L, exactly
    assert math.sqrt(share.variance) >= LEAST_STEPS * (1 - 1e-12)
    assert share.levels >= 2 * math.sqrt(numbers)
    assert share.std * math.sqrt(honest) == pytest.approx(noise * clip_norm)
    assert share.tau == 0.0
    assert share.concentrated == pytest.approx(1 / noise, rel=1e-12)
    assert share.distance * 1000 < 1e-19  # of a thousand rounds


def test_a_coarse_grid_costs_what_the_sum_of_few_steps_lacks() -> None:
    coarse = NoiseShare(1.0, 10, Fraction(1, 4), 4, 100)
    tau = 10 * sum(math.exp(-2 * math.pi**2 / 4 * j / (j + 1)) for j in (1, 2, 3))
    assert coarse.tau == pytest.approx(tau)
    assert coarse.concentrated == pytest.approx(math.sqrt(100 + tau * 50))
    assert coarse.concentrated > 10


def test_the_sum_of_as_many_shares_as_count_has_the_variance_charged_and_more_have_more() -> None:
    share = noise_share(1.5, clip_norm=2.0, numbers=100_000, honest=3)
    table = noise_table(share.variance)
    shares = [discrete_gaussian(table, 100_000, SecretStream.for_tests(n)) for n in range(5)]
    three, five = (np.sum(shares[:count], axis=0) * share.step for count in (3, 5))
    assert three.std() == pytest.approx(1.5 * 2.0, rel=0.01)
    assert five.std() == pytest.approx(1.5 * 2.0 * math.sqrt(5 / 3), rel=0.01)


@pytest.mark.parametrize(("noise", "rounds", "delta"), RUNS)
def test_the_charge_is_dp_accountings_of_a_gaussian_by_renyi_and_above_the_tight_one(
    noise: float, rounds: int, delta: float
) -> None:
    made = plan(noise, rounds, delta)
    accounts = made.accounts(made.whole_run())
    event = dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(noise), rounds)
    moments = dp_rdp.RdpAccountant().compose(event).get_epsilon(delta)
    tight = pld.PLDAccountant().compose(event).get_epsilon(delta)
    assert accounts.prv is None
    assert accounts.epsilon == accounts.rdp == pytest.approx(moments, rel=0.02)
    assert tight < accounts.epsilon < 1.3 * tight
    assert accounts.epsilon >= CentralPlan(noise, 0.5, 10, 1, rounds, delta).accounts(
        made.whole_run()
    ).rdp * (1 - 1e-9)


def test_what_the_sampler_lacks_is_taken_from_delta_times_one_and_e_to_the_epsilon() -> None:
    history = PrivacyHistory((NoisedSteps(1.0, 1.0, 4),))
    exact = concentrated(history, 1e-3, distance=0.0).epsilon
    assert concentrated(history, 1e-3, distance=1e-30).epsilon == pytest.approx(exact, rel=1e-12)
    looser = concentrated(history, 5e-4, distance=0.0).epsilon
    distance = 1e-4 / (4 * (1 + math.exp(looser)))  # a tenth of delta
    assert concentrated(history, 1e-3, distance=distance).epsilon == pytest.approx(
        concentrated(history, 9e-4, distance=0.0).epsilon, rel=1e-9
    )
    with pytest.raises(PrivacyError, match="leaves nothing of delta"):
        concentrated(history, 1e-3, distance=10 * distance)


def test_noise_that_promises_nothing_has_no_epsilon() -> None:
    made = plan(0.05, 10, 1e-3)
    with pytest.raises(PrivacyError, match="use more noise or fewer rounds") as caught:
        made.accounts(made.whole_run())
    assert caught.value.code == "no-epsilon"


def test_nothing_released_costs_nothing() -> None:
    assert plan(1.0, 1, 1e-3).accounts(PrivacyHistory()).epsilon == 0.0


@pytest.mark.parametrize(
    ("noise", "honest", "numbers", "said"),
    [
        (1.0, 0, 10, "0 honest sites would have to make the noise"),
        (1e-9, 1, 10, "can't be made of whole numbers"),
        (100.0, 1, 5_000_000, "can't be made of whole numbers"),
    ],
)
def test_noise_that_sites_cant_make_is_refused(
    noise: float, honest: int, numbers: int, said: str
) -> None:
    with pytest.raises(PrivacyError, match=said):
        noise_share(noise, clip_norm=1.0, numbers=numbers, honest=honest)


def test_the_price_says_in_how_many_shares_the_noise_is_made() -> None:
    lines = cost_in_words(plan(1.0, 10, 1e-3), NUMBERS)
    assert "the sites make it in shares for 7: with all 10 it is 1.2 times that" in lines[1]


@pytest.mark.parametrize(("target", "rounds"), [(8.0, 10), (0.5, 30)])
def test_a_target_gives_the_least_noise_that_stays_below_it(target: float, rounds: int) -> None:
    noise = shared_noise_for_epsilon(target, rounds=rounds, delta=1e-3, numbers=NUMBERS, honest=7)

    def spent(multiplier: float) -> float:
        made = plan(multiplier, rounds, 1e-3)
        return made.accounts(made.whole_run()).epsilon

    assert spent(noise) <= target < spent(noise - 0.001)


def test_a_target_whose_noise_sites_cant_make_is_refused() -> None:
    with pytest.raises(PrivacyError, match="can't be made of whole numbers"):
        shared_noise_for_epsilon(0.01, rounds=100, delta=1e-5, numbers=5_000_000, honest=2)
