"""Hold a log against its own chain, its head, an anchor kept elsewhere, and the receipts it names.

A chain finds what was edited, deleted from the middle or put in another order. Receipts that no
line names tell that lines are gone from its end, or all of it. Where they were removed with it, or
all of it was written anew, a hash is needed that was noted where the log's writer can't reach it
(`nognet audit head` prints it).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nognet.audit.entry import GENESIS, Entry
from nognet.audit.log import AuditLog, Head
from nognet.audit.receipts import pending_receipt, receipts_below
from nognet.errors import EgressError


@dataclass(frozen=True)
class Fault:
    """What is wrong at a line (from 1; 0 for the log as a whole)."""

    line: int
    what: str


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes:
        entries: Lines that are whole.
        head: Hash of the last of them; `GENESIS` without any.
        torn_bytes: Half a line at the end, as a crash leaves it: no fault, the next line says so.
        faults: Everything that is wrong, in order.
    """

    entries: int
    head: str
    torn_bytes: int
    faults: tuple[Fault, ...]


def read_entries(path: Path) -> Iterator[tuple[int, Entry | None]]:
    """Read the log line by line: its number from 1, and the entry; None where it is none."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.endswith(b"\n"):
                yield number, Entry.from_line(line[:-1])


def verify(log: AuditLog, *, anchor: str | None = None) -> Verification:
    """Check every line, the head beside the log, the receipts, and an anchor.

    Args:
        log: The log.
        anchor: A hash that the log had as its head once; None for none.
    """
    faults: list[Fault] = []
    hashes: dict[str, int] = {}
    entries, previous, index = 0, GENESIS, 0
    head = _head(log)  # before the lines: one that is appended meanwhile is behind it
    unnamed = receipts_below(log.path.parent)  # likewise, and each is pending until it has a line
    unnamed.discard(pending_receipt(log.path.parent) or "")
    exists = log.path.exists()
    for number, entry in read_entries(log.path) if exists else ():
        if entry is None:
            faults.append(Fault(number, "is no line of this log: edited or overwritten"))
            continue
        faults += [Fault(number, what) for what in _wrong(entry, previous, index)]
        faults += [Fault(number, what) for what in _receipt_faults(log.path.parent, entry)]
        unnamed.discard(str(entry.event.get("receipt")))
        hashes[entry.hash] = entry.index
        entries, previous, index = entries + 1, entry.hash, entry.index + 1
    faults += [Fault(0, what) for what in _head_faults(log, head, hashes)]
    faults += [Fault(0, what) for what in _unnamed_faults(unnamed, entries)]
    if anchor is not None and anchor not in hashes:
        faults.append(
            Fault(0, "the anchor is the hash of no line: the end was cut, or the log written anew")
        )
    return Verification(entries, previous, _torn(log.path) if exists else 0, tuple(faults))


def _wrong(entry: Entry, previous: str, index: int) -> Iterator[str]:
    if entry.hash != entry.expected_hash:
        yield "its hash is not that of its contents: edited"
    if entry.index != index:
        yield f"has index {entry.index}, expected {index}: lines deleted, added or moved"
    elif entry.previous != previous:
        yield "does not follow the line before it: edited, deleted or moved"


def _head(log: AuditLog) -> Head | str | None:
    """Give the head that was kept, or what is wrong with it."""
    try:
        return log.head()
    except EgressError as err:
        return str(err)


def _head_faults(
    log: AuditLog, head: Head | str | None, hashes: Mapping[str, int]
) -> Iterator[str]:
    if isinstance(head, str):
        yield head
    elif head is None:
        if len(hashes) > 1:
            yield f"{log.head_path.name} is missing"
    elif hashes.get(head.hash) != head.index:
        yield f"the line that {log.head_path.name} names is not there: the end was cut or changed"


def _receipt_faults(folder: Path, entry: Entry) -> Iterator[str]:
    name, digest = entry.event.get("receipt"), entry.event.get("receipt_sha256")
    if not isinstance(name, str) or not isinstance(digest, str):
        return
    try:
        found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    except OSError:
        yield f"its receipt {name} is missing"
        return
    if found != digest:
        yield f"its receipt {name} was changed"


def _unnamed_faults(unnamed: Collection[str], entries: int) -> Iterator[str]:
    """Say which receipts no line names; of a log that is gone only how many there are."""
    if unnamed and not entries:
        yield f"the log is gone, though {len(unnamed)} receipts lie beside it"
        return
    for name in sorted(unnamed):
        yield (
            f"no line names the receipt {name}: its line was cut, the log written anew, or an "
            "earlier release crashed between the two"
        )


def _torn(path: Path) -> int:
    return len(path.read_bytes().rpartition(b"\n")[2])
