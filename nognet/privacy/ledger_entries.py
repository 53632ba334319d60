"""What the ledger holds: data sets with their patients, charges, and the rows that became of them.

Values only, and the sums over them: who is charged what. A patient is charged every entry whose
data set holds it, whichever data set, run or study that was; the patient charged most decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from nognet.privacy.accounting import NoisedSteps, PrivacyHistory

State = Literal["planned", "taken", "earlier"]
"""`planned`: committed, and its end not heard of (it is charged in full); `taken`: all steps were
taken; `earlier`: from the record of a release without a ledger."""


@dataclass(frozen=True)
class DataSet:
    """The patients that noised steps were, or will be, taken on.

    Attributes:
        fingerprint: Digest of the prepared pairs and splits.
        patients: Pseudonyms of the patients trained on; empty where nobody knows who they were.
        key: Fingerprint of the key that the pseudonyms were made with. Pseudonyms of two keys
            can't be told to be one person, so what was spent under another key is charged to all.
    """

    fingerprint: str
    patients: frozenset[str] = field(repr=False)
    key: str = ""


@dataclass(frozen=True)
class Purpose:
    """What noised steps are taken for.

    Attributes:
        study: Its name.
        study_digest: Digest of the whole study as the site received it.
        run_token: Random name of the run.
        round_number: From 1.
    """

    study: str
    study_digest: str
    run_token: str
    round_number: int


@dataclass(frozen=True)
class Entry:
    """One row of the ledger.

    Attributes:
        number: From 1, without a gap.
        data: On whom.
        purpose: What for.
        steps: What is charged.
        delta: At which both epsilons hold; None of an `earlier` one, as they are.
        epsilon_before: Of the patient of the data set that was charged most, before.
        epsilon_after: The same, with this entry.
        state: See `State`.
        time_utc: When it was committed, ISO 8601.
        software: Version of nognet.
    """

    number: int
    data: DataSet
    purpose: Purpose
    steps: NoisedSteps
    delta: float | None
    epsilon_before: float | None
    epsilon_after: float | None
    state: State
    time_utc: str
    software: str


def histories_of(entries: Sequence[Entry], data: DataSet) -> tuple[PrivacyHistory, ...]:
    """Give what the patients of a data set have behind them, each distinct history once.

    Histories that are part of another one are left out: they cost no more.
    """
    return _longest(
        PrivacyHistory(tuple(e.steps for e in entries if is_charged(e, patient, data.key)))
        for patient in sorted(data.patients)
    )


def histories_of_all(entries: Sequence[Entry]) -> tuple[PrivacyHistory, ...]:
    """Give what everybody who was ever trained on has behind them, each distinct history once."""
    everybody = {(e.data.key, p) for e in entries for p in e.data.patients}
    unknown = {(e.data.key, "") for e in entries if not e.data.patients}
    return _longest(
        PrivacyHistory(tuple(e.steps for e in entries if is_charged(e, patient, key)))
        for key, patient in sorted(everybody | unknown)
    )


def history_of_run(entries: Iterable[Entry], run_token: str) -> PrivacyHistory:
    """Give all that was charged to a run, whomever for.

    It bounds what any patient has behind him of this run, and depends on no other one.
    """
    return PrivacyHistory(tuple(e.steps for e in entries if e.purpose.run_token == run_token))


def is_charged(entry: Entry, patient: str, key: str) -> bool:
    """Whether an entry counts for a patient: it holds the patient, or may do so."""
    data = entry.data
    return not data.patients or data.key != key or patient in data.patients


def charged_rounds(entries: Iterable[Entry], run_token: str) -> frozenset[int]:
    """Give the rounds of a run that were charged at least once."""
    return frozenset(e.purpose.round_number for e in entries if e.purpose.run_token == run_token)


def _longest(histories: Iterable[PrivacyHistory]) -> tuple[PrivacyHistory, ...]:
    """Keep the distinct histories that no other one contains."""
    distinct = {history.grouped: history for history in histories}
    steps = {key: {(g.noise_multiplier, g.sample_rate): g.steps for g in key} for key in distinct}
    return tuple(
        PrivacyHistory(key)
        for key in sorted(distinct)
        if not any(other != key and _contains(steps[other], steps[key]) for other in distinct)
    )


def _contains(
    longer: Mapping[tuple[float, float], int], shorter: Mapping[tuple[float, float], int]
) -> bool:
    return all(longer.get(kind, 0) >= steps for kind, steps in shorter.items())
