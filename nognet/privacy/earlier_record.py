"""Take over ``history.json``, the record of releases without a ledger: once, and never lost.

It doesn't say on whom its steps were taken; so they are charged to everybody.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from pathlib import Path
from typing import Any

from nognet.errors import PrivacyError
from nognet.privacy.accounting import NoisedSteps, PrivacyHistory

RECORD_NAME = "history.json"
_PREFIX = "history-taken-over-"
_INSERT = """
INSERT INTO entries (data_set, study, study_digest, run_token, round, noise_multiplier, sample_rate,
    steps, state, time_utc, software)
VALUES (?, '', '', '', 0, ?, ?, ?, 'earlier', ?, '')
"""


def take_over(folder: Path, connection: sqlite3.Connection, *, now: str) -> None:
    """Write the records of earlier releases into the ledger, in the transaction that is open.

    A record gets a name of its own first, and the ledger keeps the names it has taken over. So a
    crash in between neither loses a record nor takes it twice, and an earlier release that is run
    once more starts another one.

    Raises:
        PrivacyError: a record is damaged.
        OSError: it can't be read or renamed.
    """
    path = folder / RECORD_NAME
    if path.exists():
        parse_record(path)
        path.rename(folder / f"{_PREFIX}{secrets.token_hex(8)}.json")
    known = {name for (name,) in connection.execute("SELECT name FROM earlier_records")}
    for record in sorted(folder.glob(f"{_PREFIX}*.json")):
        if record.name not in known:
            _insert(connection, record, now)


def _insert(connection: sqlite3.Connection, record: Path, now: str) -> None:
    connection.execute("INSERT OR IGNORE INTO data_sets (fingerprint, key) VALUES ('', '')")
    [data_set] = connection.execute("SELECT id FROM data_sets WHERE fingerprint = ''").fetchone()
    rows = [
        (data_set, e.noise_multiplier, e.sample_rate, e.steps, now)
        for e in parse_record(record).entries
    ]
    connection.executemany(_INSERT, rows)
    connection.execute("INSERT INTO earlier_records VALUES (?, ?)", (record.name, now))


def parse_record(path: Path) -> PrivacyHistory:
    """Read the rows of an earlier record.

    Raises:
        PrivacyError: it is no such record. It is never read as "nothing spent".
        OSError: it can't be read.
    """
    content = path.read_bytes()
    try:
        return PrivacyHistory(tuple(_steps(row) for row in _rows(content)))
    except (ValueError, TypeError, RecursionError, PrivacyError) as err:
        raise PrivacyError(
            f"{path}: the record of noised steps is damaged; restore it from a backup: without it "
            "nobody knows what was spent. Nothing is trained under privacy until then",
            code="bad-history",
        ) from err


def _rows(content: bytes) -> list[Any]:
    rows = json.loads(content)
    if not isinstance(rows, list):
        raise TypeError(f"found {type(rows).__name__}, expected a list")
    return rows


def _steps(row: Any) -> NoisedSteps:  # noqa: ANN401  any JSON value at all
    if not isinstance(row, dict):
        raise TypeError(f"found {type(row).__name__}, expected an object")
    return NoisedSteps(**row)
