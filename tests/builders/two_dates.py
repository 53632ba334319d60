"""Patients of two dates with nodules of chosen places and sizes, and their preparation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nognet.config import SiteConfig
from nognet.data.pairs.outcome import PairOutcome, PatientResult
from nognet.data.pairs.patient import prepare_patient
from nognet.data.pairs.task import PatientTask
from nognet.data.site.pseudonym import Pseudonyms
from nognet.data.site.studies import read_studies
from tests.builders.site_files import Offset, Scan, site_config, write_scan, write_table

DATES = ("2020-01-01", "2021-01-01")
LEFT: Offset = (-18.0, 0.0, 0.0)
RIGHT: Offset = (20.0, 5.0, 4.0)
FRONT: Offset = (0.0, -12.0, -15.0)
BACK: Offset = (0.0, 18.0, 14.0)
Nodules = Mapping[str, tuple[Offset, float]]


def task_of(site: SiteConfig, *, keep_cuts: bool = False) -> PatientTask:
    rows = read_studies(site.studies)
    return PatientTask(
        "p", rows, Pseudonyms(bytes(32)), site.roi, site.preparation, site.cache, site.state,
        keep_cuts,
    )  # fmt: skip


def scans(folder: Path, first: Nodules, second: Nodules) -> None:
    for date, nodules in zip(DATES, (first, second), strict=True):
        write_scan(folder / date, Scan(date, nodules))


def table(folder: Path, *names: tuple[str, str, str]) -> None:
    """Rows of one patient: nodule, file stem of its mask at the first and the second date."""
    rows = [
        ["p", name, date, f"{date}/ct", f"{date}/{stem}.nrrd" if stem else ""]
        for name, *stems in names
        for date, stem in zip(DATES, stems, strict=True)
    ]
    write_table(folder, rows)


def prepare(folder: Path, *, keep_cuts: bool = False, **limits: object) -> PatientResult:
    return prepare_patient(task_of(site_config(folder, **limits), keep_cuts=keep_cuts))


def codes(outcome: PairOutcome) -> list[str]:
    return [finding.code for finding in outcome.findings]


def only(outcomes: Sequence[PairOutcome], nodule_name: str) -> PairOutcome:
    [found] = [o for o in outcomes if o.nodule == nodule_name]
    return found
