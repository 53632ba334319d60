"""A ledger that is lost, damaged, foreign, newer or held is never read as "nothing spent"."""

from __future__ import annotations

import errno
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from nognet.errors import PrivacyError
from nognet.privacy import ledger_file
from nognet.privacy.ledger import Ledger
from tests.builders.ledgers import charged, data_set

DATA = data_set("anna", "bert")


def altered(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def overwritten(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096 : 4096 * 3] = b"\xa5" * 8192
    path.write_bytes(content)


HARMED: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "deleted": (Path.unlink, "ledger-missing", "restore it from a backup"),
    "emptied": (lambda p: p.write_bytes(b""), "ledger-damaged", "it is empty"),
    "cut": (lambda p: p.write_bytes(p.read_bytes()[:5000]), "ledger-damaged", "damaged"),
    "overwritten": (overwritten, "ledger-damaged", "damaged"),
    "text": (lambda p: p.write_text("nothing spent" * 99), "ledger-damaged", "not a database"),
    "foreign": (
        lambda p: (p.unlink(), altered(p, "CREATE TABLE a (b)")),
        "ledger-damaged",
        "no ledger of nognet",
    ),
    "newer": (lambda p: altered(p, "PRAGMA user_version=9"), "ledger-newer", "has version 9"),
    "a row taken out": (
        lambda p: altered(p, "DROP TRIGGER entries_stay", "DELETE FROM entries WHERE number = 1"),
        "ledger-damaged",
        "1 entries, but 2 were written",
    ),
    "emptied of rows": (
        lambda p: altered(p, "DROP TRIGGER entries_stay", "DELETE FROM entries"),
        "ledger-damaged",
        "0 entries, but 2 were written",
    ),
    "a value no step has": (
        lambda p: altered(
            p,
            "DROP TRIGGER entries_keep_their_cost",
            "PRAGMA ignore_check_constraints=ON",
            "UPDATE entries SET sample_rate = 7.0",
        ),
        "ledger-damaged",
        "CHECK constraint|can't be read",
    ),
}


@pytest.mark.parametrize("name", HARMED)
def test_a_harmed_ledger_is_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    harm, code, words = HARMED[name]
    for number in (1, 2):
        charged(tmp_path, DATA, number=number)
    harm(Ledger(tmp_path).path)
    for use in (lambda: Ledger(tmp_path).entries(), lambda: charged(tmp_path, DATA)):
        with pytest.raises(PrivacyError, match=words) as caught:
            use()
        assert caught.value.code == code
        assert "ledger.sqlite" in str(caught.value)


def test_a_ledger_of_another_folder_is_not_taken_for_this_one(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    charged(here, DATA)
    charged(there, data_set("dora"))
    Ledger(here).path.write_bytes(Ledger(there).path.read_bytes())
    with pytest.raises(PrivacyError, match=r"another ledger than .*ledger\.id") as caught:
        Ledger(here).entries()
    assert caught.value.code == "ledger-damaged"


def test_an_older_copy_is_not_taken_for_the_ledger(tmp_path: Path) -> None:
    charged(tmp_path, DATA, number=1)
    older = Ledger(tmp_path).path.read_bytes()
    charged(tmp_path, DATA, number=2)
    Ledger(tmp_path).path.write_bytes(older)
    for use in (lambda: Ledger(tmp_path).entries(), lambda: charged(tmp_path, DATA)):
        with pytest.raises(PrivacyError, match=r"ends with entry 1, .* says 2.*newest") as caught:
            use()
        assert caught.value.code == "ledger-behind"


def test_a_crash_between_a_charge_and_its_mark_is_made_up_for(tmp_path: Path) -> None:
    mark = tmp_path / ledger_file.MARK_NAME
    charged(tmp_path, DATA, number=1)
    before = mark.read_text()
    charged(tmp_path, DATA, number=2)
    after = mark.read_text()
    assert before.split()[1] == "1"
    for number, left in ((3, before), (4, before.split()[0] + "\n")):  # also one of an id alone
        mark.write_text(left)
        assert len(Ledger(tmp_path).entries()) == number - 1
        assert mark.read_text() == left  # who reads does not make it theirs
        charged(tmp_path, DATA, number=number)
        assert mark.read_text() == after.replace("2\n", f"{number}\n")


def test_a_charge_counts_and_is_told_though_its_mark_can_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    charged(tmp_path, DATA, number=1)
    monkeypatch.setattr(logging.getLogger("nognet"), "propagate", True)
    with monkeypatch.context() as patched:
        patched.setattr(ledger_file, "write_text_atomic", full)
        assert charged(tmp_path, DATA, number=2).number == 2
    assert "can't be written (No space left on device)" in caplog.text
    assert charged(tmp_path, DATA, number=3).number == 3
    assert (tmp_path / ledger_file.MARK_NAME).read_text().split()[1] == "3"


@pytest.mark.parametrize("content", ["", "an id two", "one two three"])
def test_a_mark_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    charged(tmp_path, DATA)
    (tmp_path / ledger_file.MARK_NAME).write_text(content)
    with pytest.raises(PrivacyError, match="no mark of a ledger") as caught:
        Ledger(tmp_path).entries()
    assert caught.value.code == "ledger-damaged"


def test_a_crash_between_making_the_ledger_and_its_mark_is_made_up_for(tmp_path: Path) -> None:
    charged(tmp_path, DATA)
    (tmp_path / ledger_file.MARK_NAME).unlink()
    assert len(Ledger(tmp_path).entries()) == 1
    assert (tmp_path / ledger_file.MARK_NAME).exists()


def test_a_crash_before_the_schema_was_written_leaves_a_file_to_start_from(tmp_path: Path) -> None:
    Ledger(tmp_path).path.write_bytes(b"")
    charged(tmp_path, DATA)
    assert len(Ledger(tmp_path).entries()) == 1


def _interrupted(folder: Path) -> None:
    with ledger_file.opened(folder) as connection:
        connection.execute("INSERT INTO earlier_records VALUES ('a', 'b')")
        raise KeyboardInterrupt


def test_an_exception_inside_leaves_nothing_behind(tmp_path: Path) -> None:
    charged(tmp_path, DATA)
    with pytest.raises(KeyboardInterrupt):
        _interrupted(tmp_path)
    with ledger_file.opened(tmp_path) as connection:
        assert connection.execute("SELECT * FROM earlier_records").fetchall() == []


def test_a_ledger_that_is_held_for_too_long_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_file, "BUSY_S", 0.05)
    charged(tmp_path, DATA)
    with (
        ledger_file.opened(tmp_path),
        pytest.raises(PrivacyError, match="held by another process") as caught,
    ):
        charged(tmp_path, DATA)
    assert caught.value.code == "ledger-busy"


def test_a_folder_that_cannot_be_written_is_said_before_anything_trains(tmp_path: Path) -> None:
    (tmp_path / "privacy").write_text("a file where the folder belongs")
    with pytest.raises(PrivacyError, match=r"ledger\.sqlite.*'state' in site\.yaml") as caught:
        charged(tmp_path / "privacy", DATA)
    assert caught.value.code == "ledger-write"


def test_a_commit_is_synced_with_its_folder(tmp_path: Path) -> None:
    with ledger_file.opened(tmp_path) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (3,)  # EXTRA
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
