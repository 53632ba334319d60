"""The stricter setting wins; a round or a run over the budget is refused before it trains."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nognet.config import PrivacyConfig
from nognet.errors import PrivacyBudgetError, PrivacyError
from nognet.privacy.accounting import NoisedSteps, PrivacyHistory
from nognet.privacy.calibration import noise_for_epsilon
from nognet.privacy.policy import (
    PrivacySettings,
    admit_round,
    admit_run,
    admit_to_target,
    check_delta,
    forecast,
    noise_for_run,
    stricter,
    unlimited_words,
)


@pytest.mark.parametrize(
    ("given", "warned"),
    [
        ({"target_epsilon": 2.0}, True),
        ({"target_epsilon": 2.0, "max_epsilon": 4.0}, False),
        ({"noise_floor": 1.0}, False),
    ],
)
def test_a_target_without_a_limit_is_said_to_bound_one_run(
    given: dict[str, float], warned: bool
) -> None:
    words = unlimited_words(PrivacySettings(1.0, 1e-3, **given))
    assert (words is not None) == warned
    assert unlimited_words(None) is None


_common: dict[str, Any] = {
    "clip_norm": st.floats(0.1, 10),
    "delta": st.floats(1e-8, 1e-2),
    "max_epsilon": st.none() | st.floats(0.1, 20),
    "admit": st.sampled_from([None, "run", "round"]),
    "pairs_of_patient": st.sampled_from([None, "one", "all"]),
}
_settings = st.builds(PrivacyConfig, noise_multiplier=st.floats(0.1, 10), **_common) | st.builds(
    PrivacyConfig, target_epsilon=st.floats(0.1, 10), **_common
)
ROUND = NoisedSteps(1.0, 0.1, 25)
NOTHING = (PrivacyHistory(),)


def _privacy(**changes: Any) -> PrivacySettings:
    return PrivacySettings(**{"clip_norm": 1.0, "delta": 1e-3, "noise_floor": 1.0, **changes})


@given(one=_settings, other=_settings)
def test_combined_settings_are_at_least_as_strict_as_either(
    one: PrivacyConfig, other: PrivacyConfig
) -> None:
    both = stricter(one, other)
    assert both is not None
    for side in (one, other):
        assert both.clip_norm <= side.clip_norm
        assert both.delta <= side.delta
        if side.noise_multiplier is not None:
            assert (both.noise_floor or 0) >= side.noise_multiplier
        if side.target_epsilon is not None:
            assert (both.target_epsilon or 99) <= side.target_epsilon
        if side.max_epsilon is not None:
            assert (both.max_epsilon or 99) <= side.max_epsilon
        assert both.admit == "run" or side.admit != "run"
        assert both.pairs_of_patient == "one" or side.pairs_of_patient != "one"
    assert both == stricter(other, one)
    assert stricter(one, one) == stricter(one, None) == stricter(None, one)


def test_what_nobody_says_is_run_and_one_and_what_one_says_holds() -> None:
    plain = PrivacyConfig(noise_multiplier=1.0, delta=1e-3)
    says = PrivacyConfig(noise_multiplier=1.0, delta=1e-3, admit="round", pairs_of_patient="all")
    alone, together = stricter(plain, None), stricter(plain, says)
    assert alone is not None
    assert together is not None
    assert (alone.admit, alone.pairs_of_patient) == ("run", "one")
    assert (together.admit, together.pairs_of_patient) == ("round", "all")
    assert stricter(None, None) is None


@pytest.mark.parametrize(("noise", "decides"), [(0.5, "target"), (30.0, "noise")])
def test_of_noise_and_target_the_larger_noise_holds(noise: float, decides: str) -> None:
    study = PrivacyConfig(target_epsilon=1.0, delta=1e-3)
    site = PrivacyConfig(noise_multiplier=noise, delta=1e-2)
    both = stricter(study, site)
    assert both is not None
    calibrated = noise_for_epsilon(1.0, rate=0.1, steps=300, delta=1e-3)  # at the smaller delta
    found = noise_for_run(both, rate=0.1, steps=300)
    assert found == (calibrated if decides == "target" else noise)


@pytest.mark.parametrize(("over", "admitted"), [(0.999, True), (1.0, True), (1.001, False)])
def test_a_target_is_what_it_says_and_no_hundredth_more(over: float, admitted: bool) -> None:
    run = PrivacyHistory((ROUND,))
    spent = run.then(ROUND).epsilon(1e-3)
    settings = _privacy(target_epsilon=spent / over)
    if admitted:
        assert admit_to_target(settings, run, ROUND) == spent
    else:
        with pytest.raises(PrivacyBudgetError, match="over its target_epsilon") as caught:
            admit_to_target(settings, run, ROUND)
        assert caught.value.code == "budget-target"


@pytest.mark.parametrize("target", [0.05, 1.0, 8.0])
@pytest.mark.parametrize(("rate", "rounds"), [(0.05, 40), (0.5, 4), (1.0, 3)])
def test_noise_found_for_a_target_lets_every_round_of_the_run_pass(
    target: float, rate: float, rounds: int
) -> None:
    settings = _privacy(noise_floor=None, target_epsilon=target)
    noise = noise_for_run(settings, rate=rate, steps=5 * rounds)
    planned = NoisedSteps(noise, rate, 5)
    for number in {1, rounds // 2, rounds - 2, rounds - 1, rounds} - {0}:
        before = PrivacyHistory((replace(planned, steps=5 * (number - 1)),) if number > 1 else ())
        assert admit_to_target(settings, before, planned) <= target


def test_without_noise_or_target_there_is_no_noise_to_be_found() -> None:
    with pytest.raises(PrivacyError, match="neither noise nor a target"):
        noise_for_run(_privacy(noise_floor=None), rate=0.1, steps=5)


def test_delta_has_to_stay_below_half_a_patient() -> None:
    check_delta(1 / 160 - 1e-9, 80)
    for delta in (1 / 160, 0.1):
        with pytest.raises(PrivacyError, match="must be below") as caught:
            check_delta(delta, 80)
        assert caught.value.public_code == "PrivacyError:delta-too-large"
    with pytest.raises(PrivacyError, match="no patients"):
        check_delta(1e-3, 0)


def test_a_round_within_the_budget_is_admitted_with_its_cost() -> None:
    cost = admit_round(_privacy(max_epsilon=9.5), NOTHING, ROUND)
    assert cost.epsilon_before == 0
    assert 0 < cost.epsilon_after == PrivacyHistory((ROUND,)).epsilon(1e-3) < 9.5


def test_the_patient_charged_most_decides() -> None:
    little, much = (PrivacyHistory((NoisedSteps(1.0, 0.1, n),)) for n in (5, 100))
    cost = forecast(_privacy(), (little, PrivacyHistory(), much), ROUND)
    assert cost.epsilon_before == much.epsilon(1e-3)
    assert cost.epsilon_after == much.then(ROUND).epsilon(1e-3)


def test_rounds_are_admitted_until_the_next_would_pass_the_limit() -> None:
    privacy, history, admitted = _privacy(max_epsilon=4.0), PrivacyHistory(), 0
    while history.then(ROUND).epsilon(1e-3) <= 4.0:
        admit_round(privacy, (history,), ROUND)
        history = history.then(ROUND)
        admitted += 1
    assert admitted > 1
    with pytest.raises(PrivacyBudgetError):
        admit_round(privacy, (history,), ROUND)


def test_the_refusal_names_now_after_and_the_limit() -> None:
    history = PrivacyHistory((NoisedSteps(1.0, 0.1, 100),))
    before, after = history.epsilon(1e-3), history.then(ROUND).epsilon(1e-3)
    with pytest.raises(PrivacyBudgetError) as caught:
        admit_round(_privacy(max_epsilon=before + 1e-3), (history,), ROUND)
    message = str(caught.value)
    assert "refused before it trains" in message
    assert f"is {before:.3f} now" in message
    assert f"would be {after:.3f} after its 25 steps" in message
    assert f"limit of {before + 1e-3:g}" in message
    assert caught.value.exit_code == 11
    assert caught.value.public_code == "PrivacyBudgetError:privacy-budget"


def test_a_run_is_refused_before_it_starts_unless_rounds_alone_are_admitted() -> None:
    run = NoisedSteps(1.0, 0.1, 250)
    with pytest.raises(PrivacyBudgetError, match="refused before it starts") as caught:
        admit_run(_privacy(max_epsilon=4.0), NOTHING, run)
    assert caught.value.public_code == "PrivacyBudgetError:budget-run"
    assert "privacy.admit: round" in str(caught.value)
    rounds_only = _privacy(max_epsilon=4.0, admit="round")
    assert admit_run(rounds_only, NOTHING, run).is_over
    admit_round(rounds_only, NOTHING, ROUND)


def test_without_a_limit_any_round_is_admitted() -> None:
    assert admit_round(_privacy(), NOTHING, NoisedSteps(1.0, 1.0, 500)).epsilon_after > 50


def test_steps_with_less_noise_than_asked_for_are_refused() -> None:
    with pytest.raises(PrivacyError, match="at least 1"):
        admit_round(_privacy(), NOTHING, NoisedSteps(0.9, 0.1, 5))
