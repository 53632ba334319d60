"""What the log says of privacy: how much left that no epsilon covers."""

from __future__ import annotations

from pathlib import Path

from nognet.audit.log import AuditLog
from nognet.audit.verify import read_entries
from nognet.errors import EgressError

_NOISED = frozenset({"epsilon", "noise"})
_OF_WEIGHTS = frozenset({"train", "share"})
"""Kinds of messages that hold what was trained on patients."""


def count_left_open(folder: Path) -> int:
    """Count updates and models that left without noise; one that left again counts once.

    A masked update counts as a plain one does, unless the site's share of the sum's noise is on it:
    that covers the whole site, its patients with it, and is no charge of the patients' ledger.

    Args:
        folder: Where the log is.

    Raises:
        EgressError: a line can't be read, so nobody knows.
    """
    path = AuditLog(folder).path
    found = set()
    for number, entry in read_entries(path) if path.exists() else ():
        if entry is None:
            raise EgressError(
                f"{path}: line {number} can't be read, so it isn't known what left without noise; "
                "see `nognet audit verify`",
                code="audit-damaged",
            )
        event = entry.event
        if event.get("kind") in _OF_WEIGHTS and not _NOISED & event.keys():
            found.add(tuple(event.get(key) for key in ("kind", "run", "round", "payload_sha256")))
    return len(found)
