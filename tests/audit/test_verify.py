"""Whatever somebody does to the lines is found; what needs an anchor is found with one alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nognet.audit.entry import Entry
from nognet.audit.log import AuditLog
from nognet.audit.receipts import pending_path
from nognet.audit.verify import verify
from nognet.errors import EgressError

Lines = list[bytes]


def filled(folder: Path, count: int = 6) -> AuditLog:
    log = AuditLog(folder)
    for number in range(count):
        log.append({"kind": "train", "round": number})
    return log


def edited(lines: Lines) -> Lines:
    return [*lines[:2], lines[2].replace(b'"round":2', b'"round":7'), *lines[3:]]


def rehashed(lines: Lines) -> Lines:
    """Edit a line as somebody does who knows how its hash is made."""
    old = json.loads(lines[2])
    new = Entry(2, old["time"], {"kind": "share"}, old["previous"], "")
    line = Entry(2, new.time, new.event, new.previous, new.expected_hash).to_line()
    return [*lines[:2], line, *lines[3:]]


@pytest.mark.parametrize(
    "change",
    [
        edited,
        rehashed,
        lambda lines: [*lines[:2], *lines[3:]],
        lambda lines: [lines[1], lines[0], *lines[2:]],
        lambda lines: [*lines[:3], lines[2], *lines[3:]],
        lambda lines: lines[1:],
        lambda lines: lines[:-1],
        lambda lines: lines[:-2],
        lambda lines: [*lines[:2], b"{}\n", *lines[3:]],
        lambda lines: [*lines[:2], b" " + lines[2], *lines[3:]],
    ],
)
def test_every_change_of_the_lines_is_found(
    tmp_path: Path, change: Callable[[Lines], Lines]
) -> None:
    log = filled(tmp_path)
    log.path.write_bytes(b"".join(change(log.path.read_bytes().splitlines(keepends=True))))
    assert verify(log).faults


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_flipped_byte_is_found(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = filled(tmp_path_factory.mktemp("log"), 3)
    content = bytearray(log.path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    log.path.write_bytes(bytes(content))
    assert verify(log).faults


def test_a_log_written_anew_is_found_by_the_anchor_alone(tmp_path: Path) -> None:
    log = filled(tmp_path)
    anchor = verify(log).head
    log.append({"kind": "train", "round": 6})
    assert verify(log, anchor=anchor).faults == ()
    log.path.unlink()
    log.head_path.unlink()
    filled(tmp_path, 7)
    assert verify(log).faults == ()  # nothing in the folder can tell
    assert "anchor" in verify(log, anchor=anchor).faults[0].what


def test_a_cut_end_with_a_head_that_fits_is_found_by_the_anchor(tmp_path: Path) -> None:
    log = filled(tmp_path)
    anchor = verify(log).head
    lines = log.path.read_bytes().splitlines(keepends=True)[:-1]
    last = json.loads(lines[-1])
    log.path.write_bytes(b"".join(lines))
    log.head_path.write_text(json.dumps({"index": last["index"], "hash": last["hash"]}))
    assert verify(log).faults == ()
    assert verify(log, anchor=anchor).faults


def with_receipts(folder: Path, count: int = 3) -> AuditLog:
    """Append lines that each name a receipt, as a site's messages do."""
    log = AuditLog(folder)
    for number in range(count):
        name = f"receipts/run/{number:05d}-train.json"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{{"bytes": {number}}}')
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        log.append({"kind": "train", "receipt": name, "receipt_sha256": digest})
    return log


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_receipt_that_was_changed_is_found(tmp_path: Path, damage: str) -> None:
    log = with_receipts(tmp_path)
    assert verify(log).faults == ()
    receipt = tmp_path / "receipts/run/00001-train.json"
    if damage == "gone":
        receipt.unlink()
    else:
        receipt.write_text('{"bytes": 11}')
    assert [fault.line for fault in verify(log).faults] == [2]


def test_a_log_that_is_gone_is_missed_by_its_receipts_and_none_is_begun(tmp_path: Path) -> None:
    log = with_receipts(tmp_path, 19)
    for path in (log.path, log.head_path):
        path.unlink()
    (fault,) = verify(log).faults
    assert "the log is gone, though 19 receipts lie beside it" in fault.what
    with pytest.raises(EgressError, match=r"though 19 receipts.*put back what was moved") as caught:
        log.append({"kind": "join"})
    assert caught.value.code == "audit-damaged"
    assert not log.path.exists()
    (tmp_path / "receipts").rename(tmp_path / "receipts of last year")  # moved on purpose, together
    log.append({"kind": "join"})
    assert verify(log).faults == ()


def test_a_cut_end_is_found_by_its_receipts_though_the_head_fits(tmp_path: Path) -> None:
    log = with_receipts(tmp_path)
    lines = log.path.read_bytes().splitlines(keepends=True)[:-1]
    last = json.loads(lines[-1])
    log.path.write_bytes(b"".join(lines))
    log.head_path.write_text(json.dumps({"index": last["index"], "hash": last["hash"]}))
    (fault,) = verify(log).faults
    assert "no line names the receipt receipts/run/00002-train.json" in fault.what
    assert "or an earlier release crashed" in fault.what


def test_a_receipt_that_is_being_written_is_no_fault(tmp_path: Path) -> None:
    log = with_receipts(tmp_path)
    name = "receipts/run/00003-train.json"
    (tmp_path / name).write_text("{}")
    assert len(verify(log).faults) == 1
    pending_path(tmp_path).write_text(name)
    assert verify(log).faults == ()


def test_a_crash_in_the_very_first_receipt_lets_the_log_begin(tmp_path: Path) -> None:
    log = with_receipts(tmp_path, 1)
    for path in (log.path, log.head_path):
        path.unlink()
    pending_path(tmp_path).write_text("receipts/run/00000-train.json")
    log.append({"kind": "consent"})  # of a study that was accepted; it names no receipt
    assert verify(log).faults == ()


def test_no_log_yet_has_no_fault(tmp_path: Path) -> None:
    found = verify(AuditLog(tmp_path))
    assert (found.entries, found.faults) == (0, ())
