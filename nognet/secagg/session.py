"""What one secure sum is bound to, and how many sites it needs."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

DOMAIN = b"nognet secure aggregation 1"
LEAST_SITES = 3
"""Of a sum of two, each of the two sites knows the other's part."""
MAX_SITES = 64
NONCE_BYTES = 16


@dataclass(frozen=True)
class Session:
    """One attempt at one round's sum; all keys, masks and signatures are bound to it.

    Attributes:
        run_token: The run's random name.
        round_number: From 1.
        nonce: Of this attempt, 32 hexadecimal digits that the coordinator drew.
        study_digest: SHA-256 of the study as the sites got it: the rules of the sum are in it.
    """

    run_token: str
    round_number: int
    nonce: str
    study_digest: str

    def binding(self) -> bytes:
        """Hash the session, ``(32,)`` bytes."""
        parts = (self.run_token, str(self.round_number), self.nonce, self.study_digest)
        return hashlib.sha256(bound_text(*(part.encode() for part in parts))).digest()


@dataclass(frozen=True)
class Rules:
    """What a study asks of a secure sum.

    Attributes:
        threshold: More than this share of the sites that began must stay to the end; at least half.
        at_least: And so many, where noise is made in shares for that number.
    """

    threshold: float
    at_least: int = LEAST_SITES

    def needed(self, sites: int) -> int:
        """Count the sites that are needed of those that began: Shamir's t.

        >>> [Rules(2 / 3).needed(n) for n in (3, 4, 6, 10)]
        [3, 3, 5, 7]
        >>> [Rules(0.5).needed(n) for n in (3, 4, 5, 10)]
        [3, 3, 3, 6]
        >>> Rules(0.5, at_least=8).needed(10)
        8
        """
        return max(LEAST_SITES, self.at_least, math.floor(self.threshold * sites + 1e-9) + 1)

    def bears(self, colluding: int, sites: int) -> bool:
        """Whether so many dishonest sites of those that began still can't have two sums made.

        >>> Rules(0.5).bears(1, 4), Rules(0.5).bears(1, 5)
        (True, False)
        """
        return colluding < 2 * self.needed(sites) - sites


def bound_text(*parts: bytes) -> bytes:
    """Join parts under the protocol's name; no two lists of parts give one text."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in (DOMAIN, *parts))


def names_text(names: tuple[str, ...]) -> bytes:
    """Join names, sorted; a name holds no comma."""
    return ",".join(sorted(names)).encode()
