"""Masks: a key expanded to words that are uniform modulo 2^32 or 2^64 (AES-256 in counter mode).

Words are made a chunk at a time, so that a mask of 5 million words needs 4 MiB, not 20.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

Words = NDArray[np.unsignedinteger[Any]]
"""A vector of uint32 or uint64; sums of them wrap around, which is what is wanted."""
_CHUNK_BYTES = 1 << 22


def with_masks(words: Words, plus: Iterable[bytes] = (), minus: Iterable[bytes] = ()) -> Words:
    """Add and take away the masks of 256-bit keys, modulo the words' size; `words` stays as it is.

    Each key is for one mask in its life: counters start at 0.
    """
    total = words.copy()
    zeros = bytes(_CHUNK_BYTES)
    for key in plus:
        _apply(total, key, zeros, np.add)
    for key in minus:
        _apply(total, key, zeros, np.subtract)
    return total


def _apply(total: Words, key: bytes, zeros: bytes, operation: np.ufunc) -> None:
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    little_endian = total.dtype.newbyteorder("<")
    size = _CHUNK_BYTES // total.itemsize
    for start in range(0, total.size, size):
        part = total[start : start + size]
        drawn = stream.update(zeros[: part.nbytes])
        operation(part, np.frombuffer(drawn, dtype=little_endian), out=part)
