"""One patient's work, as it is handed to a worker, and the version of what is done there."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from nognet.config import PreparationConfig, RoiConfig
from nognet.data.site.pseudonym import Pseudonyms
from nognet.data.site.studies import StudyRow

PREPARATION_VERSION = "6"
"""Raised whenever the same files would give another pair; pairs of another version are remade."""


@dataclass(frozen=True)
class PatientTask:
    """One patient's work.

    Attributes:
        patient_id: Pseudonym.
        rows: The patient's rows of `studies.csv`.
        pseudonyms: Makers of pseudonyms and keyed digests.
        roi: The ROI to cut.
        limits: Settings of the preparation.
        cache: Folder of the store.
        state: The site's state folder.
        keep_cuts: Hand back pairs that were refused after they had been cut, for people to look at.
    """

    patient_id: str
    rows: tuple[StudyRow, ...]
    pseudonyms: Pseudonyms
    roi: RoiConfig
    limits: PreparationConfig
    cache: Path
    state: Path
    keep_cuts: bool = False


def settings_digest(roi: RoiConfig, limits: PreparationConfig) -> str:
    """Digest the settings and the version that decide what the same files are made into."""
    settings = limits.model_copy(update={"workers": None})
    text = f"{PREPARATION_VERSION} {roi.digest()} {settings.digest()}"
    return hashlib.sha256(text.encode()).hexdigest()
