"""The ledger's SQLite file: made once, opened with every check, never read as "nothing spent".

A rollback journal with ``synchronous=EXTRA``: once a commit has returned, no power cut takes it
back (FULL would leave the journal's removal to chance, and a journal that comes back undoes the
commit). Not a write-ahead log: it needs shared memory, which hospitals' network folders lack, and
spreads the ledger over files, of which a backup may copy the wrong one. A few rows a round need no
speed (docs/decisions/0012).
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from nognet.errors import PrivacyError
from nognet.files import write_text_atomic

_log = logging.getLogger("nognet.privacy")
LEDGER_NAME = "ledger.sqlite"
MARK_NAME = "ledger.id"
"""Says beside the ledger that there is one, which, and its last entry's number as of the last time
that one was added: so that a lost one, and an older copy of it, are missed. It is written after the
ledger, so a crash leaves its number behind, never ahead; a mark of an id alone has none. Who only
reads does not write it: it would be theirs then, an administrator's for example."""
APPLICATION_ID = 0x6E6F676C  # "nogl"
SCHEMA_VERSION = 1
BUSY_S = 300.0
"""How long another process may hold the ledger: it computes epsilon meanwhile."""
_SCHEMA = """
CREATE TABLE identity (id TEXT NOT NULL);
CREATE TABLE data_sets (
    id INTEGER PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    key TEXT NOT NULL,
    UNIQUE (fingerprint, key)
);
CREATE TABLE patients (
    data_set INTEGER NOT NULL REFERENCES data_sets (id),
    pseudonym TEXT NOT NULL CHECK (pseudonym <> ''),
    PRIMARY KEY (data_set, pseudonym)
) WITHOUT ROWID;
CREATE TABLE entries (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    data_set INTEGER NOT NULL REFERENCES data_sets (id),
    study TEXT NOT NULL,
    study_digest TEXT NOT NULL,
    run_token TEXT NOT NULL,
    round INTEGER NOT NULL,
    noise_multiplier REAL NOT NULL CHECK (noise_multiplier > 0),
    sample_rate REAL NOT NULL CHECK (sample_rate > 0 AND sample_rate <= 1),
    steps INTEGER NOT NULL CHECK (steps >= 1),
    delta REAL,
    epsilon_before REAL,
    epsilon_after REAL,
    state TEXT NOT NULL CHECK (state IN ('planned', 'taken', 'earlier')),
    time_utc TEXT NOT NULL,
    software TEXT NOT NULL,
    CHECK ((delta IS NULL) = (state = 'earlier'))
);
CREATE TABLE earlier_records (name TEXT PRIMARY KEY, time_utc TEXT NOT NULL);
CREATE TRIGGER entries_stay BEFORE DELETE ON entries
BEGIN SELECT RAISE(ABORT, 'entries of the ledger are never deleted'); END;
CREATE TRIGGER entries_keep_their_cost BEFORE UPDATE ON entries
WHEN NOT (OLD.state = 'planned' AND NEW.state = 'taken' AND NEW.number = OLD.number
    AND NEW.data_set = OLD.data_set AND NEW.noise_multiplier = OLD.noise_multiplier
    AND NEW.sample_rate = OLD.sample_rate AND NEW.steps = OLD.steps AND NEW.delta = OLD.delta)
BEGIN SELECT RAISE(ABORT, 'entries of the ledger only go from planned to taken'); END;
CREATE TRIGGER patients_stay BEFORE DELETE ON patients
BEGIN SELECT RAISE(ABORT, 'patients of the ledger are never deleted'); END;
"""


def exists(folder: Path) -> bool:
    """Whether there is a ledger, or should be one."""
    return any((folder / name).exists() for name in (LEDGER_NAME, MARK_NAME))


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[sqlite3.Connection]:
    """Open the ledger, made where there has been none, inside one transaction that writes.

    While the block runs no other process gets in; at its end all of it is on disk, and on an
    exception nothing is.

    Args:
        folder: Made with mode 0700.

    Raises:
        PrivacyError: the ledger is missing though there was one (``ledger-missing``), an older
            copy of itself (``ledger-behind``), damaged (``ledger-damaged``), of a newer release
            (``ledger-newer``), held by another process for too long (``ledger-busy``), or can't be
            read or written (``ledger-write``).
    """
    path = folder / LEDGER_NAME
    with _named_faults(path):
        _make_file(folder)
        with contextlib.closing(
            sqlite3.connect(
                f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=BUSY_S, isolation_level=None
            )
        ) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
            connection.execute("PRAGMA synchronous=EXTRA")
            connection.execute("PRAGMA foreign_keys=ON")
            with _transaction(connection):
                identity = _check_or_make(connection, folder)
                before = _last_entry(connection)
                yield connection
                last = _last_entry(connection)
            if last > before or not (folder / MARK_NAME).exists():
                _mark(folder, identity, last)


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextlib.contextmanager
def _named_faults(path: Path) -> Iterator[None]:
    """Say what SQLite and the disk complain of in words, with what to do."""
    try:
        yield
    except sqlite3.OperationalError as err:
        code = getattr(err, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise PrivacyError(
                f"{path}: the privacy ledger is held by another process for more than "
                f"{BUSY_S:.0f} s; nothing was trained; end that process, or try again",
                code="ledger-busy",
            ) from err
        raise _unusable(path, str(err)) from err
    except sqlite3.DatabaseError as err:
        raise damaged(path, str(err)) from err
    except OSError as err:
        raise _unusable(path, err.strerror or type(err).__name__) from err


def _make_file(folder: Path) -> None:
    """Make the folder and an empty file, unless the ledger is there; tighten their modes."""
    path = folder / LEDGER_NAME
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    if not path.exists() and (folder / MARK_NAME).exists():
        raise PrivacyError(
            f"{path}: the privacy ledger is gone, though {folder / MARK_NAME} says that there is "
            "one; without it nobody knows what was spent; restore it from a backup. Nothing is "
            "trained under privacy until then",
            code="ledger-missing",
        )
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite's journal takes over its mode
    path.chmod(0o600)


def _check_or_make(connection: sqlite3.Connection, folder: Path) -> str:
    """Hold the file against what it has to be, or fill a new one; give the ledger's id."""
    path, mark = folder / LEDGER_NAME, folder / MARK_NAME
    application, version = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("application_id", "user_version")
    )
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if (application, version, tables) == (0, 0, 0) and not mark.exists():
        return _filled(connection)
    if application != APPLICATION_ID:
        raise damaged(path, "it is no ledger of nognet" if tables else "it is empty")
    if version != SCHEMA_VERSION:
        raise PrivacyError(
            f"{path}: the privacy ledger has version {version}, this release reads version "
            f"{SCHEMA_VERSION}; install the release that wrote it, or a later one",
            code="ledger-newer",
        )
    faults = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if faults != "ok":
        raise damaged(path, faults)
    _check_no_gap(connection, path)
    identity = connection.execute("SELECT id FROM identity").fetchall()
    if len(identity) != 1:
        raise damaged(path, f"it has {len(identity)} identities")
    marked, number = _marked(mark)
    if marked not in (None, identity[0][0]):
        raise damaged(path, f"it is another ledger than {mark} names")
    last = _last_entry(connection)
    if last < number:
        raise behind(path, f"it ends with entry {last}, {mark} says {number}")
    return str(identity[0][0])


def _filled(connection: sqlite3.Connection) -> str:
    """Write the schema into a new file, in the transaction that is open."""
    statement = ""
    for line in _SCHEMA.strip().splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""
    identity = secrets.token_hex(16)
    connection.execute("INSERT INTO identity VALUES (?)", (identity,))
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    return identity


def _check_no_gap(connection: sqlite3.Connection, path: Path) -> None:
    """Miss rows that were taken out: numbers are given once, and without a gap."""
    count, last = connection.execute("SELECT count(*), max(number) FROM entries").fetchone()
    given = connection.execute("SELECT seq FROM sqlite_sequence WHERE name='entries'").fetchone()
    if not (count == (last or 0) == (given[0] if given else 0)):
        raise damaged(path, f"{count} entries, but {given[0] if given else 0} were written")


def _last_entry(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(number), 0) FROM entries").fetchone()[0])


def _marked(mark: Path) -> tuple[str | None, int]:
    """Read the mark: the ledger's id, None without a mark, and the entries that there were."""
    if not mark.exists():
        return None, 0
    words = mark.read_text(encoding="ascii", errors="replace").split()
    if not words or len(words) > 2 or not all(word.isdigit() for word in words[1:]):
        raise damaged(mark.with_name(LEDGER_NAME), f"{mark} is no mark of a ledger")
    return words[0], int(words[1]) if words[1:] else 0


def _mark(folder: Path, identity: str, last: int) -> None:
    """Write the mark; what is in the ledger counts without it, and must not be charged again."""
    mark = folder / MARK_NAME
    try:
        write_text_atomic(mark, f"{identity}\n{last}\n", mode=0o600)
    except OSError as err:
        _log.error(
            "%s: can't be written (%s), so that an older copy of the ledger may be missed until "
            "the next charge; free some space, or mend the folder's rights",
            mark,
            err.strerror,
        )


def behind(path: Path, found: str) -> PrivacyError:
    """Say that the ledger is an older copy of itself: what was spent since is not in it."""
    return PrivacyError(
        f"{path}: the privacy ledger is an older copy ({found}); what was spent since is missing. "
        "Put the newest copy back. Nothing is trained under privacy until then; where there is no "
        "newer one, a person has to decide (docs/privacy.md, 'Keep it')",
        code="ledger-behind",
    )


def damaged(path: Path, found: str) -> PrivacyError:
    """Say that the ledger can't be trusted: the one thing that it never means is nothing spent."""
    return PrivacyError(
        f"{path}: the privacy ledger is damaged ({found}); restore it from a backup: without it "
        "nobody knows what was spent. Nothing is trained under privacy until then",
        code="ledger-damaged",
    )


def _unusable(path: Path, found: str) -> PrivacyError:
    return PrivacyError(
        f"{path}: the privacy ledger can't be read or written ({found}); nothing was trained; "
        "'state' in site.yaml has to name a folder that may be written, with room on its disk",
        code="ledger-write",
    )
