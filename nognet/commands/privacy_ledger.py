"""The privacy ledger as a data-protection officer reads it, and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from nognet.privacy.ledger_balance import Balance, count_patients
from nognet.privacy.ledger_entries import Entry

_HEADINGS = (
    "first (UTC)",
    "study",
    "run",
    "rounds",
    "patients",
    "noise",
    "rate",
    "steps",
    "delta",
    "epsilon before",
    "after",
    "state",
)
_LEFT = frozenset({0, 1, 2, 3, 11})
_STATES = {
    "taken": "taken: all steps were taken.",
    "planned": (
        "planned: charged before its first step, as all are, and not heard of since: at work, or "
        "ended early. It stays charged."
    ),
    "earlier": (
        "earlier: of a release without a ledger, which didn't keep whom it trained on: charged to "
        "everybody."
    ),
}
NO_PRIVACY_TO_SPEAK_OF = 10.0


def ledger_document(
    path: Path, entries: Sequence[Entry], balances: Sequence[Balance], *, left_open: int = 0
) -> dict[str, Any]:
    """Give the whole ledger as JSON holds it; patients are counted, not named.

    Args:
        path: The ledger.
        entries: All of it.
        balances: What it comes to.
        left_open: Updates and models that left without noise, which no balance covers.
    """
    return {
        "ledger": str(path),
        "patients": count_patients(entries),
        "left_without_noise": left_open,
        "balance": [
            {
                "delta": balance.delta,
                "epsilon": balance.epsilon,
                "max_epsilon": balance.max_epsilon,
                "left": balance.left,
            }
            for balance in balances
        ],
        "entries": [_entry_document(entry) for entry in entries],
    }


def _entry_document(entry: Entry) -> dict[str, Any]:
    return {
        "number": entry.number,
        "time_utc": entry.time_utc,
        "study": entry.purpose.study,
        "study_digest": entry.purpose.study_digest,
        "run": entry.purpose.run_token,
        "round": entry.purpose.round_number,
        "data_set": entry.data.fingerprint,
        "pseudonym_key": entry.data.key,
        "patients": len(entry.data.patients) or None,
        "noise_multiplier": entry.steps.noise_multiplier,
        "sample_rate": entry.steps.sample_rate,
        "steps": entry.steps.steps,
        "delta": entry.delta,
        "epsilon_before": entry.epsilon_before,
        "epsilon_after": entry.epsilon_after,
        "state": entry.state,
        "software": entry.software,
    }


def ledger_lines(
    path: Path,
    entries: Sequence[Entry],
    balances: Sequence[Balance],
    *,
    each: bool = False,
    left_open: int = 0,
) -> Iterator[str]:
    """Write the ledger as lines of text.

    Args:
        path: The ledger.
        entries: All of it.
        balances: What it comes to.
        each: A line an entry; else charges of a run that are alike share one.
        left_open: Updates and models that left without noise, which no balance covers.
    """
    yield f"Privacy ledger {path}"
    if left_open:
        yield f"{left_open} {_updates(left_open)} left without noise: no epsilon holds for their"
        yield "patients, whatever stands below (`nognet audit show` lists them)."
    if not entries:
        yield "Nothing was ever charged: no noised update was trained at this site."
        return
    yield ""
    yield from _table(_rows(entries, each=each))
    yield ""
    for state in ("taken", "planned", "earlier"):
        if any(entry.state == state for entry in entries):
            yield f"  {_STATES[state]}"
    yield ""
    patients = count_patients(entries)
    yield (
        f"Balance of the patient charged most, of {patients or 'nobody knows how many'}. A patient "
        "is charged every entry"
    )
    yield "whose data set holds the patient, over all data sets, runs and studies:"
    what = "the noised updates alone" if left_open else "all that was sent"
    yield from (line for balance in balances for line in _balance_lines(balance, what))
    yield "Epsilons are composed, not added: two entries cost less than the sum of theirs."


def _updates(number: int) -> str:
    return "update" if number == 1 else "updates"


def _balance_lines(balance: Balance, what: str) -> Iterator[str]:
    limit = (
        "no limit (privacy.max_epsilon)"
        if balance.max_epsilon is None
        else f"limit {balance.max_epsilon:g}, {balance.left:.3f} left"
    )
    yield f"  epsilon {balance.epsilon:.3f} at delta {balance.delta:g}; {limit}"
    if balance.epsilon > NO_PRIVACY_TO_SPEAK_OF:
        yield "    an epsilon above 10 promises a patient hardly anything"
    else:
        factor, chance = math.exp(balance.epsilon), balance.delta
        yield f"    whatever somebody concludes from {what}: that a patient took part"
        yield f"    changes its odds at most {factor:.3g}-fold, but for a chance of {chance:g}"


def _rows(entries: Sequence[Entry], *, each: bool) -> Iterator[tuple[str, ...]]:
    for _, group in groupby(entries, key=lambda e: e.number if each else _kind(e)):
        alike = list(group)
        first, last = alike[0], alike[-1]
        steps = sum(entry.steps.steps for entry in alike)
        yield (
            first.time_utc[:16].replace("T", " "),
            first.purpose.study or "?",
            first.purpose.run_token[:8] or "-",
            _ranges([entry.purpose.round_number for entry in alike]),
            str(len(first.data.patients) or "all"),
            f"{first.steps.noise_multiplier:.4g}",
            f"{first.steps.sample_rate:.3g}",
            str(steps),
            "?" if first.delta is None else f"{first.delta:g}",
            _epsilon(first.epsilon_before),
            _epsilon(last.epsilon_after),
            first.state,
        )


def _kind(entry: Entry) -> tuple[object, ...]:
    steps = entry.steps
    return (
        entry.purpose.study_digest,
        entry.purpose.run_token,
        entry.data,
        (steps.noise_multiplier, steps.sample_rate),
        entry.delta,
        entry.state,
    )


def _epsilon(value: float | None) -> str:
    return "?" if value is None else f"{value:.3f}"


def _ranges(rounds: Sequence[int]) -> str:
    """Write rounds in the order of their charges.

    >>> _ranges([1, 2, 3, 5, 5])
    '1-3, 5, 5'
    """
    runs: list[list[int]] = []
    for number in rounds:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    words = [str(a) if a == b else f"{a}-{b}" for a, b in runs]
    return ", ".join(words) if len(words) <= 4 else f"{words[0]} ... {words[-1]}"


def _table(rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    table = [_HEADINGS, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(_HEADINGS))]
    for row in table:
        cells = (
            cell.ljust(width) if column in _LEFT else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()
