"""Updates as whole numbers modulo 2^32 or 2^64, weighted, with what must be summed beside them.

    update -> clipped to [-c, c] -> q = round(update / step) -> weight * q -> words
    sum of words -> sum(weight * q) / sum(weight) * step = the weighted mean, to half a step

Behind the update stand single words: weight, pairs, patients, numbers clipped, updates shortened,
and four ones, whose sum is the number of sites in it: if a mask was left, they tell it (but for a
chance of 2^-128).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nognet.errors import PrivacyError
from nognet.secagg.masks import Words

GUARDS = 4
"""Words of one that each site adds."""
TAIL = 5 + GUARDS
"""Words behind the update."""
_MOST_COUNTED = 2**24  # of pairs, patients or clipped numbers, so that sums fit
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Code:
    """How an update is written as words.

    Attributes:
        bits: Of each number of an update.
        clip_value: Numbers of an update are clipped to plus and minus this.
        max_weight: A site counts at most so much.
        sites: Sites whose words may be summed.
    """

    bits: int
    clip_value: float
    max_weight: int
    sites: int

    @property
    def levels(self) -> int:
        """The largest whole number of an update."""
        return int(2 ** (self.bits - 1)) - 1

    @property
    def step(self) -> float:
        """Of the grid, in units of the weights."""
        return self.clip_value / self.levels

    @property
    def word(self) -> np.dtype[Any]:
        """The smaller of uint32 and uint64 that no sum overflows."""
        largest = self.sites * self.max_weight * self.levels
        return np.dtype(np.uint32 if largest < 2**31 else np.uint64)


@dataclass(frozen=True)
class Counts:
    """What stands behind an update, or behind a sum of them.

    Attributes:
        weight: What it counts.
        pairs: Training pairs.
        patients: Training patients.
        clipped: Numbers of the update that lay outside the code's range.
        shortened: Updates that were longer than the study's `clip_norm`.
    """

    weight: int
    pairs: int
    patients: int
    clipped: int = 0
    shortened: int = 0


@dataclass(frozen=True)
class Summed:
    """What a secure sum came to: the weighted mean of the updates, float64 ``(d,)``, and counts."""

    mean: NDArray[np.float64]
    counts: Counts


def shortened(update: NDArray[Any], clip_norm: float | None) -> tuple[NDArray[np.float64], bool]:
    """Scale an update down to a Euclidean length; tell whether it was longer."""
    wide = update.astype(np.float64)
    norm = float(np.linalg.norm(wide))
    if clip_norm is None or norm <= clip_norm:
        return wide, False
    return wide * (clip_norm / norm), True


def encode(
    update: NDArray[np.float64], counts: Counts, code: Code, rng: np.random.Generator | None = None
) -> tuple[Words, Counts]:
    """Write an update as words.

    Args:
        update: ``(d,)``, finite.
        counts: Behind it; the weight is cut to the code's largest.
        code: How.
        rng: Rounds up or down by chance, right on average; None rounds to the nearest.

    Returns:
        Words ``(d + TAIL,)``, and the counts as they were written.

    Raises:
        PrivacyError: a number is not finite, or a count is out of range.
    """
    if not np.isfinite(update).all():
        raise PrivacyError("an update that is not finite can't be summed", code="non-finite")
    if min(counts.weight, counts.pairs, counts.patients) < 1 or counts.pairs >= _MOST_COUNTED:
        raise PrivacyError(f"counts {counts} can't be summed", code="counts")
    weight = min(counts.weight, code.max_weight)
    words = np.empty(update.size + TAIL, dtype=code.word)
    clipped = 0
    for start in range(0, update.size, _CHUNK):
        part = update[start : start + _CHUNK]
        clipped += int(np.count_nonzero(np.abs(part) > code.clip_value))
        scaled = np.clip(part, -code.clip_value, code.clip_value) / code.step
        if rng is not None:
            scaled = np.floor(scaled + rng.random(scaled.size))
        whole = np.clip(np.rint(scaled), -code.levels, code.levels).astype(np.int64)
        words[start : start + part.size] = (whole * weight).astype(code.word)
    written = Counts(
        weight, counts.pairs, counts.patients, min(clipped, _MOST_COUNTED), counts.shortened
    )
    words[-TAIL:] = [
        written.weight,
        written.pairs,
        written.patients,
        written.clipped,
        written.shortened,
        *[1] * GUARDS,
    ]
    return words, written


def decode(total: Words, code: Code, *, sites: int) -> Summed:
    """Read a sum of words, once all masks are gone.

    Args:
        total: ``(d + TAIL,)``.
        code: That all sites wrote with.
        sites: How many sites are in the sum.

    Raises:
        PrivacyError: masks are left in it, so it is no sum of updates.
    """
    weight, pairs, patients, clipped, long, *guards = (int(word) for word in total[-TAIL:])
    if guards != [sites] * GUARDS or not sites <= weight <= sites * code.max_weight:
        raise PrivacyError(
            "the sum of the masked updates holds masks still: sites worked with different keys, "
            "weights or lists of sites; the round can't be used",
            code="secure-not-cancelled",
        )
    signed = np.dtype(f"i{code.word.itemsize}")
    mean = total[:-TAIL].view(signed).astype(np.float64)
    mean *= code.step / weight
    return Summed(mean, Counts(weight, pairs, patients, clipped, long))
