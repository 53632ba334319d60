"""Masks as RTSTRUCT contours, by a rasteriser of our own.

A voxel belongs to the structure when its centre lies inside an odd number of the slice's contours
(even-odd rule: a contour within a contour is a hole). Points on an edge follow the half-open rule
of scan conversion, so that two structures sharing an edge share no voxel and leave none out.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from nognet.data.ct.header import read_dataset
from nognet.errors import GeometryError, SiteDataError
from nognet.types import Geometry

SLICE_TOLERANCE_FRACTION = 0.2
"""A contour lies on a slice when it is off by less than this part of the gap."""
COORDINATE_DECIMALS = 6
LARGEST_UNDRAWN_RUN = 3
"""Up to so many slices without a contour between drawn ones are taken for skipped, not for air."""


@dataclass(frozen=True)
class Structure:
    """One structure of an RTSTRUCT.

    Attributes:
        name: ROIName.
        contours_mm: Closed planar contours, each ``(N, 3)`` in LPS millimetres.
        series_uids: Series it references; empty where it names none.
        frame_of_reference: ReferencedFrameOfReferenceUID.
    """

    name: str
    contours_mm: tuple[NDArray[np.float64], ...]
    series_uids: tuple[str, ...]
    frame_of_reference: str


def read_structure(path: Path, segment: str | None) -> Structure:
    """Read the contours of one structure.

    Args:
        path: The RTSTRUCT file.
        segment: Name or number of the structure; may be left out where there is only one.

    Raises:
        SiteDataError: the structure is not there, is named twice, or has no closed contour.
    """
    data, _ = read_dataset(path)
    names = {
        int(item.ROINumber): str(item.get("ROIName", ""))
        for item in data.get("StructureSetROISequence") or []
        if "ROINumber" in item
    }
    number = _choose(names, segment, path)
    contours = tuple(_contours(data, number, path))
    if not contours:
        raise SiteDataError(
            f"{path}: structure '{names[number]}' has no closed planar contour", code="mask-empty"
        )
    series, frame = _references(data)
    return Structure(names[number], contours, series, frame)


def rasterise(contours_mm: Sequence[NDArray[np.float64]], grid: Geometry) -> NDArray[np.uint8]:
    """Fill contours on a grid: ``(D, H, W)`` uint8 in {0, 1}.

    Raises:
        GeometryError: contours have no slice, leave slices out, are not planar, or leave the image.
    """
    placed = [grid.world_to_index(contour) for contour in contours_mm]
    slices = _slices_of(placed, grid)
    toggles = np.zeros((*grid.size[::-1][:2], grid.size[0] + 1), dtype=np.uint8)
    for contour, z in zip(placed, slices, strict=True):
        # rounded, so that a vertex drawn on a voxel centre is on it in spite of the arithmetic
        _toggle(toggles[z], np.round(contour[:, :2], COORDINATE_DECIMALS))
    inside = np.bitwise_xor.accumulate(toggles, axis=2)[:, :, :-1]
    return np.ascontiguousarray(inside)


def _toggle(toggles: NDArray[np.uint8], polygon_xy: NDArray[np.float64]) -> None:
    """Flip, on each row ``y`` of ``(H, W + 1)``, the first pixel centre right of each crossing."""
    rows, columns = toggles.shape[0], toggles.shape[1] - 1
    start, end = polygon_xy, np.roll(polygon_xy, -1, axis=0)
    low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    first, last = np.ceil(low).astype(np.int64), np.ceil(high).astype(np.int64)  # [low, high)
    first, last = np.clip(first, 0, rows), np.clip(last, 0, rows)
    counts = last - first
    edge = np.repeat(np.arange(len(counts)), counts)
    y = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    x0, y0, x1, y1 = start[edge, 0], start[edge, 1], end[edge, 0], end[edge, 1]
    crossing = np.round(x0 + (y - y0) * (x1 - x0) / (y1 - y0), COORDINATE_DECIMALS)
    x = np.clip(np.ceil(crossing), 0, columns).astype(np.int64)
    np.bitwise_xor.at(toggles, (y, x), np.uint8(1))


def _slices_of(placed: Sequence[NDArray[np.float64]], grid: Geometry) -> list[int]:
    """Find the slice of each contour, or refuse."""
    size = np.array(grid.size)
    levels = np.array([np.median(contour[:, 2]) for contour in placed])
    bent = [float(np.ptp(contour[:, 2])) * grid.spacing_mm[2] for contour in placed]
    if max(bent) > SLICE_TOLERANCE_FRACTION * grid.spacing_mm[2]:
        raise GeometryError(
            f"contours are not parallel to the slices (points of one are up to {max(bent):.2f} mm "
            "apart along the normal); export the structure as a mask",
            code="mask-geometry",
        )
    slices = np.round(levels).astype(int)
    on_slice = np.abs(levels - slices) <= SLICE_TOLERANCE_FRACTION
    found = on_slice & (slices >= 0) & (slices < size[2])
    if not found.all():
        raise GeometryError(
            f"{int((~found).sum())} of {len(found)} contours have no slice: volume incomplete; "
            "give the whole series that the contours were drawn on",
            code="mask-incomplete",
        )
    points = np.concatenate([contour[:, :2] for contour in placed])
    if ((points < -1.0) | (points > size[:2])).any():
        raise GeometryError(
            "contours reach beyond the image; they were drawn on another series",
            code="mask-geometry",
        )
    _check_undrawn(slices)
    return [int(z) for z in slices]


def _check_undrawn(slices: NDArray[np.int_]) -> None:
    """Refuse structures drawn on every other slice or so: filled as they are they'd be too small.

    Lesions far apart are no gap in the drawing.
    """
    steps = np.diff(np.unique(slices))
    undrawn = int(sum(step - 1 for step in steps if 1 < step <= LARGEST_UNDRAWN_RUN + 1))
    if undrawn:
        raise GeometryError(
            f"{undrawn} slices between the contours have none: volume incomplete; draw the "
            "structure on every slice, or export it as a mask",
            code="mask-incomplete",
        )


def _choose(names: dict[int, str], segment: str | None, path: Path) -> int:
    listed = ", ".join(f"{number} '{name}'" for number, name in sorted(names.items())) or "none"
    if segment is None and len(names) == 1:
        return next(iter(names))
    by_name = [number for number, name in names.items() if name == segment]
    if not by_name and segment is not None and segment.isdecimal() and int(segment) in names:
        return int(segment)
    if len(by_name) != 1:
        found = "several structures" if segment is None else f"{len(by_name)} named '{segment}'"
        raise SiteDataError(
            f"{path}: {found}; it holds {listed}; name one in the column 'segment'",
            code="mask-segment",
        )
    return by_name[0]


def _contours(data: Dataset, number: int, path: Path) -> list[NDArray[np.float64]]:
    contours: list[NDArray[np.float64]] = []
    kinds: Counter[str] = Counter()
    for item in data.get("ROIContourSequence") or []:
        if int(item.get("ReferencedROINumber", -1)) != number:
            continue
        for contour in item.get("ContourSequence") or []:
            kind = str(contour.get("ContourGeometricType", "CLOSED_PLANAR"))
            kinds[kind] += 1
            if kind in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"):
                contours.append(_points(contour, path))
    if kinds and not contours:
        shown = ", ".join(f"{n} {kind}" for kind, n in kinds.items())
        raise SiteDataError(f"{path}: only {shown}; closed contours are needed", code="mask-empty")
    return contours


def _points(contour: Dataset, path: Path) -> NDArray[np.float64]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            points = np.array([float(v) for v in contour.ContourData]).reshape(-1, 3)
    except (AttributeError, TypeError, ValueError) as err:
        raise SiteDataError(f"{path}: a contour's points are damaged", code="truncated") from err
    if len(points) < 3 or not np.isfinite(points).all():
        raise SiteDataError(f"{path}: a contour has {len(points)} points", code="truncated")
    return points


def _references(data: Dataset) -> tuple[tuple[str, ...], str]:
    series: list[str] = []
    frame = ""
    for item in data.get("ReferencedFrameOfReferenceSequence") or []:
        frame = frame or str(item.get("FrameOfReferenceUID", ""))
        for study in item.get("RTReferencedStudySequence") or []:
            referenced = study.get("RTReferencedSeriesSequence") or []
            series += [str(ref.get("SeriesInstanceUID", "")) for ref in referenced]
    return tuple(uid for uid in series if uid), frame
