"""Find one person under two names: patients of the table that share a CT, or a PatientID."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from nognet.data.findings import Finding
from nognet.data.pairs.outcome import PairOutcome, PatientResult

LEAST_FOR_A_DUMMY = 3
"""So many patients must share a PatientID before it can count as de-identification's dummy."""
ROWS_SHOWN = 8


def judge_people(
    outcomes: Sequence[PairOutcome], results: Sequence[PatientResult]
) -> list[PairOutcome]:
    """Refuse patients that share a CT, for they could fall into different splits; warn of others.

    A PatientID that more than half of the patients have is a dummy of de-identification, and says
    nothing.
    """
    cts = _lines_by_owner(
        (time.identity, result.patient_id, time.lines)
        for result in results
        for time in result.times
    )
    ids = _lines_by_owner(
        (time.facts.header_patient, result.patient_id, time.lines)
        for result in results
        for time in result.times
    )
    leaking = _findings(cts, _leak)
    most = max(len(results) / 2, LEAST_FOR_A_DUMMY - 1)
    people = {name: owners for name, owners in ids.items() if name and len(owners) <= most}
    shared = _findings(people, _shared)
    return [
        outcome.also(
            *leaking.get(outcome.patient_id, ()),
            *shared.get(outcome.patient_id, ()),
        )
        for outcome in outcomes
    ]


def _lines_by_owner(
    seen: Iterable[tuple[str, str, Sequence[int]]],
) -> dict[str, dict[str, list[int]]]:
    """Group lines of the table by a digest and by the patient they belong to."""
    found: dict[str, dict[str, list[int]]] = {}
    for digest, patient, lines in seen:
        found.setdefault(digest, {}).setdefault(patient, []).extend(lines)
    return found


def _findings(
    found: Mapping[str, Mapping[str, Sequence[int]]], tell: Callable[[Sequence[int]], Finding]
) -> dict[str, list[Finding]]:
    """Give each patient that shares a digest with another one a finding."""
    told: dict[str, list[Finding]] = {}
    for owners in found.values():
        if len(owners) > 1:
            lines = sorted(line for of_one in owners.values() for line in of_one)
            for patient in owners:
                told.setdefault(patient, []).append(tell(lines))
    return told


def _leak(lines: Sequence[int]) -> Finding:
    message = f"rows {_listed(lines)} have the same CT under two patients"
    return Finding("patient-leak", "refused", message)


def _shared(lines: Sequence[int]) -> Finding:
    message = f"the headers give rows {_listed(lines)} one PatientID, the table several patients"
    return Finding("patient-shared", "warning", message)


def _listed(lines: Sequence[int]) -> str:
    shown = ", ".join(map(str, lines[:ROWS_SHOWN]))
    return f"{shown} ..." if len(lines) > ROWS_SHOWN else shown
