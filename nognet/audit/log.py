"""The log on disk: lines are appended, one process at a time, and are on disk before it goes on.

Beside the log lies its head, the last line's index and hash. It is written after the line, so a
crash may leave it one line behind, never ahead: a log that is shorter than its head was cut.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nognet.audit.entry import Entry
from nognet.audit.receipts import pending_receipt, receipts_below
from nognet.errors import EgressError
from nognet.files import held, write_text_atomic

RECOVERED = "recovered"
"""Kind of the line that says what a crash had left: half a line before it, or a receipt."""
_TAIL_BYTES = 65_536


def egress_folder(state: Path) -> Path:
    """Where in its state folder a site keeps the log of what leaves it, and the receipts."""
    return state / "egress"


@dataclass(frozen=True)
class Head:
    """The last line that was surely written."""

    index: int
    hash: str


class AuditLog:
    """A log and its head in one folder, readable by their owner alone."""

    def __init__(self, folder: Path) -> None:
        self.path, self.head_path = folder / "audit.jsonl", folder / "audit-head.json"
        self._lock = folder / ".audit.lock"

    def append(self, event: Mapping[str, Any]) -> Entry:
        """Append a line; it is on disk when this returns.

        Half a line that a crash left at the end is cut off, and a line says so.

        Raises:
            EgressError: the log's end is not what its head says, or there is no log though there
                are receipts; somebody has cut, changed or removed it.
            OSError: it can't be written; nothing of the line is left.
            ValueError: the event is not made of JSON values.
        """
        with held(self._lock):
            last, torn = self._tail()
            self._check_head(last)
            if last is None:
                self._check_none_is_missing(event)
            if torn:
                last = self._write(last, {"kind": RECOVERED, "torn_bytes": torn}, cut=torn)
            return self._write(last, event)

    def ends_with_receipt(self, name: str) -> bool:
        """Tell whether the last whole line that names a receipt names this one.

        Lines without one (of a study that was accepted) may have come behind it.
        """
        if not self.path.exists():
            return False
        for line in reversed(self.path.read_bytes().splitlines()):
            entry = Entry.from_line(line)
            if entry is not None and "receipt" in entry.event:
                return bool(entry.event["receipt"] == name)
        return False

    def head(self) -> Head | None:
        """Give the head as it was kept; None where there is no log yet.

        Raises:
            EgressError: the head's file is damaged.
        """
        try:
            values = json.loads(self.head_path.read_text(encoding="ascii"))
            return Head(int(values["index"]), str(values["hash"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as err:
            raise EgressError(
                f"{self.head_path}: not the head of an audit log ({type(err).__name__}); see "
                "`nognet audit verify`",
                code="audit-damaged",
            ) from err

    def _tail(self) -> tuple[Entry | None, int]:
        """Read the last whole line, and count the bytes of half a line behind it."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                data = b""
                while len(data) < size and data.count(b"\n") < 2:
                    start = max(0, size - len(data) - _TAIL_BYTES)
                    file.seek(start)
                    data = file.read(size - start)
        except FileNotFoundError:
            return None, 0
        whole, newline, torn = data.rpartition(b"\n")
        if not newline:
            return None, len(torn)
        last = Entry.from_line(whole.rpartition(b"\n")[2])
        if last is None or last.hash != last.expected_hash:
            raise self._damaged("its last line is none of this log's")
        return last, len(torn)

    def _check_head(self, last: Entry | None) -> None:
        head = self.head()
        if head is None and (last is None or last.index == 0):
            return  # a crash before the very first head
        if head is None:
            raise self._damaged(f"{self.head_path.name} is missing")
        behind = -1 if last is None else last.index
        if behind < head.index:
            raise self._damaged(f"it ends with line {behind}, its head says {head.index}")
        if last is not None and last.index == head.index and last.hash != head.hash:
            raise self._damaged(f"line {last.index} is not the one its head names")

    def _check_none_is_missing(self, event: Mapping[str, Any]) -> None:
        folder = self.path.parent  # a crash leaves one pending, of which nothing left
        others = receipts_below(folder) - {event.get("receipt"), pending_receipt(folder)}
        if others:
            raise self._damaged(f"it has no line, though {len(others)} receipts lie beside it")

    def _write(self, last: Entry | None, event: Mapping[str, Any], *, cut: int = 0) -> Entry:
        entry = Entry.after(last, event, datetime.now(UTC).isoformat(timespec="milliseconds"))
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            start = os.lseek(file, 0, os.SEEK_END) - cut
            os.ftruncate(file, start)
            os.lseek(file, start, os.SEEK_SET)
            try:
                _write_all(file, entry.to_line())
                os.fsync(file)
                self._write_head(entry)
            except OSError:
                os.ftruncate(file, start)
                raise
        finally:
            os.close(file)
        return entry

    def _write_head(self, entry: Entry) -> None:
        head = json.dumps({"index": entry.index, "hash": entry.hash}) + "\n"
        write_text_atomic(self.head_path, head, mode=0o600)

    def _damaged(self, found: str) -> EgressError:
        return EgressError(
            f"{self.path}: {found}; nothing is appended and nothing leaves the site. See `nognet "
            "audit verify`, keep a copy of the folder, put back what was moved (log, head and "
            "receipts belong together), and tell your data-protection officer",
            code="audit-damaged",
        )


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
