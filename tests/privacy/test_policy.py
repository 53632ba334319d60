"""The stricter setting wins, and a round over the budget is refused before it trains."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nognet.config import PrivacyConfig
from nognet.errors import PrivacyBudgetError, PrivacyError
from nognet.privacy.accounting import NoisedSteps, PrivacyHistory
from nognet.privacy.policy import admit_round, check_delta, forecast, stricter

_settings = st.builds(
    PrivacyConfig,
    noise_multiplier=st.floats(0.1, 10),
    clip_norm=st.floats(0.1, 10),
    delta=st.floats(1e-8, 1e-2),
    max_epsilon=st.none() | st.floats(0.1, 20),
)
ROUND = NoisedSteps(1.0, 0.1, 25)


def _privacy(max_epsilon: float | None = None) -> PrivacyConfig:
    return PrivacyConfig(noise_multiplier=1.0, delta=1e-3, max_epsilon=max_epsilon)


@given(one=_settings, other=_settings)
def test_combined_settings_are_at_least_as_strict_as_either(
    one: PrivacyConfig, other: PrivacyConfig
) -> None:
    both = stricter(one, other)
    assert both is not None
    for side in (one, other):
        assert both.noise_multiplier >= side.noise_multiplier
        assert both.clip_norm <= side.clip_norm
        assert both.delta <= side.delta
        if side.max_epsilon is not None:
            assert both.max_epsilon is not None
            assert both.max_epsilon <= side.max_epsilon
    assert both == stricter(other, one)
    assert stricter(one, one) == one


@given(one=_settings)
def test_one_side_alone_turns_privacy_on(one: PrivacyConfig) -> None:
    assert stricter(one, None) == one == stricter(None, one)
    assert stricter(None, None) is None


def test_delta_has_to_stay_below_half_a_patient() -> None:
    check_delta(1 / 160 - 1e-9, 80)
    for delta in (1 / 160, 0.1):
        with pytest.raises(PrivacyError, match="must be below") as caught:
            check_delta(delta, 80)
        assert caught.value.public_code == "PrivacyError:delta-too-large"
    with pytest.raises(PrivacyError, match="no patients"):
        check_delta(1e-3, 0)


def test_a_round_within_the_budget_is_admitted_with_its_cost() -> None:
    cost = admit_round(_privacy(9.5), PrivacyHistory(), ROUND, n_patients=80)
    assert cost.epsilon_before == 0
    assert cost.history == PrivacyHistory((ROUND,))
    assert 0 < cost.epsilon_after == cost.history.epsilon(1e-3) < 9.5


def test_rounds_are_admitted_until_the_next_would_pass_the_limit() -> None:
    history, admitted = PrivacyHistory(), 0
    while history.then(ROUND).epsilon(1e-3) <= 4.0:
        history = admit_round(_privacy(4.0), history, ROUND, n_patients=80).history
        admitted += 1
    assert admitted > 1
    with pytest.raises(PrivacyBudgetError):
        admit_round(_privacy(4.0), history, ROUND, n_patients=80)


def test_the_refusal_names_now_after_and_the_limit() -> None:
    history = PrivacyHistory((NoisedSteps(1.0, 0.1, 100),))
    before, after = history.epsilon(1e-3), history.then(ROUND).epsilon(1e-3)
    with pytest.raises(PrivacyBudgetError) as caught:
        admit_round(_privacy(before + 1e-3), history, ROUND, n_patients=80)
    message = str(caught.value)
    assert f"epsilon is {before:.3f} now" in message
    assert f"would be {after:.3f} after" in message
    assert f"limit of {before + 1e-3:g}" in message
    assert caught.value.exit_code == 11


def test_the_history_is_not_changed_by_a_forecast() -> None:
    history = PrivacyHistory((ROUND,))
    forecast(_privacy(), history, ROUND)
    assert history == PrivacyHistory((ROUND,))


def test_without_a_limit_any_round_is_admitted() -> None:
    cost = admit_round(_privacy(), PrivacyHistory(), NoisedSteps(1.0, 1.0, 500), n_patients=80)
    assert cost.epsilon_after > 50


def test_steps_with_less_noise_than_asked_for_are_refused() -> None:
    with pytest.raises(PrivacyError, match="at least 1"):
        admit_round(_privacy(), PrivacyHistory(), NoisedSteps(0.9, 0.1, 5), n_patients=80)


def test_a_delta_too_large_is_refused_before_any_epsilon() -> None:
    with pytest.raises(PrivacyError, match="must be below"):
        admit_round(_privacy(), PrivacyHistory(), ROUND, n_patients=500)
