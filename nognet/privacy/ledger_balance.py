"""What the whole ledger comes to: what the patient charged most has behind him, delta by delta."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nognet.privacy.ledger_entries import Entry, histories_of_all, history_of_run


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


@dataclass(frozen=True)
class Spent:
    """What had been spent once a round's steps were taken.

    Attributes:
        of_run: Epsilon of all that the run was charged, whomever for: it tells of no other run.
        charged: Epsilon of the patient charged most, over all runs and studies.
    """

    of_run: float
    charged: float | None


def spent_with_round(
    entries: Sequence[Entry], run_token: str, round_number: int, delta: float
) -> tuple[Spent, ...]:
    """Say what had been spent each time that all of a round's steps were taken, in that order.

    Raises:
        PrivacyError: delta is not in (0, 1).
    """
    of_run = [entry for entry in entries if entry.purpose.run_token == run_token]
    return tuple(
        Spent(
            history_of_run(of_run[: place + 1], run_token).epsilon(delta),
            entry.epsilon_after,
        )
        for place, entry in enumerate(of_run)
        if entry.purpose.round_number == round_number and entry.state == "taken"
    )


def count_patients(entries: Sequence[Entry]) -> int:
    """Count who was ever charged; a patient under two keys counts twice."""
    return len({(e.data.key, patient) for e in entries for patient in e.data.patients})


def deltas_of(entries: Sequence[Entry]) -> tuple[float, ...]:
    """Give the deltas at which entries were charged, the largest first."""
    return tuple(sorted({e.delta for e in entries if e.delta is not None}, reverse=True))
