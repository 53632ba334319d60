"""Who may be heard at the public listener, told from a request's headers alone.

Flower reads a body whole, up to any length, before it looks who signed; its signature covers a time
and nothing else, so that whoever captured a request could send it again, with another body, for
five minutes. Here the signature is looked at before the body, by the same rules, and holds once,
also where SuperLink was restarted in between.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from nognet_server.processes import flower_internals as flower
from nognet_server.processes.used import UsedOnce

Headers = Iterable[tuple[bytes, bytes]]
MAX_KEY_BYTES = 1024


class Verdict(Enum):
    """What the headers of a request came to."""

    ADMITTED = "a registered site signed it"
    UNREGISTERED = "signed well, by a key that is registered nowhere"
    REFUSED = "not signed, signed wrongly, at another time, or sent before"


@dataclass(frozen=True)
class Signed:
    """The signature of a request, as its headers give it."""

    public_key: bytes
    timestamp: str
    signature: bytes
    signed_at: dt.datetime

    @classmethod
    def from_headers(cls, headers: Headers) -> Signed | None:
        """Read the three headers; None if one is missing, given twice, or unreadable."""
        wanted = (flower.PUBLIC_KEY_HEADER, flower.TIMESTAMP_HEADER, flower.SIGNATURE_HEADER)
        given = [(name, value) for name, value in headers if name in wanted]
        values = dict(given)
        if len(given) != len(wanted) or len(values) != len(wanted):
            return None
        try:
            timestamp = values[flower.TIMESTAMP_HEADER].decode("ascii")
            signed_at = dt.datetime.fromisoformat(timestamp)
            key = base64.b64decode(values[flower.PUBLIC_KEY_HEADER], validate=True)
            signature = base64.b64decode(values[flower.SIGNATURE_HEADER], validate=True)
        except (ValueError, binascii.Error):
            return None
        if signed_at.tzinfo is None or len(key) > MAX_KEY_BYTES:
            return None
        return cls(key, timestamp, signature, signed_at)

    def is_right(self) -> bool:
        """Whether the key signed the timestamp."""
        try:
            key = flower.bytes_to_public_key(self.public_key)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            return False
        return isinstance(key, ec.EllipticCurvePublicKey) and flower.verify_signature(
            key, self.timestamp.encode("ascii"), self.signature
        )


class Admission:
    """Judges signatures, and remembers those that held for as long as they could hold again.

    What is remembered is key and time, not the signature's bytes: of an ECDSA signature anybody can
    make a second one that holds as well (Johnson et al. 2001, malleability).
    """

    def __init__(
        self,
        is_registered: Callable[[bytes], bool],
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        used_file: Path | None = None,
    ) -> None:
        """Take up what an earlier process remembered.

        Args:
            is_registered: Whether a public key (PEM) is a registered site's.
            now: The clock.
            used_file: Where what was used is kept over restarts; None keeps it in memory alone.
        """
        self.is_registered, self.now = is_registered, now
        # a clock ahead by the tolerance is counted in
        keep_s = _longest_s() + flower.SYSTEM_TIME_TOLERANCE
        self.used = UsedOnce(keep_s, lambda: now().timestamp(), used_file)

    def examine(self, headers: Headers) -> tuple[Signed | None, Verdict]:
        """Judge what needs no memory; may be called from any thread."""
        signed = Signed.from_headers(headers)
        if signed is None or not self._is_timely(signed):
            return signed, Verdict.REFUSED
        registered = self.is_registered(signed.public_key)
        if not signed.is_right():
            return signed, Verdict.REFUSED
        return signed, Verdict.ADMITTED if registered else Verdict.UNREGISTERED

    def take(self, signed: Signed) -> bool:
        """Use a signature up; False if it was before. Called from one thread only."""
        named = signed.public_key + signed.timestamp.encode("ascii")
        return self.used.use(hashlib.sha256(named).digest())

    def _is_timely(self, signed: Signed) -> bool:
        age_s = (self.now() - signed.signed_at).total_seconds()
        return -flower.SYSTEM_TIME_TOLERANCE < age_s < _longest_s()


def _longest_s() -> float:
    return float(flower.TIMESTAMP_TOLERANCE + flower.SYSTEM_TIME_TOLERANCE)
