from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nognet.data.findings import Finding
from nognet.data.inspection import Inspected
from nognet.data.pairs import memory as module
from nognet.data.pairs.memory import LEAST_KEPT, Memory
from nognet.data.pairs.outcome import NoduleOutcome, TimeFacts
from nognet.errors import SiteDataError


@pytest.fixture(autouse=True)
def _files_of_this_second_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLED_NS", 0)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read to be digested."""
    seen: list[str] = []
    digest = module.hashlib.file_digest

    def counted(file: object, name: str) -> object:
        seen.append(Path(file.name).name)  # type: ignore[attr-defined]  # an open file
        return digest(file, name)  # type: ignore[arg-type]

    monkeypatch.setattr(module.hashlib, "file_digest", counted)
    return seen


def series(folder: Path) -> Path:
    folder.mkdir()
    for k in range(3):
        (folder / f"{k}").write_bytes(bytes([k]) * 100)
    return folder


def facts(message: str = "as it is", code: str = "padding") -> TimeFacts:
    row = Inspected(
        "", "ct", "CT", "1.2.3", 3, (4, 5, 6), (0.7, 0.7, 1.0), "axial", "B30f", (-1024.0, 300.0),
        (Finding(code, "warning", message),),
    )  # fmt: skip
    return TimeFacts(row, (Inspected("", "mask", "SEG"),), "pixels", "person")


def outcome(message: str = "found", code: str = "interval") -> NoduleOutcome:
    found = (Finding(code, "refused", message),)
    return NoduleOutcome("n", "1", (0, 1), found, (10.0, 20.0), {"ncc": 0.5}, False, True)


def test_an_unchanged_folder_is_not_read_again(tmp_path: Path, reads: list[str]) -> None:
    folder = series(tmp_path / "ct")
    first = Memory(tmp_path / "m.json")
    digest = first.digest(folder)
    first.save()
    assert sorted(reads) == ["0", "1", "2"]
    assert Memory(tmp_path / "m.json").digest(folder) == digest
    assert len(reads) == 3


def test_a_changed_byte_is_noticed_though_size_and_mtime_are_as_before(
    tmp_path: Path, reads: list[str]
) -> None:
    folder = series(tmp_path / "ct")
    first = Memory(tmp_path / "m.json")
    before = first.digest(folder)
    first.save()
    file = folder / "1"
    old = file.stat()
    with file.open("r+b") as opened:
        opened.seek(50)
        opened.write(b"\xff")
    os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns))
    new = file.stat()
    assert (new.st_size, new.st_mtime_ns, new.st_ino) == (old.st_size, old.st_mtime_ns, old.st_ino)
    reads.clear()
    assert Memory(tmp_path / "m.json").digest(folder) != before
    assert reads == ["1"]


def test_a_file_swapped_for_one_of_the_same_times_is_noticed(tmp_path: Path) -> None:
    file, other = tmp_path / "a", tmp_path / "b"
    file.write_bytes(b"one")
    first = Memory(tmp_path / "m.json")
    before = first.digest(file)
    first.save()
    other.write_bytes(b"two")
    stamp = file.stat()
    os.utime(other, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    other.replace(file)
    assert Memory(tmp_path / "m.json").digest(file) != before


def test_what_changed_a_moment_ago_is_read_again(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLED_NS", 60 * 10**9)
    folder = series(tmp_path / "ct")
    for _ in range(2):
        memory = Memory(tmp_path / "m.json")
        memory.digest(folder)
        memory.save()
    assert len(reads) == 6


def test_names_and_places_have_no_say_in_a_digest(tmp_path: Path) -> None:
    one, other = series(tmp_path / "ct"), tmp_path / "elsewhere"
    other.mkdir()
    for k in range(3):
        (other / f"renamed {k}").write_bytes((one / f"{k}").read_bytes())
    memory = Memory(tmp_path / "m.json")
    assert memory.digest(one) == memory.digest(other)


def test_facts_and_outcomes_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "state" / "m.json"
    first = Memory(path)
    first.keep_facts("t", [tmp_path / "ct"], facts())
    first.keep_pairs("p", [tmp_path / "ct"], [outcome()])
    first.save()
    again = Memory(path)
    assert again.facts("t", [tmp_path / "ct"]) == facts()
    assert again.pairs("p", [tmp_path / "ct"]) == (outcome(),)
    assert again.facts("other", []) is None
    assert again.pairs("other", []) is None
    assert path.stat().st_mode & 0o077 == 0


def test_a_message_with_an_old_path_is_not_told_again(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    memory = Memory(tmp_path / "m.json")
    memory.keep_pairs("with", [old], [outcome(f"{old}/7 is damaged")])
    memory.keep_pairs("without", [old], [outcome("too far apart")])
    assert memory.pairs("with", [old]) is not None
    assert memory.pairs("with", [new]) is None
    assert memory.pairs("without", [new]) is not None


@pytest.mark.parametrize("code", ["unreadable", "missing-file", "unexpected", "disk-full"])
def test_what_may_be_otherwise_next_time_is_not_remembered(tmp_path: Path, code: str) -> None:
    memory = Memory(tmp_path / "m.json")
    memory.keep_pairs("p", [], [outcome(code=code)])
    memory.keep_facts("t", [], facts(code=code))
    assert memory.pairs("p", []) is None
    assert memory.facts("t", []) is None


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"\xff\xfe", b'{"version": 99}', b'{"version": 1}',
        b'{"version": 1, "files": [], "entries": {}}',
        b'{"version": 1, "files": {"/": 3}, "entries": {"pair p": 4, "time t": {"values": 1}}}',
        b'{"version": 1, "files": {}, "entries": {"pair p": {"paths": [], "values": [{}]}}}',
        b'{"version": 1, "files": {}, "entries": {"pair p": {"paths": [], "values": 7}}}',
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_damaged_memory_is_an_empty_one(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.json"
    path.write_bytes(content)
    memory = Memory(path)
    assert memory.pairs("p", []) is None
    assert memory.facts("t", []) is None
    (tmp_path / "file").write_bytes(b"x")
    assert memory.digest(tmp_path / "file")
    memory.save()


def test_the_memory_does_not_grow_without_end(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    for run in range(LEAST_KEPT + 20):
        memory = Memory(path)
        memory.keep_pairs(f"{run}", [], [outcome(f"{run}")])
        memory.save()
    kept = json.loads(path.read_text())["entries"]
    assert len(kept) == LEAST_KEPT + 1
    assert f"pair {run}" in kept
    assert "pair 0" not in kept


def test_folders_that_the_table_left_are_forgotten(tmp_path: Path) -> None:
    one, other = series(tmp_path / "one"), series(tmp_path / "other")
    memory = Memory(tmp_path / "m.json")
    memory.digest(one)
    memory.digest(other)
    memory.forget_other_files([one])
    memory.save()
    assert set(json.loads((tmp_path / "m.json").read_text())["files"]) == {str(one)}


def test_a_state_folder_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no folder")
    memory = Memory(tmp_path / "state" / "m.json")
    memory.keep_pairs("p", [], [outcome()])
    with pytest.raises(SiteDataError, match=r"'state' in site\.yaml") as caught:
        memory.save()
    assert caught.value.code == "state-write"
