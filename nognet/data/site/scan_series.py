"""Make series of the images that `nognet scan` found: one copy, one reconstruction each."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nognet.data.ct.folder import group_headers
from nognet.data.ct.header import SliceHeader
from nognet.data.ct.series import SeriesReport, examine_series
from nognet.data.ct.slice_checks import not_an_image_of_ct
from nognet.data.site.scan_values import Entry, LeftAside, ScannedSeries, Who, parse_date


@dataclass(frozen=True)
class _Images:
    """The images of one reconstruction."""

    who: Who
    headers: tuple[SliceHeader, ...]
    key: str


def assemble(
    groups: Sequence[Sequence[Entry]],
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
