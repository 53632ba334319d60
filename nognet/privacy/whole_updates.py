"""An update as whole numbers on a grid whose length (L2) is bounded for certain.

Rounding up or down by chance is right on average, and may lengthen a vector. So the length is
looked at once more, in exact arithmetic on the whole numbers, and the update shortened until it
holds: noise is made for that bound and for no longer one.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nognet.errors import PrivacyError
from nognet.privacy.secret import SecretStream

_TRIES = 16
_SPARE = 1e-5
"""By how much more than it is too long a vector is shortened: in most cases once is enough."""
_CHUNK = 1 << 20
_LARGEST = 2**31


def whole_update(
    update: NDArray[np.float64], *, clip_norm: float, levels: int, stream: SecretStream
) -> NDArray[np.int64]:
    """Clip an update to `clip_norm` and write it in steps of ``clip_norm / levels``.

    Args:
        update: ``(d,)``, finite.
        clip_norm: C, > 0.
        levels: L: the whole vector's length is at most this, exactly.
        stream: Says which numbers are rounded up.

    Returns:
        ``(d,)``, with ``sum(q^2) <= L^2``; right on average where nothing had to be shortened.

    Raises:
        PrivacyError: a number is not finite.
    """
    norm = float(np.linalg.norm(update))
    if not math.isfinite(norm):
        raise PrivacyError("an update that is not finite can't be noised", code="non-finite")
    scale = levels / max(clip_norm, norm)
    up = stream.uniform(update.size)
    for _ in range(_TRIES):
        whole = np.floor(update * scale + up).astype(np.int64)
        squared = squared_length(whole)
        if squared <= levels**2:
            return whole
        scale *= levels / math.sqrt(squared) * (1 - _SPARE)
    return _cut_off(update * scale, levels)


def squared_length(whole: NDArray[np.int64]) -> int:
    """Sum the squares, exactly.

    Raises:
        PrivacyError: a number is beyond 2^31.

    >>> squared_length(np.array([3, -4]))
    25
    """
    total = 0
    for start in range(0, whole.size, _CHUNK):
        part = whole[start : start + _CHUNK]
        if part.size and int(np.abs(part).max()) >= _LARGEST:
            raise PrivacyError("a whole number beyond 2^31 in an update", code="noise-grid")
        squares = (part * part).view(np.uint64)
        upper = int((squares >> np.uint64(32)).sum())
        total += (upper << 32) + int((squares & np.uint64(2**32 - 1)).sum())
    return total


def _cut_off(scaled: NDArray[np.float64], levels: int) -> NDArray[np.int64]:
    """Round towards zero, which lengthens nothing; for vectors of few numbers on a coarse grid."""
    whole = np.trunc(scaled).astype(np.int64)
    if squared_length(whole) > levels**2:
        raise PrivacyError("an update can't be shortened to its bound", code="noise-grid")
    return whole
