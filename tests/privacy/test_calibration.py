"""Noise for a wanted epsilon: enough, and hardly more than enough."""

from __future__ import annotations

import pytest

from nognet.errors import PrivacyError
from nognet.privacy.accounting import NoisedSteps, PrivacyHistory
from nognet.privacy.calibration import noise_for_epsilon


@pytest.mark.parametrize(
    ("target", "steps"), [pytest.param(4.0, 40, marks=pytest.mark.slow), (1.0, 300)]
)
def test_the_noise_meets_the_target_and_less_noise_would_not(target: float, steps: int) -> None:
    noise = noise_for_epsilon(target, rate=0.1, steps=steps, delta=1e-3)
    spent = PrivacyHistory((NoisedSteps(noise, 0.1, steps),)).epsilon(1e-3)
    assert spent <= target
    less = PrivacyHistory((NoisedSteps(noise * 0.99 - 2e-3, 0.1, steps),)).epsilon(1e-3)
    assert less > target


def test_a_target_below_any_noise_is_refused() -> None:
    with pytest.raises(PrivacyError, match="can't be met"):
        noise_for_epsilon(1e-3, rate=0.1, steps=1000, delta=1e-3)


@pytest.mark.parametrize("target", [0.0, -1.0, float("nan")])
def test_a_target_of_nothing_is_refused(target: float) -> None:
    with pytest.raises(PrivacyError, match="expected > 0"):
        noise_for_epsilon(target, rate=0.1, steps=10, delta=1e-3)


def test_a_generous_target_gives_the_least_noise_that_is_ever_given() -> None:
    assert noise_for_epsilon(1e4, rate=0.1, steps=1, delta=1e-3) == 0.2
