"""The most that a round may cost of what a plain Flower app costs."""

from __future__ import annotations

from collections.abc import Mapping

MOST = 0.5


def ratios(medians: Mapping[str, float]) -> dict[str, float]:
    """Divide ours, which comes first, by each.

    >>> ratios({"ours": 1.0, "plain": 4.0})
    {'ours': 1.0, 'plain': 0.25}
    """
    ours = next(iter(medians.values()))
    return {name: ours / value for name, value in medians.items()}


def too_slow(medians: Mapping[str, float]) -> str | None:
    """Say beside which plain app a round takes too long; None where it is quick enough."""
    _, *plain = ratios(medians).items()
    above = [f"{ratio:.2f} of {name}" for name, ratio in plain if not ratio <= MOST]
    return f"TOO SLOW: ours is {', '.join(above)}; at most {MOST:g} is wanted" if above else None
