"""The chain on disk: appended by several processes, torn by crashes, cut by somebody."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import nognet.audit.log as log_module
from nognet.audit.entry import GENESIS, Entry
from nognet.audit.log import AuditLog
from nognet.audit.verify import read_entries, verify
from nognet.errors import EgressError


def filled(folder: Path, count: int = 5) -> AuditLog:
    log = AuditLog(folder)
    for number in range(count):
        log.append({"kind": "train", "round": number})
    return log


def lines(log: AuditLog) -> list[bytes]:
    return log.path.read_bytes().splitlines(keepends=True)


def test_each_line_carries_the_hash_of_the_line_before(tmp_path: Path) -> None:
    log = filled(tmp_path)
    entries = [entry for _, entry in read_entries(log.path)]
    previous = GENESIS
    for index, entry in enumerate(entries):
        assert entry is not None
        assert (entry.index, entry.previous) == (index, previous)
        assert entry.hash == entry.expected_hash
        previous = entry.hash
    assert verify(log) == verify(log, anchor=previous)
    assert verify(log).faults == ()
    assert verify(log).head == previous
    assert oct(log.path.stat().st_mode & 0o777) == "0o600"


def test_processes_side_by_side_lose_no_line(tmp_path: Path) -> None:
    append = (
        "import pathlib, sys; from nognet.audit.log import AuditLog\n"
        "log = AuditLog(pathlib.Path(sys.argv[1]))\n"
        "for number in range(10): log.append({'kind': 'train', 'round': number})"
    )
    command = [sys.executable, "-c", append, str(tmp_path)]
    workers = [subprocess.Popen(command) for _ in range(3)]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0, 0]
    found = verify(AuditLog(tmp_path))
    assert (found.entries, found.faults) == (30, ())


@pytest.mark.parametrize("left", [1, 20, 150])
def test_half_a_line_of_a_crash_is_cut_off_and_said(tmp_path: Path, left: int) -> None:
    log = filled(tmp_path, 3)
    entry = Entry.after(None, {"kind": "train"}, "2026-01-01T00:00:00+00:00")
    with log.path.open("ab") as file:
        file.write(entry.to_line()[:left])
    found = verify(log)
    assert (found.entries, found.torn_bytes, found.faults) == (3, left, ())
    log.append({"kind": "train", "round": 3})
    assert verify(log).faults == ()
    events = [e.event for _, e in read_entries(log.path) if e is not None]
    assert events[3] == {"kind": "recovered", "torn_bytes": left}
    assert events[4] == {"kind": "train", "round": 3}


def test_a_crash_before_the_head_was_written_loses_nothing(tmp_path: Path) -> None:
    log = filled(tmp_path, 2)
    head = log.head_path.read_bytes()
    log.append({"kind": "train", "round": 2})
    log.head_path.write_bytes(head)
    assert verify(log).faults == ()
    log.append({"kind": "train", "round": 3})
    assert verify(log).entries == 4


@pytest.mark.parametrize("damage", ["cut", "cut-in-line", "gone", "edited", "head-gone"])
def test_nothing_is_appended_to_a_log_that_was_tampered_with(tmp_path: Path, damage: str) -> None:
    log = filled(tmp_path)
    whole = lines(log)
    if damage == "gone":
        log.path.unlink()
    elif damage == "head-gone":
        log.head_path.unlink()
    else:
        kept = {"cut": whole[:-1], "cut-in-line": [*whole[:-1], whole[-1][:-9]], "edited": whole}
        text = b"".join(kept[damage])
        log.path.write_bytes(text.replace(b'"round":4', b'"round":9'))
    with pytest.raises(EgressError) as found:
        log.append({"kind": "train"})
    assert found.value.code == "audit-damaged"
    assert verify(log).faults


def test_a_line_that_can_not_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = filled(tmp_path)
    before = log.path.read_bytes(), log.head_path.read_bytes()
    real, calls = os.write, []

    def half(file: int, data: bytes) -> int:
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data[:10])

    monkeypatch.setattr(log_module.os, "write", half)
    with pytest.raises(OSError, match="No space left"):
        log.append({"kind": "train"})
    monkeypatch.undo()
    assert (log.path.read_bytes(), log.head_path.read_bytes()) == before
    log.append({"kind": "train"})
    assert verify(log).faults == ()


def test_numbers_that_are_not_finite_are_no_json(tmp_path: Path) -> None:
    bad: dict[str, Any] = {"epsilon": float("nan")}
    with pytest.raises(ValueError, match="JSON"):
        AuditLog(tmp_path).append(bad)
