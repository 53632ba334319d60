"""Pseudonyms: HMAC-SHA256 with a key that never leaves the site's state folder.

Without the key nobody can find out by trying names or dates who a pseudonym belongs to; with it
the site gets the same pseudonyms each time.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from nognet.errors import SiteDataError

KEY_NAME = "pseudonym.key"
KEY_BYTES = 32


@dataclass(frozen=True)
class Pseudonyms:
    """Makes pseudonyms of one site."""

    key: bytes = field(repr=False)

    def of_patient(self, patient: str) -> str:
        """Give the pseudonym of a patient, 16 hexadecimal digits."""
        return self._digest("patient", patient)[:16]

    def of_pair(
        self, patient: str, nodule: str, baseline: str, follow_up: str, *, part: str = ""
    ) -> str:
        """Give the pseudonym of a pair of time points of a nodule, 16 hexadecimal digits.

        Args:
            patient: As in `studies.csv`.
            nodule: Likewise.
            baseline: The earlier time.
            follow_up: The later time.
            part: Which of several nodules of that name.
        """
        parts = (part,) if part else ()
        return self._digest("pair", patient, nodule, baseline, follow_up, *parts)[:16]

    def of_contents(self, *digests: str) -> str:
        """Give a keyed digest of file digests, so that nobody else can recognise the files."""
        return self._digest("contents", *digests)

    @property
    def fingerprint(self) -> str:
        """Tell this key from others without giving anything of it away."""
        return self._digest("fingerprint")[:16]

    def _digest(self, *parts: str) -> str:
        # lengths are part of the text, so that no two lists of parts give the same text
        text = "".join(f"{len(part)}:{part}" for part in parts)
        return hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()


def load_or_make_key(state: Path) -> Pseudonyms:
    """Read the site's key, or make one at the first time (mode 0600).

    Raises:
        SiteDataError: the key is damaged, may be read by others, or can't be written.
    """
    path = state / KEY_NAME
    try:
        if not path.exists():
            write_key(state, secrets.token_bytes(KEY_BYTES))
        mode, text = stat.S_IMODE(path.stat().st_mode), path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as err:
        raise SiteDataError(
            f"{path}: the key of pseudonyms can't be read or made ({type(err).__name__})",
            code="pseudonym-key",
        ) from err
    if mode & 0o077:
        raise SiteDataError(
            f"{path}: the key of pseudonyms may be read by others (mode {mode:o}); "
            "run `chmod 600` on it",
            code="pseudonym-key",
        )
    with contextlib.suppress(ValueError):
        key = bytes.fromhex(text)
        if len(key) == KEY_BYTES:
            return Pseudonyms(key)
    raise SiteDataError(
        f"{path}: not a key of {KEY_BYTES} bytes in hexadecimal; restore it from a backup (without "
        "it pseudonyms and splits change) or delete it to start anew",
        code="pseudonym-key",
    )


def key_fingerprint(state: Path) -> str:
    """Tell the site's key from others; empty where there is none (pairs made without files).

    Raises:
        SiteDataError: the key is damaged, or may be read by others.
    """
    return load_or_make_key(state).fingerprint if (state / KEY_NAME).exists() else ""


def write_key(state: Path, key: bytes) -> None:
    """Write the site's key, unless there is one: of two processes at once the first wins.

    Raises:
        OSError: the folder can't be written.
    """
    state.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=state, prefix=f".{KEY_NAME}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(key.hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            (state / KEY_NAME).hardlink_to(name)
    finally:
        Path(name).unlink(missing_ok=True)
