"""Read what lies below a folder for `nognet scan`: CT series and masks, each by its headers alone.

Every file is read once. Names of patients are never looked at; a birth date and a sex serve, as a
digest, to notice two people under one PatientID.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydicom.dataset import Dataset

from nognet.data.archive import is_archive
from nognet.data.ct.dicom_file import read_dataset
from nognet.data.ct.folder import group_headers, list_files
from nognet.data.ct.header import DATE_TAGS, SliceHeader, headers_of
from nognet.data.ct.series import SeriesReport, examine_series
from nognet.data.ct.slice_checks import not_an_image_of_ct
from nognet.data.ct.tags import text_of
from nognet.data.findings import Finding
from nognet.data.site.scan_masks import MASK_MODALITIES, ScannedMask, read_mask_facts
from nognet.errors import SiteDataError

OTHER_IMAGE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
UNLIKE = ("path", "frame", "sop_uid", "position_mm")
"""Parts of a header that no two slices share."""

Progress = Callable[[int, int, str], None]
"""Called with files read, files in all, and what was found; names nobody."""
ValueT = TypeVar("ValueT", bound=Hashable)


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
class _Entry:
    """One file's headers with whom they are of."""

    who: Who
    headers: tuple[SliceHeader, ...]


@dataclass(frozen=True)
class _Images:
    """The images of one reconstruction."""

    who: Who
    headers: tuple[SliceHeader, ...]
    key: str


def read_for_scan(folder: Path, *, progress: Progress | None = None) -> FolderScan:
    """Read the headers of all DICOM files below a folder.

    Raises:
        SiteDataError: there is nothing at that path.
    """
    tell = progress or (lambda *_: None)
    files = list_files(folder)
    groups: dict[tuple[str, str], list[_Entry]] = defaultdict(list)
    masks: list[ScannedMask] = []
    unread: list[LeftAside] = []
    memo: dict[Hashable, Hashable] = {}
    for done, file in enumerate(files):
        tell(done, len(files), f"{len(groups)} series, {len(masks)} masks")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they would print values of tags
            found = _read_one(file, folder)
        if isinstance(found, LeftAside):
            unread.append(found)
        elif isinstance(found, ScannedMask):
            masks.append(found)
        else:
            headers = tuple(_compact(memo, header) for header in found.headers)
            uid = headers[0].series_uid
            entry = _Entry(_kept_once(memo, found.who), headers)
            groups[uid, "" if uid else str(file.parent)].append(entry)
    tell(len(files), len(files), f"{len(groups)} series, {len(masks)} masks")
    masks = _with_series(masks, groups.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        series, left_aside = _assemble(list(groups.values()))
    return FolderScan(
        series=tuple(series),
        masks=tuple(masks),
        left_aside=(*left_aside, *_sum_up(unread)),
        files=len(files),
        dicom_files=len(files) - len(unread),
    )


def _read_one(file: Path, root: Path) -> _Entry | ScannedMask | LeftAside:
    try:
        data, offset = read_dataset(file)
        who = _who(data, file, root)
        if text_of(data, "Modality").upper() in MASK_MODALITIES:
            return read_mask_facts(data, file, who.patient)
        return _Entry(who, tuple(headers_of(data, offset, file)))
    except SiteDataError as err:
        return _unread(file, err)


def parse_date(text: str) -> dt.date | None:
    """Read a DICOM date, ``YYYYMMDD`` or the older ``YYYY.MM.DD``; None where it is none."""
    try:
        return dt.datetime.strptime(text.replace(".", "")[:8], "%Y%m%d").date()  # noqa: DTZ007
    except ValueError:
        return None


def patient_of(data: Dataset, file: Path, root: Path) -> str:
    """Give PatientID, or where it is empty the name of the folder right below the root."""
    return as_cell(text_of(data, "PatientID")) or _folder_name(file, root)


def _who(data: Dataset, file: Path, root: Path) -> Who:
    stated = as_cell(text_of(data, "PatientID"))
    person = [text_of(data, name) for name in ("PatientBirthDate", "PatientSex")]
    digest = hashlib.sha256("/".join(person).encode()).hexdigest()[:16] if any(person) else ""
    return Who(
        patient=patient_of(data, file, root),
        from_folder=not stated,
        person=digest,
        dates=tuple(parse_date(text_of(data, name)) for name in DATE_TAGS),
    )


def _folder_name(file: Path, root: Path) -> str:
    """Name a patient without PatientID by the folder right below the root, or by the root."""
    parts = file.relative_to(root).parts if file != root else ()
    return as_cell(parts[0]) if len(parts) > 1 else as_cell(root.resolve().name)


def as_cell(text: str) -> str:
    """Make a text fit for a cell of the table and for a terminal: one line, no control characters.

    >>> as_cell(" A" + chr(10) + "1 ")
    'A 1'
    """
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else "_" for c in line)


def _kept_once(memo: dict[Hashable, Hashable], value: ValueT) -> ValueT:
    return memo.setdefault(value, value)  # type: ignore[return-value]  # equal, so of one type


def _compact(memo: dict[Hashable, Hashable], header: SliceHeader) -> SliceHeader:
    """Let headers share what is equal in them: an archive has hundreds of thousands."""
    names = (field.name for field in fields(header) if field.name not in UNLIKE)
    return replace(header, **{name: _kept_once(memo, getattr(header, name)) for name in names})


def _with_series(
    masks: Sequence[ScannedMask], groups: Iterable[Sequence[_Entry]]
) -> list[ScannedMask]:
    """Find the series of masks that name only images of it."""
    wanted = {uid for mask in masks if not mask.series_uids for uid in mask.image_uids}
    if not wanted:
        return list(masks)
    series_of = {
        header.sop_uid: header.series_uid
        for entries in groups
        for entry in entries
        for header in entry.headers
        if header.sop_uid in wanted
    }
    return [
        mask
        if mask.series_uids
        else replace(
            mask,
            series_uids=tuple(
                dict.fromkeys(series_of[uid] for uid in mask.image_uids if series_of.get(uid))
            ),
        )
        for mask in masks
    ]


def _assemble(
    groups: Sequence[Sequence[_Entry]],
) -> tuple[list[ScannedSeries], list[LeftAside]]:
    """Make series of the images of each UID: one copy, one reconstruction each."""
    left_aside: list[LeftAside] = []
    images: list[_Images] = []
    for entries in groups:
        who = entries[0].who
        kept, found = _one_copy([h for entry in entries for h in entry.headers], who)
        left_aside += found
        patients = {entry.who.patient for entry in entries}
        if len(patients) > 1 and kept[0].series_uid:
            reason = f"the files of one series name {len(patients)} patients"
            left_aside.append(LeftAside(_place(kept), "mixed-patients", reason))
            continue
        for part in group_headers(kept).values():
            if not_an_image_of_ct(part[0]) is not None:
                left_aside.append(_no_image(part, who))
            else:
                images.append(_Images(who, part, _key(part, kept)))
    holders = _holders(images)
    return [_scanned(one, holders) for one in images], left_aside


def _key(part: Sequence[SliceHeader], all_of_uid: Sequence[SliceHeader]) -> str:
    """Find the key by which `choose_series` knows a reconstruction in its folder."""
    place = _place(part)
    beside = [h for h in all_of_uid if h.path.is_relative_to(place)]
    groups = group_headers(beside)
    return next((key for key, group in groups.items() if group[0] is part[0]), "")


def _no_image(headers: Sequence[SliceHeader], who: Who) -> LeftAside:
    found = Counter(f for f in map(not_an_image_of_ct, headers) if f is not None)
    finding, _ = found.most_common(1)[0]
    count = f"{len(headers)} images" if len(headers) > 1 else "1 image"
    return LeftAside(_place(headers), finding.code, f"{finding.message} ({count})", who.patient)


def _one_copy(headers: list[SliceHeader], who: Who) -> tuple[list[SliceHeader], list[LeftAside]]:
    """Of a series exported several times keep the copy in one folder that is most complete."""
    ids = [(h.sop_uid, h.frame) for h in headers if h.sop_uid]
    if len(set(ids)) == len(ids):
        return headers, []
    by_folder: dict[Path, list[SliceHeader]] = defaultdict(list)
    for header in headers:
        by_folder[header.path.parent].append(header)

    def rank(folder: Path) -> tuple[int, int, str]:
        around = sum(other != folder and other.is_relative_to(folder) for other in by_folder)
        return -len({h.sop_uid for h in by_folder[folder]}), around, str(folder)

    best = min(by_folder, key=rank)
    had = {(h.sop_uid, h.frame) for h in by_folder[best]}
    if not all((h.sop_uid, h.frame) in had for h in headers):
        return headers, []  # spread over folders with repeats: examined as it is, and refused
    aside = [
        LeftAside(
            folder,
            "duplicate-study",
            f"{len(copies)} images of a series that lies in {best} too; that copy is taken",
            who.patient,
        )
        for folder, copies in sorted(by_folder.items())
        if folder != best
    ]
    return by_folder[best], aside


def _place(headers: Sequence[SliceHeader]) -> Path:
    """Name the only file of a series, or the folder that all its files lie in."""
    files = {header.path for header in headers}
    if len(files) == 1:
        return next(iter(files))
    return Path(os.path.commonpath([str(file.parent) for file in files]))


def _holders(images: Sequence[_Images]) -> Mapping[Path, frozenset[int]]:
    """Tell for each folder which series have files directly in it, by their place in the list."""
    found: dict[Path, set[int]] = defaultdict(set)
    for number, one in enumerate(images):
        for header in one.headers:
            found[header.path.parent].add(number)
    return {folder: frozenset(series) for folder, series in found.items()}


def _scanned(one: _Images, holders: Mapping[Path, frozenset[int]]) -> ScannedSeries:
    who, headers, key = one.who, one.headers, one.key
    report = examine_series(headers)
    place = _place(headers)
    below = {s for folder, ids in holders.items() if folder.is_relative_to(place) for s in ids}
    first = report.headers[0]
    gap_mm = report.geometry.spacing_mm[2] if report.geometry else None
    days = [day for day in map(parse_date, {h.date_text for h in headers}) if day]
    return ScannedSeries(
        who=who,
        date=min(days, default=None),
        study_uid=first.study_uid,
        series_uid=report.series_uid,
        key=key,
        frame_of_reference=first.frame_of_reference,
        path=place,
        shares_folder=len(below) > 1,
        slices=len(report.headers),
        slice_mm=report.slice_mm or None,
        gap_mm=gap_mm,
        kernel=first.kernel,
        plane=_plane(report),
        usable=report.usable,
        findings=report.findings,
    )


def _plane(report: SeriesReport) -> str:
    orientation = report.headers[0].orientation
    if orientation is None:
        return ""
    normal = np.abs(np.cross(orientation[:3], orientation[3:]))
    return ("sagittal", "coronal", "axial")[int(np.argmax(normal))]


def _unread(file: Path, err: SiteDataError) -> LeftAside:
    """Say what a file that is no DICOM is instead."""
    if err.code != "not-dicom":
        return LeftAside(file, err.code, str(err).removeprefix(f"{file}: "))
    if is_archive(file):
        return LeftAside(file, "archive", "an archive is not looked into; unpack it")
    if file.name.lower().endswith(OTHER_IMAGE_SUFFIXES):
        reason = "images without DICOM headers name no patient and no date"
        return LeftAside(file, "no-headers", reason)
    return LeftAside(file, "not-dicom", "not a DICOM file")


def _sum_up(unread: Sequence[LeftAside]) -> list[LeftAside]:
    """Name archives and damaged files one by one, and other files kind by kind."""
    kinds: dict[tuple[str, str], list[LeftAside]] = defaultdict(list)
    for aside in unread:
        one_by_one = str(aside.path) if aside.code not in ("no-headers", "not-dicom") else ""
        kinds[aside.code, one_by_one].append(aside)
    return [
        replace(first, reason=f"{first.reason}; and {len(rest)} more") if rest else first
        for first, *rest in (found for _, found in sorted(kinds.items()))
    ]
