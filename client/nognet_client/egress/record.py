"""The record of what leaves a site: a receipt a message, and a line in the audit log.

Both are on disk before the message leaves; where they can't be, it doesn't.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nognet.audit.log import RECOVERED, AuditLog, egress_folder
from nognet.audit.receipts import RECEIPTS, pending_path, pending_receipt
from nognet.errors import EgressError
from nognet.files import held, write_text_atomic
from nognet_client.egress.receipt import About, log_event, receipt_text
from nognet_client.egress.room import with_room


def record(state: Path, about: About, receipt: Mapping[str, Any]) -> Path:
    """Write a receipt and the line of the log that names it; both are on disk afterwards.

    Returns:
        The receipt's file. One of a message that leaves again is ``00001-train.2.json``.

    Raises:
        EgressError: they can't be written, or the log is not as it was left; nothing may leave.
    """
    folder, text = egress_folder(state), receipt_text(receipt)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return with_room(folder, lambda: _write(folder, about, receipt, text))
    except OSError as err:
        raise EgressError(
            f"{folder}: the record of what leaves can't be written ({err.strerror}), so nothing "
            "leaves; free some space, or let 'state' in site.yaml name a folder that may be "
            "written",
            code="not-recorded",
        ) from err


def _write(folder: Path, about: About, receipt: Mapping[str, Any], text: str) -> Path:
    """Write receipt and line, one process at a time; what a crash left of another gets its line."""
    log, pending = AuditLog(folder), pending_path(folder)
    with held(folder / ".receipt.lock"), contextlib.ExitStack() as undone:
        _recover(log, folder)
        path = _claimed(folder / RECEIPTS / about.run, about.file_stem)
        undone.callback(path.unlink, missing_ok=True)  # where nothing leaves, nothing says it did
        name = path.relative_to(folder).as_posix()
        write_text_atomic(pending, name, mode=0o600)
        write_text_atomic(path, text, mode=0o600)
        log.append(log_event(receipt, name, text))
        undone.pop_all()
        pending.unlink()
    return path


def _recover(log: AuditLog, folder: Path) -> None:
    """Name in the log the receipt that a crash left before its line; nothing left with it."""
    name = pending_receipt(folder)
    left = folder / name if name is not None else None
    if left is None or not left.exists():
        return
    if left.stat().st_size == 0:
        left.unlink()
    elif not log.ends_with_receipt(str(name)):
        digest = hashlib.sha256(left.read_bytes()).hexdigest()
        log.append({"kind": RECOVERED, "receipt": name, "receipt_sha256": digest})
    pending_path(folder).unlink()


def _claimed(folder: Path, stem: str) -> Path:
    """Take a name that no other process has: ``stem.json``, ``stem.2.json`` ..."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def path_of(number: int) -> Path:
        return folder / (f"{stem}.json" if number == 1 else f"{stem}.{number}.json")

    number = _first_free(lambda number: path_of(number).exists())
    while True:
        path = path_of(number)
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            number += 1
        else:
            return path


def _first_free(is_taken: Callable[[int], bool]) -> int:
    """Find a number from 1 that is free, in few looks however often a message came again.

    >>> _first_free(range(1, 100_000).__contains__)
    100000
    """
    taken, free = 0, 1
    while is_taken(free):
        taken, free = free, 2 * free
    while free - taken > 1:
        middle = (taken + free) // 2
        taken, free = (middle, free) if is_taken(middle) else (taken, middle)
    return free
