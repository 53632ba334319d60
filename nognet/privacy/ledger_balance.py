"""What the whole ledger comes to: what the patient charged most has behind him, delta by delta."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nognet.privacy.ledger_entries import Entry, histories_of_all


@dataclass(frozen=True)
class Balance:
    """What was charged in all.

    Attributes:
        delta: At which it holds.
        epsilon: Of the patient charged most, all data sets, runs and studies added up.
        max_epsilon: The limit, if there is one.
    """

    delta: float
    epsilon: float
    max_epsilon: float | None

    @property
    def left(self) -> float | None:
        """Epsilon up to the limit, at least 0. Epsilons don't add up: it is not what fits in."""
        return None if self.max_epsilon is None else max(0.0, self.max_epsilon - self.epsilon)


def balance_of(
    entries: Sequence[Entry], delta: float, *, max_epsilon: float | None = None
) -> Balance:
    """Add up all entries for the patient charged most.

    Raises:
        PrivacyError: delta is not in (0, 1).
    """
    histories = histories_of_all(entries)
    epsilon = max((history.epsilon(delta) for history in histories), default=0.0)
    return Balance(delta, epsilon, max_epsilon)


def count_patients(entries: Sequence[Entry]) -> int:
    """Count who was ever charged; a patient under two keys counts twice."""
    return len({(e.data.key, patient) for e in entries for patient in e.data.patients})


def deltas_of(entries: Sequence[Entry]) -> tuple[float, ...]:
    """Give the deltas at which entries were charged, the largest first."""
    return tuple(sorted({e.delta for e in entries if e.delta is not None}, reverse=True))
