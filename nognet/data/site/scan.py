"""Propose `studies.csv` from the DICOM headers below a folder."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nognet.config import PreparationConfig
from nognet.data.site.scan_choice import (
    DEFAULT_SEGMENTS,
    DRAWN_ON,
    SAME_FRAME,
    Choice,
    PatientProposal,
    ProposedRow,
    describe,
    propose_patient,
)
from nognet.data.site.scan_masks import ScannedMask
from nognet.data.site.scan_read import Progress, read_for_scan
from nognet.data.site.scan_values import FolderScan, LeftAside, ScannedSeries
from nognet.data.site.studies import OPTIONAL_COLUMNS, REQUIRED_COLUMNS
from nognet.errors import SiteDataError
from nognet.files import write_text_atomic

COLUMNS = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)


@dataclass(frozen=True)
class Proposal:
    """What `nognet scan` proposes, with all that it left aside.

    Attributes:
        patients: Each patient found, with or without rows.
        left_aside: What belongs to no patient, or to no series of one.
        files: Files looked at.
        dicom_files: Those that are DICOM.
    """

    patients: tuple[PatientProposal, ...]
    left_aside: tuple[LeftAside, ...]
    files: int
    dicom_files: int

    @property
    def rows(self) -> tuple[ProposedRow, ...]:
        """All rows, by patient, nodule and date."""
        rows = [row for patient in self.patients for row in patient.rows]
        return tuple(sorted(rows, key=lambda r: (r.patient, r.nodule, r.date)))


def scan_folder(
    folder: Path,
    *,
    segments: str = DEFAULT_SEGMENTS,
    limits: PreparationConfig | None = None,
    progress: Progress | None = None,
) -> Proposal:
    """Read the headers below a folder and propose the site's table.

    Args:
        folder: Where the studies lie, in any order.
        segments: Regular expression for names of segments that are nodules, in any case of letters.
        limits: Of them the slice thickness is noted.
        progress: Told while files are read.

    Raises:
        SiteDataError: there is nothing at that path, or `segments` is no regular expression.
    """
    try:
        pattern = re.compile(segments, re.IGNORECASE)
    except re.error as err:
        raise SiteDataError(
            f"--segment '{segments}': no regular expression ({err})", code="segment-pattern"
        ) from err
    max_slice_mm = (limits or PreparationConfig()).max_slice_thickness_mm
    return propose(
        read_for_scan(folder.absolute(), progress=progress), pattern, max_slice_mm=max_slice_mm
    )


def propose(scan: FolderScan, pattern: re.Pattern[str], *, max_slice_mm: float) -> Proposal:
    """Choose from what was read; a pure function."""
    masks, aside = _without_copies(scan.masks)
    owners, unmatched = match_masks(masks, scan.series)
    by_patient: dict[str, list[int]] = defaultdict(list)
    for number, series in enumerate(scan.series):
        by_patient[series.who.patient].append(number)
    patients = []
    for patient, numbers in sorted(by_patient.items()):
        numbers.sort(key=lambda n: str(scan.series[n].path))
        found = propose_patient(
            patient,
            [scan.series[n] for n in numbers],
            {place: owners[n] for place, n in enumerate(numbers) if n in owners},
            pattern=pattern,
            max_slice_mm=max_slice_mm,
        )
        patients.append(_writable(found))
    left_aside = (*scan.left_aside, *aside, *unmatched)
    return Proposal(tuple(patients), left_aside, scan.files, scan.dicom_files)


def match_masks(
    masks: Sequence[ScannedMask], series: Sequence[ScannedSeries]
) -> tuple[dict[int, tuple[tuple[ScannedMask, ...], int]], list[LeftAside]]:
    """Give each series its masks: by the series they were drawn on, else by frame of reference.

    Returns:
        Masks by position in `series` with `DRAWN_ON` or `SAME_FRAME`, and masks without a series.
    """
    drawn: dict[int, list[ScannedMask]] = defaultdict(list)
    shared: dict[int, list[ScannedMask]] = defaultdict(list)
    aside: list[LeftAside] = []
    for mask in masks:
        on = [n for n, s in enumerate(series) if s.series_uid and s.series_uid in mask.series_uids]
        for number in on:
            drawn[number].append(mask)
        beside = [
            n
            for n, s in enumerate(series)
            if s.frame_of_reference and s.frame_of_reference == mask.frame_of_reference
        ]
        same_study = [n for n in beside if mask.study_uid and series[n].study_uid == mask.study_uid]
        of_dates = {series[n].date for n in beside}
        beside = beside if len(of_dates) == 1 else same_study
        for number in beside:
            if number not in on:
                shared[number].append(mask)
        if not on and not beside:
            aside.append(_unmatched(mask, several_dates=len(of_dates) > 1))
    owners = {n: (tuple(found), SAME_FRAME) for n, found in shared.items()}
    owners |= {n: (tuple(found), DRAWN_ON) for n, found in drawn.items()}
    return owners, aside


def _unmatched(mask: ScannedMask, *, several_dates: bool) -> LeftAside:
    if several_dates:
        reason = "its frame of reference is that of several dates, and it names no series"
    elif mask.series_uids:
        reason = "the series it was drawn on is not below this folder"
    else:
        reason = "it names no series, and no CT has its frame of reference"
    return LeftAside(mask.path, "mask-other-series", f"{mask.modality}: {reason}", mask.patient)


def _without_copies(
    masks: Sequence[ScannedMask],
) -> tuple[list[ScannedMask], list[LeftAside]]:
    """Keep of masks with one SOP instance UID the first by path."""
    kept: dict[str, ScannedMask] = {}
    aside = []
    for mask in sorted(masks, key=lambda m: str(m.path)):
        first = kept.setdefault(mask.sop_uid or str(mask.path), mask)
        if first is not mask:
            reason = f"the same mask as {first.path}; that copy is taken"
            aside.append(LeftAside(mask.path, "duplicate-study", reason, mask.patient))
    return list(kept.values()), aside


def _writable(found: PatientProposal) -> PatientProposal:
    """Leave out patients whose files have names that can't stand in the table."""
    for row in found.rows:
        for path in (row.image, row.mask):
            text = str(path)
            if not text.isprintable() or any(part != part.strip() for part in path.parts):
                reason = "the path holds characters that can't stand in a table; rename it"
                aside = LeftAside(path, "path", reason, found.patient)
                return replace(found, rows=(), left_aside=(*found.left_aside, aside))
    return found


def table_text(rows: Iterable[ProposedRow], base: Path) -> str:
    """Write rows as CSV; paths are relative to `base`, the folder of the table."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_cells(row, base) for row in rows)
    return text.getvalue()


def write_table(proposal: Proposal, path: Path, *, overwrite: bool = False) -> None:
    """Write the table, readable by its owner and group only: it names patients.

    Raises:
        SiteDataError: there is a file already, or the folder can't be written.
    """
    if path.exists() and not overwrite:
        raise SiteDataError(
            f"{path}: exists already and is left as it is; give another --out, or --force",
            code="exists",
        )
    try:
        text = table_text(proposal.rows, path.absolute().parent)
        write_text_atomic(path, text, mode=0o640)
    except OSError as err:
        raise SiteDataError(
            f"{path}: can't be written ({err.strerror})", code="unwritable"
        ) from err


def as_json(proposal: Proposal, base: Path) -> dict[str, Any]:
    """Give the proposal as JSON values, for the site's own eyes."""
    patients = [
        {
            "patient": patient.patient,
            "rows": sum(row.patient == patient.patient for row in patient.rows),
            "choices": [_choice_json(choice, base) for choice in patient.choices],
            "left_aside": [_aside_json(aside, base) for aside in patient.left_aside],
        }
        for patient in proposal.patients
    ]
    return {
        "files": proposal.files,
        "dicom_files": proposal.dicom_files,
        "rows": [dict(zip(COLUMNS, _cells(row, base), strict=True)) for row in proposal.rows],
        "patients": patients,
        "left_aside": [_aside_json(aside, base) for aside in proposal.left_aside],
    }


def relative_to(path: Path, base: Path) -> str:
    """Write a path relative to a folder, with forward slashes."""
    return Path(os.path.relpath(path, base)).as_posix()


def _cells(row: ProposedRow, base: Path) -> tuple[str, ...]:
    values: Mapping[str, str] = {
        "patient": row.patient,
        "nodule": row.nodule,
        "date": row.date.isoformat(),
        "image": relative_to(row.image, base),
        "mask": relative_to(row.mask, base),
        "segment": row.segment,
        "series": row.series,
    }
    return tuple(values[name] for name in COLUMNS)


def _choice_json(choice: Choice, base: Path) -> dict[str, Any]:
    return {
        "date": choice.date.isoformat(),
        "image": relative_to(choice.series.path, base),
        "series_uid": choice.series.series_uid,
        "series": describe(choice.series),
        "why": choice.why,
        "instead_of": [
            {"image": relative_to(s.path, base), "series_uid": s.series_uid,
             "series": describe(s), "why": why}
            for s, why in choice.instead_of
        ],
        "masks": [relative_to(mask.path, base) for mask in choice.masks],
        "notes": list(choice.notes),
    }  # fmt: skip


def _aside_json(aside: LeftAside, base: Path) -> dict[str, str]:
    return {
        "path": relative_to(aside.path, base),
        "code": aside.code,
        "reason": aside.reason,
        "patient": aside.patient,
        "date": aside.date,
    }
