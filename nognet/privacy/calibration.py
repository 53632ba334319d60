"""From a wanted epsilon to the noise that gives it.

Epsilon falls with noise nearly as a power does, so regula falsi (Illinois) between the logarithms
of both is there in a handful of evaluations. That matters: one evaluation by PRV takes up to some
seconds where there is little noise. The analytic bound (RDP), which is looser, says where to
start.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from nognet.errors import PrivacyError
from nognet.privacy.accounting import NoisedSteps, PrivacyHistory, quick_bound

MAX_NOISE = 1000.0
_MIN_NOISE = 0.2
_GRID = 1e-3
_NEAR = 1.05
_EDGE = 1e-9
"""Epsilons below it count as this: their logarithm would not be finite."""


@functools.lru_cache(maxsize=64)
def noise_for_epsilon(target_epsilon: float, *, rate: float, steps: int, delta: float) -> float:
    """Find the least noise multiplier, to 3 decimals, whose epsilon is at most the target.

    The answer is rounded up and its epsilon looked at once more, so that it never passes the
    target.

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

    def bound(noise: float) -> float:
        return quick_bound(PrivacyHistory((NoisedSteps(noise, rate, steps),)), delta)

    @functools.cache
    def epsilon(noise: float) -> float:
        return PrivacyHistory((NoisedSteps(noise, rate, steps),)).epsilon(delta)

    enough = _least_by_halving(bound, target_epsilon)
    if epsilon(enough) > target_epsilon:  # PRV's own error, where epsilon is next to nothing
        if epsilon(MAX_NOISE) > target_epsilon:
            raise PrivacyError(
                f"epsilon {target_epsilon:g} at delta {delta:g} can't be met in {steps} steps at "
                f"rate {rate:g}; take fewer steps, a smaller batch or more patients",
                code="epsilon-too-small",
            )
        enough = MAX_NOISE
    if enough <= _MIN_NOISE:
        return _MIN_NOISE
    return _rounded(_least_by_falsi(epsilon, target_epsilon, enough), epsilon, target_epsilon)


def _least_by_halving(epsilon: Callable[[float], float], target: float) -> float:
    """Find a noise that is enough by a bound, hardly larger than it has to be."""
    low, high = _MIN_NOISE, MAX_NOISE
    if epsilon(low) <= target:
        return low
    if epsilon(high) > target:
        return high
    while high / low > _NEAR:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if epsilon(middle) <= target else (middle, high)
    return high


def _least_by_falsi(epsilon: Callable[[float], float], target: float, enough: float) -> float:
    """Narrow [too little, enough] to the grid; give its upper end."""
    high, low = enough, max(_MIN_NOISE, 0.9 * enough)
    while epsilon(low) <= target:
        if low <= _MIN_NOISE:
            return _MIN_NOISE
        high, low = low, max(_MIN_NOISE, 0.8 * low)
    above, below = _excess(epsilon(low), target), _excess(epsilon(high), target)
    while high - low > _GRID:
        share = above / (above - below)
        between = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        between = min(max(between, low + _GRID / 2), high - _GRID / 2)
        excess = _excess(epsilon(between), target)
        if excess <= 0:
            high, below, above = between, excess, above / 2
        else:
            low, above, below = between, excess, below / 2
    return high


def _rounded(noise: float, epsilon: Callable[[float], float], target: float) -> float:
    """Round up to the grid, and further where PRV's mesh makes epsilon rise again."""
    found = math.ceil(round(noise / _GRID, 6)) * _GRID
    while epsilon(found) > target and found < MAX_NOISE:
        found += _GRID
    return min(MAX_NOISE, round(found, 6))


def _excess(epsilon: float, target: float) -> float:
    return math.log(max(epsilon, _EDGE)) - math.log(target)
