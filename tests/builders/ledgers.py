"""Ledgers of small hospitals: data sets by their patients, charges in one line."""

from __future__ import annotations

from pathlib import Path

from nognet.privacy.accounting import NoisedSteps
from nognet.privacy.ledger import Charge, Ledger
from nognet.privacy.ledger_entries import DataSet, Purpose
from nognet.privacy.policy import PrivacySettings

ROUND = NoisedSteps(2.0, 0.1, 5)
SETTINGS = PrivacySettings(clip_norm=1.0, delta=1e-3, noise_floor=0.5)
RUN = "ab" * 16


def data_set(*patients: str, fingerprint: str = "", key: str = "k") -> DataSet:
    """A data set of these patients; its fingerprint follows from them unless it is given."""
    return DataSet(fingerprint or "-".join(sorted(patients)), frozenset(patients), key)


def purpose(number: int = 1, *, study: str = "lungs", run: str = RUN) -> Purpose:
    """A round of a study's run."""
    return Purpose(study, f"digest of {study}", run, number)


def charged(
    folder: Path,
    data: DataSet,
    steps: NoisedSteps = ROUND,
    *,
    number: int = 1,
    max_epsilon: float | None = None,
) -> Charge:
    """Charge a round."""
    settings = PrivacySettings(1.0, 1e-3, noise_floor=0.5, max_epsilon=max_epsilon)
    return Ledger(folder).charge(settings, data, purpose(number), steps)
