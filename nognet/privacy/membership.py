"""Membership inference: how well training patients can be told from others by a model's losses.

Two attacks that need no shadow models. `loss` (Yeom et al. 2018): who has the smaller loss was in
the training. `calibrated` (Watson et al. 2022, difficulty calibration): who gained more against a
reference model was; it is the stronger one where some patients are harder than others.

The patient is the unit: a patient's score is the mean over the patient's pairs. The AUC is the
probability that a member scores higher than another patient; .5 is chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nognet.errors import PrivacyError

LEAST_PATIENTS = 5
"""Of each kind; with fewer an AUC says nothing (one of 2 against 2 is 1 by chance in a sixth)."""
FALSE_POSITIVE_RATES = (0.1, 0.01)
_RESAMPLES = 2000

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class AttackResult:
    """What one attack reaches.

    Attributes:
        auc: Area under the ROC curve.
        interval: 95 % interval of it: percentiles of a bootstrap by patient.
        members: Training patients.
        others: Patients that were not trained on.
        advantage: For some false positive rates, the true positive rate less that rate; None where
            there are too few other patients to see such a rate.
    """

    auc: float
    interval: tuple[float, float]
    members: int
    others: int
    advantage: Mapping[str, float | None]


def patient_scores(scores: Sequence[float], patient_ids: Sequence[str]) -> Scores:
    """Average the scores of each patient's pairs; patients in the order of their pseudonyms.

    Raises:
        ValueError: there are not as many patient ids as scores.
    """
    by_patient: dict[str, list[float]] = {}
    for score, patient in zip(scores, patient_ids, strict=True):
        by_patient.setdefault(patient, []).append(score)
    return np.array([np.mean(by_patient[patient]) for patient in sorted(by_patient)])


def attack(members: Scores, others: Scores, generator: np.random.Generator) -> AttackResult:
    """Measure how well scores, one a patient, tell members from others.

    Args:
        members: Scores of training patients; higher means more likely a member.
        others: Scores of patients that were not trained on.
        generator: Of the bootstrap.

    Raises:
        PrivacyError: fewer than five patients on a side, or a score is not finite.
    """
    if min(len(members), len(others)) < LEAST_PATIENTS:
        raise PrivacyError(
            f"{len(members)} training and {len(others)} other patients; membership inference "
            f"needs {LEAST_PATIENTS} of each to say anything",
            code="leakage-patients",
        )
    if not (np.isfinite(members).all() and np.isfinite(others).all()):
        raise PrivacyError("a patient's loss is not finite", code="leakage-score")
    wins = _wins(members, others)
    drawn_members, drawn_others = (
        generator.multinomial(n, np.full(n, 1 / n), _RESAMPLES) for n in wins.shape
    )
    resampled = ((drawn_members @ wins) * drawn_others).sum(1) / wins.size
    low, high = np.quantile(resampled, (0.025, 0.975))
    return AttackResult(
        auc=float(wins.mean()),
        interval=(float(low), float(high)),
        members=len(members),
        others=len(others),
        advantage={
            f"{rate:g}": advantage_at(members, others, rate) for rate in FALSE_POSITIVE_RATES
        },
    )


def advantage_at(members: Scores, others: Scores, rate: float) -> float | None:
    """Give the true less the false positive rate at the best threshold of at most that rate.

    None with fewer than 1 / rate other patients: a single false positive would pass it.
    """
    if len(others) * rate < 1:
        return None
    allowed = int(np.floor(len(others) * rate + 1e-9))
    threshold = np.sort(others)[::-1][allowed]  # the highest score that may not be accepted
    found = float(np.mean(members > threshold)) - float(np.mean(others > threshold))
    return max(0.0, found)


def _wins(members: Scores, others: Scores) -> Scores:
    """``(members, others)``: 1 where the member scores higher, 1/2 for a tie."""
    difference = members[:, None] - others[None, :]
    wins: Scores = (difference > 0) + 0.5 * (difference == 0)
    return wins
