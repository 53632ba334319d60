"""Read the headers of everything below a folder, and group them into reconstructions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nognet.data.ct.header import SliceHeader, read_headers
from nognet.data.ct.slice_checks import not_an_image_of_ct
from nognet.data.findings import Finding, Severity
from nognet.errors import SiteDataError

FEWEST_OF_A_RECONSTRUCTION = 3
SHARED_STRETCH = 0.5
"""Reconstructions of one scan cover one stretch of the patient: at least this part of it."""
_RECONSTRUCTION_KEYS: tuple[Callable[[SliceHeader], Hashable], ...] = (
    lambda header: header.study_uid,
    lambda header: header.kernel,
    lambda header: (header.matrix, header.pixel_spacing_mm),
    lambda header: header.acquisition,
)
DAMAGED = ("truncated", "unreadable", "too-large")
"""Codes of files that may have held a slice, so that a series beside them can't be trusted."""


@dataclass(frozen=True)
class FolderContents:
    """What lies below a folder.

    Attributes:
        series: Headers by series. The key is SeriesInstanceUID; where one UID holds several series
            (two kernels, localizers, other studies, several folders without a UID) the others
            follow as ``UID#2``, ``UID#3`` ..., the largest first.
        left_aside: Files that are no DICOM image, with the reason; refused where one may have held
            a slice.
    """

    series: Mapping[str, tuple[SliceHeader, ...]]
    left_aside: tuple[tuple[Path, Finding], ...]


def list_files(path: Path) -> list[Path]:
    """List the file itself, or all files below a folder, sorted; hidden ones are left out.

    Raises:
        SiteDataError: there is nothing at that path.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise SiteDataError(f"{path}: no such file or folder", code="missing-file")
    below = (p for p in path.rglob("*") if p.is_file())
    return sorted(p for p in below if not p.name.startswith(".") and p.name != "DICOMDIR")


def read_folder(path: Path) -> FolderContents:
    """Read the headers of all files at or below a path and group them by series.

    Raises:
        SiteDataError: there is nothing at that path.
    """
    headers: list[SliceHeader] = []
    left_aside: list[tuple[Path, Finding]] = []
    for file in list_files(path):
        try:
            headers += read_headers(file)
        except SiteDataError as err:
            severity: Severity = "refused" if err.code in DAMAGED else "skipped"
            left_aside.append((file, Finding(err.code, severity, str(err))))
    return FolderContents(group_headers(headers), tuple(left_aside))


def group_headers(headers: Sequence[SliceHeader]) -> dict[str, tuple[SliceHeader, ...]]:
    """Group headers by series; keys as in `FolderContents`."""
    by_uid: dict[str, list[tuple[SliceHeader, ...]]] = defaultdict(list)
    for found in _grouped(headers, _identity):
        by_uid[found[0].series_uid] += _reconstructions(found)
    return {
        f"{uid}#{number}" if number > 1 else uid: group
        for uid, groups in by_uid.items()
        for number, group in enumerate(sorted(groups, key=_smallest_last), start=1)
    }


def _identity(header: SliceHeader) -> Hashable:
    """What images of one series share; without a UID they must at least lie in one folder."""
    folder = "" if header.series_uid else str(header.path.parent)
    return header.series_uid, header.patient_digest, folder


def _smallest_last(group: tuple[SliceHeader, ...]) -> tuple[bool, int, str]:
    return not_an_image_of_ct(group[0]) is not None, -len(group), str(group[0].path)


def _reconstructions(headers: tuple[SliceHeader, ...]) -> Iterator[tuple[SliceHeader, ...]]:
    """Part one UID's images: what is no CT image goes apart, then studies, kernels ..."""
    for alike in _grouped(headers, _kind):
        if not_an_image_of_ct(alike[0]) is not None:
            yield alike
            continue
        parts = [alike]
        for key in _RECONSTRUCTION_KEYS:
            parts = [smaller for part in parts for smaller in _parted(part, key)]
        yield from parts


def _kind(header: SliceHeader) -> str:
    found = not_an_image_of_ct(header)
    return "" if found is None else found.message


def _parted(
    headers: tuple[SliceHeader, ...], key: Callable[[SliceHeader], Hashable]
) -> list[tuple[SliceHeader, ...]]:
    """Part images by a key where each part is a reconstruction of one and the same stretch.

    Parts that lie side by side, or hold an image or two, are a fault within one series instead.
    """
    parts = _grouped(headers, key)
    if len(parts) == 1 or min(map(len, parts)) < FEWEST_OF_A_RECONSTRUCTION:
        return [headers]
    stretches = [_stretch(part) for part in parts]
    if any(stretch is None for stretch in stretches):
        return [headers]
    lows, highs = np.array(stretches, dtype=np.float64).T
    shared = float(highs.min() - lows.max())
    return parts if shared >= SHARED_STRETCH * float((highs - lows).min()) else [headers]


def _stretch(headers: Sequence[SliceHeader]) -> tuple[float, float] | None:
    """Lowest and highest position along the first image's normal."""
    if any(h.position_mm is None or h.orientation is None for h in headers):
        return None
    first = headers[0].orientation or ()
    along = np.array([h.position_mm for h in headers]) @ np.cross(first[:3], first[3:])
    return float(along.min()), float(along.max())


def _grouped(
    headers: Sequence[SliceHeader], key: Callable[[SliceHeader], Hashable]
) -> list[tuple[SliceHeader, ...]]:
    groups: dict[Hashable, list[SliceHeader]] = defaultdict(list)
    for header in headers:
        groups[key(header)].append(header)
    return [tuple(group) for group in groups.values()]
