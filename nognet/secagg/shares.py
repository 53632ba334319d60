"""Shamir's shares (1979) of 256-bit secrets: PyCryptodome's, over GF(2^128), in two halves.

A share stands for its holder's place, which is not written into it: place `i` of `n`, from 1.
"""

from __future__ import annotations

from collections.abc import Mapping

from Crypto.Protocol.SecretSharing import Shamir

from nognet.errors import PrivacyError

SECRET_BYTES = 32
_HALF = SECRET_BYTES // 2


def split(secret: bytes, *, needed: int, holders: int) -> tuple[bytes, ...]:
    """Split a secret so that any `needed` of the shares give it and fewer tell nothing of it.

    Args:
        secret: 32 bytes.
        needed: Shares that give the secret, from 2 to `holders`.
        holders: How many shares are made.

    Returns:
        Shares of 32 bytes; the first is place 1's.

    Raises:
        ValueError: the secret is of another length, or the numbers don't fit.
    """
    if len(secret) != SECRET_BYTES or not 2 <= needed <= holders:
        raise ValueError(f"{len(secret)} bytes, {needed} of {holders} shares")
    halves = [
        Shamir.split(needed, holders, part, False) for part in (secret[:_HALF], secret[_HALF:])
    ]
    return tuple(low + high for (_, low), (_, high) in zip(*halves, strict=True))


def join(shares: Mapping[int, bytes], *, needed: int) -> bytes:
    """Join shares by place; the first `needed` of them are used.

    The result of forged shares is some other secret; callers hold it against what is public of it.

    Raises:
        PrivacyError: there are too few, or one is of the wrong length.
    """
    if len(shares) < needed:
        raise PrivacyError(
            f"{len(shares)} shares of a secret, {needed} are needed", code="secure-too-few"
        )
    chosen = sorted(shares.items())[:needed]
    if any(len(share) != SECRET_BYTES for _, share in chosen):
        raise PrivacyError("a share of the wrong length", code="secure-shares")
    parts = (
        Shamir.combine([(place, share[start : start + _HALF]) for place, share in chosen], False)
        for start in (0, _HALF)
    )
    return b"".join(bytes(part) for part in parts)
