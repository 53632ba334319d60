"""Discrete Gaussian noise from a secret key stream: whole numbers, exact to a proved distance.

``P(X = x)`` is proportional to ``exp(-x^2 / (2 v))`` (Canonne, Kamath, Steinke 2020). A number is
drawn by inversion: a sign bit, and 127 bits that are held against a table of the distribution of
``|X|``. The first 63 of them decide nearly always; the other 64 are drawn only where the first ones
equal those of a threshold.

How far from exact (`distance_of`), in total variation, for one number:

- the tail beyond ``J >= 14 sqrt(v)`` is given to those below: ``(m + y)^2 >= m^2 + y^2``, so
  ``P(|X| >= m) <= 2 exp(-m^2 / (2 v))``, which at m = J + 1 is ``2 exp(-98) < 2^-140``;
- weights are made with 256 bits behind the point by ``w_(j+1) = w_j r_j``, ``r_(j+1) = r_j q``,
  each product cut off: ``r_j`` is wrong by ``4 (j + 1)`` units at most, ``w_j`` by ``4 j^2``, their
  sum by ``4 J^3 <= 2^62`` units for ``J <= 2^20``, which is ``2^-194``, and is divided by more
  than 1;
- each of J thresholds is cut off at 127 bits, so J + 1 probabilities are wrong by ``2^-127`` at
  most, and half of their sum counts.

Together less than ``(J + 2) 2^-127``.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from nognet.errors import PrivacyError
from nognet.privacy.secret import SecretStream

_WIDTHS = 14
_POINT = 256  # bits behind the point of a weight
_DIGITS = 120  # decimal, of the two exponentials that all weights are made of: 398 bits
_LOW = 64
_THRESHOLD = 63 + _LOW
_LARGEST = 2**20
_CHUNK = 1 << 19


@dataclass(frozen=True)
class NoiseTable:
    """Thresholds of ``P(|X| <= m)``, m = 0 ... J - 1, in units of ``2^-127``.

    Attributes:
        high: Their first 63 bits, uint64 ``(J,)``, rising.
        low: Their other 64 bits, uint64 ``(J,)``.
    """

    high: NDArray[np.uint64] = field(repr=False)
    low: NDArray[np.uint64] = field(repr=False)


def largest_of(variance: Fraction) -> int:
    """Give J: no draw is farther from 0, for certain.

    >>> largest_of(Fraction(4)), largest_of(Fraction(1024**2))
    (29, 14337)
    """
    return math.isqrt(math.floor(_WIDTHS**2 * variance)) + 1


def distance_of(variance: Fraction) -> float:
    """Bound the total variation between one draw and the exact distribution (see the module)."""
    return (largest_of(variance) + 2) * 2.0**-_THRESHOLD


def fits_a_table(variance: Fraction) -> bool:
    """Whether noise of a variance can be drawn: its table has at most 2^20 thresholds."""
    return largest_of(variance) <= _LARGEST


@functools.lru_cache(maxsize=4)
def noise_table(variance: Fraction) -> NoiseTable:
    """Work out the thresholds of a variance, in exact arithmetic.

    Raises:
        PrivacyError: the variance is not > 0, or so large that its table would not fit.
    """
    if not (variance > 0 and fits_a_table(variance)):
        raise PrivacyError(
            f"discrete noise of variance {float(variance):.4g} can't be drawn, expected above 0 "
            f"and a standard deviation of at most {_LARGEST / _WIDTHS:.0f} steps",
            code="noise-grid",
        )
    weights = _weights(variance, largest_of(variance))
    total = weights[0] + 2 * sum(weights[1:])
    below, high, low = -weights[0], [], []
    for weight in weights[:-1]:
        below += 2 * weight
        threshold = (below << _THRESHOLD) // total
        high.append(threshold >> _LOW)
        low.append(threshold & (2**_LOW - 1))
    return NoiseTable(np.array(high, np.uint64), np.array(low, np.uint64))


def discrete_gaussian(table: NoiseTable, count: int, stream: SecretStream) -> NDArray[np.int64]:
    """Draw whole numbers, ``(count,)``.

    Args:
        table: Of the variance.
        count: How many.
        stream: Where the bits come from; 64 a number, and 64 more where those don't decide.
    """
    drawn = np.empty(count, np.int64)
    for start in range(0, count, _CHUNK):
        words = stream.words(min(_CHUNK, count - start))
        bits = words >> np.uint64(1)
        found = np.searchsorted(table.high, bits, side="right")
        undecided = (found > 0) & (table.high[found - 1] == bits)
        for place in np.flatnonzero(undecided):
            found[place] = _decided(table, bits[place], stream)
        drawn[start : start + words.size] = np.where(words & np.uint64(1), -found, found)
    return drawn


def _decided(table: NoiseTable, bits: np.uint64, stream: SecretStream) -> int:
    """Count the thresholds up to a number whose first bits are those of some of them."""
    first, last = (int(np.searchsorted(table.high, bits, side=side)) for side in ("left", "right"))
    more = stream.words(1)[0]
    return first + int(np.searchsorted(table.low[first:last], more, side="right"))


def _weights(variance: Fraction, largest: int) -> list[int]:
    """Give ``exp(-j^2 / (2 v))`` for j = 0 ... J, in units of ``2^-256``."""
    ratio, factor = (_exponential(-share / variance) for share in (Fraction(1, 2), Fraction(1)))
    weights = [1 << _POINT]
    for _ in range(largest):
        weights.append(weights[-1] * ratio >> _POINT)
        ratio = ratio * factor >> _POINT
    return weights


def _exponential(exponent: Fraction) -> int:
    with localcontext() as context:
        context.prec = _DIGITS
        power = (Decimal(exponent.numerator) / Decimal(exponent.denominator)).exp()
        return int(power * Decimal(1 << _POINT))
