"""Random numbers that nobody outside the site can reproduce: an AES-256-CTR key stream.

DP-SGD is only as private as its noise *and* its sampling are unknown to whoever sees the weights.
A generator seeded from the study would be known to the coordinator; torch's CPU generator uses 32
bits of its seed (``manual_seed(1)`` and ``manual_seed(1 + 2**32)`` draw the same numbers), which
can be searched. So both come from a 256-bit key that is made at the site for each round, never
stored and never sent. A run under DP is therefore not reproducible, on purpose.

Not defended: attacks on the floating-point grid of the noise (Mironov 2012). Noise is made in
float64 and rounded once, after it was added to the sum.
"""

from __future__ import annotations

import math
import secrets

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

KEY_BYTES = 32


class SecretStream:
    """Uniform and normal draws from a key; with a fresh key, known to nobody."""

    def __init__(self, key: bytes) -> None:
        """Start the stream of a 256-bit key. Outside of tests use `fresh`.

        Raises:
            ValueError: the key has not 32 bytes.
        """
        if len(key) != KEY_BYTES:
            raise ValueError(f"key of {len(key)} bytes, expected {KEY_BYTES}")
        # The key is used once, so a counter that starts at 0 never repeats a block.
        self._encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    @classmethod
    def fresh(cls) -> SecretStream:
        """Start a stream with a key from the operating system's randomness."""
        return cls(secrets.token_bytes(KEY_BYTES))

    @classmethod
    def for_tests(cls, number: int) -> SecretStream:
        """Start a stream whose key everyone knows; it gives no privacy at all."""
        return cls(number.to_bytes(KEY_BYTES, "big"))

    def words(self, count: int) -> NDArray[np.uint64]:
        """Draw `count` numbers of 64 bits each."""
        return np.frombuffer(self._encryptor.update(bytes(8 * count)), dtype="<u8")

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Draw `count` numbers in the open interval (0, 1), 52 bits each."""
        return ((self.words(count) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Draw standard normal numbers of a shape (Box and Muller 1958)."""
        count = math.prod(shape)
        half = (count + 1) // 2
        radius: NDArray[np.float64] = np.sqrt(-2.0 * np.log(self.uniform(half)))
        angle = 2.0 * np.pi * self.uniform(half)
        drawn: NDArray[np.float64] = np.concatenate(
            [radius * np.cos(angle), radius * np.sin(angle)]
        )
        return drawn[:count].reshape(shape)
