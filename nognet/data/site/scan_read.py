"""Read what lies below a folder for `nognet scan`: CT series and masks, each by its headers alone.

Every file is read once. Names of patients are never looked at; a birth date and a sex serve, as a
digest, to notice two people under one PatientID.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TypeVar

from pydicom.dataset import Dataset

from nognet.data.archive import is_archive
from nognet.data.ct.dicom_file import read_dataset
from nognet.data.ct.folder import list_files
from nognet.data.ct.header import DATE_TAGS, SliceHeader, headers_of
from nognet.data.ct.tags import text_of
from nognet.data.masks.opening import MASK_MODALITIES
from nognet.data.site.scan_masks import ScannedMask, read_mask_facts
from nognet.data.site.scan_series import assemble
from nognet.data.site.scan_values import Entry, FolderScan, LeftAside, Who, as_cell, parse_date
from nognet.errors import SiteDataError

OTHER_IMAGE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
UNLIKE = ("path", "frame", "sop_uid", "position_mm")
"""Parts of a header that no two slices share."""

Progress = Callable[[int, int, str], None]
"""Called with files read, files in all, and what was found; names nobody."""
ValueT = TypeVar("ValueT", bound=Hashable)


def read_for_scan(folder: Path, *, progress: Progress | None = None) -> FolderScan:
    """Read the headers of all DICOM files below a folder.

    Raises:
        SiteDataError: there is nothing at that path.
    """
    tell = progress or (lambda *_: None)
    files = list_files(folder)
    groups: dict[tuple[str, str], list[Entry]] = defaultdict(list)
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
            entry = Entry(_kept_once(memo, found.who), headers)
            groups[uid, "" if uid else str(file.parent)].append(entry)
    tell(len(files), len(files), f"{len(groups)} series, {len(masks)} masks")
    masks = _with_series(masks, groups.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        series, left_aside = assemble(list(groups.values()))
    return FolderScan(
        series=tuple(series),
        masks=tuple(masks),
        left_aside=(*left_aside, *_sum_up(unread)),
        files=len(files),
        dicom_files=len(files) - len(unread),
    )


def _read_one(file: Path, root: Path) -> Entry | ScannedMask | LeftAside:
    try:
        data, offset = read_dataset(file)
        who = _who(data, file, root)
        if text_of(data, "Modality").upper() in MASK_MODALITIES:
            return read_mask_facts(data, file, who.patient)
        return Entry(who, tuple(headers_of(data, offset, file)))
    except SiteDataError as err:
        return _unread(file, err)


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


def _kept_once(memo: dict[Hashable, Hashable], value: ValueT) -> ValueT:
    return memo.setdefault(value, value)  # type: ignore[return-value]  # equal, so of one type


def _compact(memo: dict[Hashable, Hashable], header: SliceHeader) -> SliceHeader:
    """Let headers share what is equal in them: an archive has hundreds of thousands."""
    names = (field.name for field in fields(header) if field.name not in UNLIKE)
    return replace(header, **{name: _kept_once(memo, getattr(header, name)) for name in names})


def _with_series(
    masks: Sequence[ScannedMask], groups: Iterable[Sequence[Entry]]
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
