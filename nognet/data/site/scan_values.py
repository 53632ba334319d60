"""What `nognet scan` reads and leaves aside, as values."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from nognet.data.ct.header import SliceHeader
from nognet.data.findings import Finding
from nognet.data.site.scan_masks import ScannedMask


@dataclass(frozen=True)
class Who:
    """Whom a file says it is of.

    Attributes:
        patient: PatientID, or the name of a folder where it is empty.
        from_folder: The PatientID is empty.
        person: Digest of birth date and sex; empty where both are.
        dates: Days by `DATE_TAGS`, each None where it is absent or no date.
    """

    patient: str
    from_folder: bool
    person: str
    dates: tuple[dt.date | None, ...]


@dataclass(frozen=True)
class ScannedSeries:
    """One CT series as its headers show it.

    Attributes:
        who: Patient, person and dates.
        date: The earliest day of its slices; None where there is none.
        study_uid: StudyInstanceUID.
        series_uid: SeriesInstanceUID.
        key: What the column 'series' is to hold where several lie in the folder: the UID, with
            ``#2`` and so on where one UID holds several reconstructions.
        frame_of_reference: FrameOfReferenceUID.
        path: What the column 'image' is to name: the folder of the series, or its only file.
        shares_folder: Other CT series lie below `path`, so the column 'series' is needed.
        slices: Images.
        slice_mm: SliceThickness, or the gap where that is larger; None where neither is known.
        gap_mm: Distance of neighbouring slices; None where they make no volume.
        kernel: ConvolutionKernel.
        plane: ``axial``, ``coronal`` or ``sagittal``, the nearest; empty where not known.
        usable: It makes a volume that `nognet prepare` reads.
        findings: What is wrong or odd.
    """

    who: Who
    date: dt.date | None
    study_uid: str
    series_uid: str
    key: str
    frame_of_reference: str
    path: Path
    shares_folder: bool
    slices: int
    slice_mm: float | None
    gap_mm: float | None
    kernel: str
    plane: str
    usable: bool
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class LeftAside:
    """Something that is not proposed, and why.

    Attributes:
        path: File or folder.
        code: Short stable code.
        reason: A sentence.
        patient: As in the table; empty where it is about no patient.
        date: ISO date; empty where it is about none.
    """

    path: Path
    code: str
    reason: str
    patient: str = ""
    date: str = ""


@dataclass(frozen=True)
class FolderScan:
    """What lies below a folder.

    Attributes:
        series: CT series, usable or not.
        masks: DICOM SEG and RTSTRUCT.
        left_aside: Everything else, files of a kind together.
        files: Files looked at.
        dicom_files: Those that are DICOM.
    """

    series: tuple[ScannedSeries, ...]
    masks: tuple[ScannedMask, ...]
    left_aside: tuple[LeftAside, ...]
    files: int
    dicom_files: int


@dataclass(frozen=True)
class Entry:
    """One file's headers with whom they are of."""

    who: Who
    headers: tuple[SliceHeader, ...]


def parse_date(text: str) -> dt.date | None:
    """Read a DICOM date, ``YYYYMMDD`` or the older ``YYYY.MM.DD``; None where it is none."""
    try:
        return dt.datetime.strptime(text.replace(".", "")[:8], "%Y%m%d").date()  # noqa: DTZ007
    except ValueError:
        return None


def as_cell(text: str) -> str:
    """Make a text fit for a cell of the table and for a terminal: one line, no control characters.

    >>> as_cell(" A" + chr(10) + "1 ")
    'A 1'
    """
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else "_" for c in line)
