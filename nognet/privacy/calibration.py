"""From a wanted epsilon to the noise that gives it."""

from __future__ import annotations

import math

from nognet.errors import PrivacyError
from nognet.privacy.accounting import NoisedSteps, PrivacyHistory

MAX_NOISE = 1000.0
_MIN_NOISE = 0.2
_GRID = 1e-3


def noise_for_epsilon(target_epsilon: float, *, rate: float, steps: int, delta: float) -> float:
    """Find the least noise multiplier, to 3 decimals, whose epsilon is at most the target.

    The answer is rounded up, so that epsilon never exceeds the target.

    Args:
        target_epsilon: Epsilon after all steps, > 0.
        rate: Probability that a patient takes part in a step.
        steps: Steps to be taken in all.
        delta: Failure probability.

    Raises:
        PrivacyError: not even a noise multiplier of 1000 is enough, or the target is not > 0.
    """
    if not target_epsilon > 0:
        raise PrivacyError(f"target epsilon is {target_epsilon}, expected > 0", code="bad-epsilon")

    def is_enough(noise: float) -> bool:
        spent = PrivacyHistory((NoisedSteps(noise, rate, steps),)).epsilon(delta)
        return spent <= target_epsilon

    if is_enough(_MIN_NOISE):
        return _MIN_NOISE
    if not is_enough(MAX_NOISE):
        raise PrivacyError(
            f"epsilon {target_epsilon:g} at delta {delta:g} can't be met in {steps} steps at rate "
            f"{rate:g}; take fewer steps, a smaller batch or more patients",
            code="epsilon-too-small",
        )
    low, high = _MIN_NOISE, 1.0
    while not is_enough(high):  # by doubling: far from the answer epsilon is cheap to compute
        low, high = high, min(2 * high, MAX_NOISE)
    while high - low > _GRID:
        middle = (low + high) / 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return min(MAX_NOISE, math.ceil(high / _GRID) * _GRID)
