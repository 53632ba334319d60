"""Poisson sampling over patients: who takes part in a step, and with which pair.

Each patient takes part in a step with probability q, independently of all others and of all other
steps; that is what the accountant charges for. One pair of a drawn patient is chosen uniformly, or
all of them are given together, for their losses to be averaged before the gradient is clipped: so a
patient with twenty pairs weighs as much as one with one, and costs as much privacy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from nognet.config import PairsOfPatient
from nognet.errors import PrivacyError
from nognet.privacy.secret import SecretStream

PairT = TypeVar("PairT")


def sample_rate(batch_size: int, n_patients: int) -> float:
    """Give q, the probability that a patient takes part in a step; 1 when there are too few.

    Raises:
        PrivacyError: there is no patient, or a batch of none.

    >>> sample_rate(8, 80), sample_rate(8, 5)
    (0.1, 1.0)
    """
    if n_patients < 1 or batch_size < 1:
        raise PrivacyError(
            f"a batch of {batch_size} out of {n_patients} patients can't be sampled; both must "
            "be at least 1",
            code="no-patients",
        )
    return min(1.0, batch_size / n_patients)


@dataclass(frozen=True)
class PatientGroups(Generic[PairT]):
    """The pairs of each patient, in a fixed order.

    Raises:
        PrivacyError: a patient has no pair.
    """

    groups: tuple[tuple[PairT, ...], ...]

    def __post_init__(self) -> None:
        if not all(self.groups):
            raise PrivacyError("a patient without pairs can't be sampled", code="no-pairs")

    @property
    def n_patients(self) -> int:
        """How many records the privacy of this data set is about."""
        return len(self.groups)

    def draw(
        self, rate: float, stream: SecretStream, *, pairs: PairsOfPatient = "one"
    ) -> tuple[tuple[PairT, ...], ...]:
        """Draw one Poisson batch: the pairs of each patient who takes part; it may be empty.

        Args:
            rate: Probability that a patient takes part.
            stream: Where chance comes from; as much is taken from it whatever `pairs` is.
            pairs: One pair of each patient, or all of them.

        Returns:
            A tuple a patient: what it holds is one example.
        """
        takes_part = stream.uniform(self.n_patients) < rate
        position = stream.uniform(self.n_patients)
        return tuple(
            group if pairs == "all" else (group[int(where * len(group))],)
            for group, drawn, where in zip(self.groups, takes_part, position, strict=True)
            if drawn
        )


def group_by_patient(pairs: Sequence[PairT], patient_ids: Iterable[str]) -> PatientGroups[PairT]:
    """Put together the pairs of each patient, patients in the order of their pseudonyms.

    Args:
        pairs: The training pairs, or their indices.
        patient_ids: The patient of each pair; as many as pairs.

    Raises:
        ValueError: there are not as many patient ids as pairs.
    """
    by_patient: dict[str, list[PairT]] = {}
    for pair, patient_id in zip(pairs, patient_ids, strict=True):
        by_patient.setdefault(patient_id, []).append(pair)
    return PatientGroups(tuple(tuple(by_patient[patient]) for patient in sorted(by_patient)))
