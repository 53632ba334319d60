"""Noised updates as words: whole numbers that are bounded, modulo a size that no sum reaches.

Behind them stand the words of `quantise`, of which only the site's weight, 1, and the check words
are used: counts of pairs or of what was clipped would leave without noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nognet.errors import PrivacyError
from nognet.secagg.masks import Words
from nognet.secagg.quantise import GUARDS, TAIL, Counts, Summed


@dataclass(frozen=True)
class NoisedCode:
    """How a noised update is written as words.

    Attributes:
        step: Of the grid, in units of the weights.
        largest: No number of a noised update is farther from 0, in steps.
        sites: Sites whose words may be summed.
        divisor: What a sum is divided by, whoever is in it.
    """

    step: float
    largest: int
    sites: int
    divisor: int

    @property
    def word(self) -> np.dtype[Any]:
        """The smaller of uint32 and uint64 that no sum overflows."""
        return np.dtype(np.uint32 if self.sites * self.largest < 2**31 else np.uint64)


def encode_noised(noised: NDArray[np.int64], code: NoisedCode) -> Words:
    """Write a noised update as words ``(d + TAIL,)``.

    Raises:
        PrivacyError: a number is beyond the bound, so that a sum could overflow.
    """
    if noised.size and max(int(noised.max()), -int(noised.min())) > code.largest:
        raise PrivacyError("a noised update is beyond its bound", code="noise-grid")
    words = np.empty(noised.size + TAIL, dtype=code.word)
    words[:-TAIL] = noised.astype(code.word)
    words[-TAIL:] = [1, 0, 0, 0, 0, *[1] * GUARDS]
    return words


def decode_noised(total: Words, code: NoisedCode, *, sites: int) -> Summed:
    """Read a sum of noised words, once all masks are gone, and divide it by the fixed number.

    Raises:
        PrivacyError: masks are left in it.
    """
    if [int(word) for word in total[-TAIL:]] != [sites, 0, 0, 0, 0, *[sites] * GUARDS]:
        raise PrivacyError(
            "the sum of the masked updates holds masks still: sites worked with different keys, "
            "weights or lists of sites; the round can't be used",
            code="secure-not-cancelled",
        )
    mean = total[:-TAIL].view(np.dtype(f"i{code.word.itemsize}")).astype(np.float64)
    mean *= code.step / code.divisor
    return Summed(mean, Counts(weight=sites, pairs=0, patients=0))
