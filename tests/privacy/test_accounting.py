"""Epsilon against dp-accounting, closed forms, and the laws of composition."""

from __future__ import annotations

import logging
import math

import dp_accounting
import pytest
from dp_accounting import pld, rdp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from nognet.errors import PrivacyError
from nognet.privacy.accounting import (
    PRV_ERROR,
    PRV_LIMIT,
    NoisedSteps,
    PrivacyHistory,
    account,
    quick_bound,
)

HISTORIES = {
    "performance.md, noise 1": [(1.0, 0.1, 300)],
    "performance.md, noise 2": [(2.0, 0.1, 300)],
    "performance.md, noise 4": [(4.0, 0.1, 300)],
    "little noise": [(0.6, 0.1, 50)],
    "one step": [(1.0, 0.1, 1)],
    "rare": [(1.0, 0.01, 500)],
    "everyone each step": [(2.0, 1.0, 10)],
    "hardly anything": [(20.0, 0.05, 10)],
    "noise and rate changed between rounds": [(1.0, 0.1, 40), (2.0, 0.2, 60), (1.5, 0.1, 25)],
    "everyone, then some": [(4.0, 1.0, 5), (1.0, 0.1, 30)],
}
CASES = [(name, (1e-3, 1e-5)[i % 2]) for i, name in enumerate(HISTORIES)] + [
    pytest.param("performance.md, noise 1", 1e-5, marks=pytest.mark.slow),
    pytest.param("noise and rate changed between rounds", 1e-5, marks=pytest.mark.slow),
]


def _history(rows: list[tuple[float, float, int]]) -> PrivacyHistory:
    return PrivacyHistory(tuple(NoisedSteps(*row) for row in rows))


def _reference(accountant: dp_accounting.PrivacyAccountant, history: PrivacyHistory) -> None:
    for entry in history.entries:
        event = dp_accounting.PoissonSampledDpEvent(
            entry.sample_rate, dp_accounting.GaussianDpEvent(entry.noise_multiplier)
        )
        accountant.compose(event, entry.steps)


@pytest.mark.parametrize(("name", "delta"), CASES)
def test_epsilon_lies_just_above_dp_accountings_loss_distribution(name: str, delta: float) -> None:
    history = _history(HISTORIES[name])
    reference = pld.PLDAccountant()
    _reference(reference, history)
    tight = reference.get_epsilon(delta)
    epsilon = history.epsilon(delta)
    assert epsilon >= tight  # never less than what was spent
    assert epsilon <= tight + 1.3 * PRV_ERROR + 1e-3 * tight


@pytest.mark.parametrize(("name", "delta"), CASES)
def test_renyi_bound_agrees_with_dp_accounting(name: str, delta: float) -> None:
    history = _history(HISTORIES[name])
    orders = [*(1 + x / 10 for x in range(10, 100)), *range(12, 65)]
    reference = rdp.RdpAccountant(orders)
    _reference(reference, history)
    accounts = account(history, delta)
    # Ours looks at more orders, so it may be a little tighter, and is never looser.
    theirs = reference.get_epsilon(delta)
    assert accounts.rdp <= theirs * 1.001 + 1e-9 or accounts.rdp < 0.03
    assert accounts.prv is not None
    assert accounts.rdp > accounts.prv - 1.3 * PRV_ERROR


@pytest.mark.parametrize(("noise", "steps"), [(1.0, 1), (2.0, 10), (5.0, 40)])
def test_epsilon_of_whole_batches_is_the_closed_form_of_the_gaussian_mechanism(
    noise: float, steps: int
) -> None:
    mu = math.sqrt(steps) / noise  # Dong, Roth, Su 2022: composition adds mu in quadrature

    def excess(epsilon: float) -> float:
        below = stats.norm.cdf(mu / 2 - epsilon / mu)
        return float(below - math.exp(epsilon) * stats.norm.cdf(-mu / 2 - epsilon / mu)) - 1e-3

    exact = optimize.brentq(excess, 0, 100)
    epsilon = _history([(noise, 1.0, steps)]).epsilon(1e-3)
    assert exact <= epsilon <= exact + 1.3 * PRV_ERROR


@pytest.mark.parametrize(("noise", "stated"), [(1.0, 8.9), (2.0, 2.9), (4.0, 1.15)])
def test_epsilon_of_80_patients_in_batches_of_8_for_30_epochs(noise: float, stated: float) -> None:
    epsilon = _history([(noise, 8 / 80, 30 * 10)]).epsilon(1e-3)
    assert epsilon == pytest.approx(stated, rel=0.04)


@settings(max_examples=5, deadline=None)
@given(
    noise=st.floats(2, 8),
    rate=st.sampled_from([0.02, 0.1]),
    steps=st.integers(1, 200),
    more=st.integers(1, 100),
    factor=st.floats(1.05, 2),
)
def test_epsilon_grows_with_steps_and_rate_and_shrinks_with_noise(
    noise: float, rate: float, steps: int, more: int, factor: float
) -> None:
    base = _history([(noise, rate, steps)]).epsilon(1e-3)
    slack = 2e-3  # of PRV's mesh, far below its stated error
    assert _history([(noise, rate, steps + more)]).epsilon(1e-3) >= base - slack
    assert _history([(noise * factor, rate, steps)]).epsilon(1e-3) <= base + slack
    assert _history([(noise, min(1.0, rate * factor), steps)]).epsilon(1e-3) >= base - slack
    assert _history([(noise, rate, steps)]).epsilon(1e-4) >= base - slack


def test_rounds_composed_one_by_one_cost_what_one_long_run_costs() -> None:
    rounds = PrivacyHistory()
    for _ in range(12):
        rounds = rounds.then(NoisedSteps(1.3, 0.2, 25))
    assert rounds == _history([(1.3, 0.2, 300)])
    assert rounds.steps == 300


def test_cost_does_not_depend_on_the_order_of_rounds_with_unlike_settings() -> None:
    one = _history([(1.0, 0.1, 30), (2.0, 0.2, 40), (1.0, 0.1, 10)])
    other = _history([(2.0, 0.2, 40), (1.0, 0.1, 40)])
    assert one.epsilon(1e-3) == other.epsilon(1e-3)


_entries = st.builds(
    NoisedSteps, st.sampled_from([1.0, 2.5]), st.sampled_from([0.1, 1.0]), st.integers(1, 9)
)
_histories = st.lists(_entries, max_size=5).map(
    lambda entries: PrivacyHistory().merge(PrivacyHistory(tuple(entries)))
)


@given(a=_histories, b=_histories, c=_histories)
def test_merging_is_associative_keeps_all_steps_and_has_an_identity(
    a: PrivacyHistory, b: PrivacyHistory, c: PrivacyHistory
) -> None:
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(b).steps == a.steps + b.steps
    assert a.merge(PrivacyHistory()) == a == PrivacyHistory().merge(a)


@pytest.mark.parametrize(
    "row",
    [(0.0, 0.1, 1), (-1.0, 0.1, 1), (math.inf, 0.1, 1), (1.0, 0.0, 1), (1.0, 1.01, 1), (1, 0.1, 0)],
)
def test_steps_out_of_range_are_refused(row: tuple[float, float, int]) -> None:
    with pytest.raises(PrivacyError, match="can't be accounted for"):
        NoisedSteps(*row)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-3, math.nan])
def test_delta_out_of_range_is_refused(delta: float) -> None:
    with pytest.raises(PrivacyError, match="delta"):
        _history([(1.0, 0.1, 1)]).epsilon(delta)


def test_nothing_spent_costs_nothing() -> None:
    assert PrivacyHistory().epsilon(1e-5) == 0.0


def test_hopeless_histories_are_bounded_by_renyi_and_not_by_an_overflow() -> None:
    accounts = account(_history([(0.4, 0.5, 2000)]), 1e-5)
    assert accounts.prv is None
    assert accounts.epsilon == accounts.rdp > PRV_LIMIT
    assert math.isfinite(accounts.epsilon)


def test_where_the_numerical_bound_contradicts_the_analytic_one_the_larger_holds() -> None:
    accounts = account(_history([(50.0, 0.05, 10)]), 1e-3)  # PRV's own error dominates here
    assert accounts.prv is not None
    assert accounts.prv > accounts.rdp
    assert accounts.epsilon == accounts.prv


def test_the_quick_bound_is_never_below_what_is_charged() -> None:
    for rows in HISTORIES.values():
        history = _history(rows)
        assert quick_bound(history, 1e-3) >= account(history, 1e-3).rdp - 1e-9
    assert quick_bound(PrivacyHistory(), 1e-3) == 0.0


@pytest.fixture(autouse=True)
def _quiet_reference() -> None:
    # dp-accounting logs each order that it leaves out
    logging.getLogger("absl").setLevel(logging.ERROR)
