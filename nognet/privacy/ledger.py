"""The privacy ledger that a hospital owns: every noised step ever taken on its patients.

    charge (committed) -> steps -> confirm (planned becomes taken) -> the update may leave

A charge is on disk before the first step is taken, so a crash at any point charges too much, never
too little: a round that is trained again, with fresh noise, is a second charge. Two processes can't
read the same balance: reading, judging and writing are one transaction.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import nognet
from nognet.errors import PrivacyError
from nognet.privacy import ledger_file
from nognet.privacy.accounting import NoisedSteps
from nognet.privacy.earlier_record import take_over
from nognet.privacy.ledger_entries import (
    DataSet,
    Entry,
    Purpose,
    histories_of,
    history_of_run,
)
from nognet.privacy.policy import (
    BudgetForecast,
    PrivacySettings,
    admit_round,
    admit_to_target,
    check_delta,
)

_ENTRIES = """
SELECT number, data_set, study, study_digest, run_token, round, noise_multiplier, sample_rate,
    steps, delta, epsilon_before, epsilon_after, state, time_utc, software
FROM entries ORDER BY number
"""
_INSERT = """
INSERT INTO entries (data_set, study, study_digest, run_token, round, noise_multiplier, sample_rate,
    steps, delta, epsilon_before, epsilon_after, state, time_utc, software)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'planned', ?, ?)
"""


@dataclass(frozen=True)
class Charge:
    """A charge that is committed: the steps may be taken.

    Attributes:
        number: Of the entry.
        cost: Epsilon of the patient charged most, over all runs and studies, before and after. It
            stays at the site.
        of_run: Epsilon of all that the run was charged, these steps included, whomever for. It
            depends on no other run, and may leave.
    """

    number: int
    cost: BudgetForecast
    of_run: float


@dataclass(frozen=True)
class Ledger:
    """A site's ledger.

    Attributes:
        folder: ``privacy`` in the site's state folder.
    """

    folder: Path

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return self.folder / ledger_file.LEDGER_NAME

    def entries(self) -> tuple[Entry, ...]:
        """Read all entries; none where nothing was ever charged.

        Raises:
            PrivacyError: the ledger is missing, damaged, newer, busy or can't be read.
        """
        if not (ledger_file.exists(self.folder) or self.folder.exists()):
            return ()  # nothing is made by looking
        with ledger_file.opened(self.folder) as connection:
            take_over(self.folder, connection, now=_now())
            return _read(connection, self.path)

    def charge(
        self,
        settings: PrivacySettings,
        data: DataSet,
        purpose: Purpose,
        planned: NoisedSteps,
    ) -> Charge:
        """Admit steps and commit their charge, as one act among processes.

        Args:
            settings: Delta and limit.
            data: Whom the steps are taken on.
            purpose: What for.
            planned: What is charged.

        Raises:
            PrivacyError: delta is too large for so few patients, or the ledger is missing, damaged,
                newer, busy or can't be written. Nothing is charged.
            PrivacyBudgetError: some patient would pass `max_epsilon`, or the run its
                `target_epsilon`. Nothing is charged.
        """
        check_delta(settings.delta, len(data.patients))
        with ledger_file.opened(self.folder) as connection:
            take_over(self.folder, connection, now=_now())
            entries = _read(connection, self.path)
            cost = admit_round(settings, histories_of(entries, data), planned)
            run = history_of_run(entries, purpose.run_token)
            of_run = admit_to_target(settings, run, planned)
            row = (
                _data_set(connection, data, self.path),
                purpose.study,
                purpose.study_digest,
                purpose.run_token,
                purpose.round_number,
                planned.noise_multiplier,
                planned.sample_rate,
                planned.steps,
                cost.delta,
                cost.epsilon_before,
                cost.epsilon_after,
                _now(),
                nognet.__version__,
            )
            number = connection.execute(_INSERT, row).lastrowid
        return Charge(int(number or 0), cost, of_run)

    def confirm(self, charge: Charge, *, steps: int) -> None:
        """Note that the steps of a charge were taken, all of them and no more.

        Raises:
            PrivacyError: another number of steps was taken than was charged, or the ledger can't be
                written: the update may not leave.
        """
        with ledger_file.opened(self.folder) as connection:
            changed = connection.execute(
                "UPDATE entries SET state = 'taken' WHERE number = ? AND steps = ?",
                (charge.number, steps),
            ).rowcount
            if changed != 1:
                raise PrivacyError(
                    f"{self.path}: entry {charge.number} doesn't charge {steps} steps; the update "
                    "may not leave the site; this is a defect of nognet",
                    code="steps-not-charged",
                )


def _read(connection: sqlite3.Connection, path: Path) -> tuple[Entry, ...]:
    sets = {
        number: (fingerprint, key)
        for number, fingerprint, key in connection.execute("SELECT * FROM data_sets")
    }
    patients: dict[int, set[str]] = {number: set() for number in sets}
    for number, pseudonym in connection.execute("SELECT * FROM patients"):
        patients[number].add(pseudonym)
    data = {n: DataSet(f, frozenset(patients[n]), key) for n, (f, key) in sets.items()}
    try:
        return tuple(
            Entry(
                number,
                data[data_set],
                Purpose(study, digest, token, round_number),
                NoisedSteps(noise, rate, steps),
                *rest,
            )
            for (
                number,
                data_set,
                study,
                digest,
                token,
                round_number,
                noise,
                rate,
                steps,
                *rest,
            ) in connection.execute(_ENTRIES)
        )
    except (KeyError, TypeError, PrivacyError) as err:
        raise ledger_file.damaged(path, f"an entry can't be read: {err}") from err


def _data_set(connection: sqlite3.Connection, data: DataSet, path: Path) -> int:
    """Find the row of a data set, or write it with its patients."""
    found = connection.execute(
        "SELECT id FROM data_sets WHERE fingerprint = ? AND key = ?", (data.fingerprint, data.key)
    ).fetchone()
    if found is None:
        number = connection.execute(
            "INSERT INTO data_sets (fingerprint, key) VALUES (?, ?)", (data.fingerprint, data.key)
        ).lastrowid
        rows = [(number, pseudonym) for pseudonym in sorted(data.patients)]
        connection.executemany("INSERT INTO patients VALUES (?, ?)", rows)
        return int(number or 0)
    known = connection.execute("SELECT pseudonym FROM patients WHERE data_set = ?", found)
    if {pseudonym for (pseudonym,) in known} != data.patients:
        raise ledger_file.damaged(
            path, f"data set {data.fingerprint[:12]} has other patients than the prepared pairs"
        )
    return int(found[0])


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
