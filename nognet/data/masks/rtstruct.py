"""Masks as RTSTRUCT contours: which slice each contour lies on, and what they enclose together."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from nognet.data.ct.dicom_file import PYDICOM_ERRORS
from nognet.data.ct.tags import integer_of, sequence_of, text_of
from nognet.data.findings import Finding
from nognet.data.masks.gaps import Pieces, find_gaps
from nognet.data.masks.grid import Block
from nognet.data.masks.polygons import Polygon, fill_slice
from nognet.data.masks.source import Identity
from nognet.errors import GeometryError, SiteDataError
from nognet.types import Geometry

SLICE_TOLERANCE_FRACTION = 0.2
"""A contour lies on a slice when it is off by less than this part of the gap."""
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_AXES = ((0, 1, 2), (0, 2, 1), (1, 2, 0))
"""Columns, rows and slices of the contours as axes of the grid; its own slices come first."""


@dataclass(frozen=True)
class Contour:
    """A closed planar contour.

    Attributes:
        points_mm: ``(N, 3)`` in LPS millimetres.
        exclusive: Of the kind CLOSEDPLANAR_XOR.
    """

    points_mm: NDArray[np.float64]
    exclusive: bool = False


@dataclass(frozen=True)
class StructureSet:
    """An RTSTRUCT.

    Attributes:
        path: The file.
        identity: What it says of itself.
        names: ROI names by number.
        data: Its data set.
    """

    path: Path
    identity: Identity
    names: Mapping[int, str]
    data: Dataset

    def on(self, number: int, grid: Geometry) -> tuple[Block, tuple[Finding, ...]]:
        """Fill one structure's contours on a grid.

        Raises:
            GeometryError: contours have no slice, leave slices out, or leave the image.
            SiteDataError: there is none, it is damaged, or it encloses no voxel.
        """
        where = f"{self.path}: '{self.names[number]}'"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd values are judged by us
            contours, findings = self._contours(number)
        try:
            block, crossing = fill(contours, grid)
        except GeometryError as err:
            raise GeometryError(f"{where}: {err}", code=err.code) from err
        if block is None:
            raise SiteDataError(f"{where} encloses no voxel centre", code="mask-empty")
        if crossing:
            message = f"{where}: contours cross each other on {crossing} slices; taken together"
            findings = (*findings, Finding("mask-geometry", "warning", message))
        return block, findings

    def _contours(self, number: int) -> tuple[list[Contour], tuple[Finding, ...]]:
        where = f"{self.path}: '{self.names[number]}'"
        kinds: Counter[str] = Counter()
        contours = []
        for item in self._items(number):
            kind = text_of(item, "ContourGeometricType").upper() or "CLOSED_PLANAR"
            kinds[kind] += 1
            if kind in _CLOSED:
                points = _points(item, where)
                if len(points) >= 3:  # fewer enclose nothing
                    contours.append(Contour(points, kind == "CLOSEDPLANAR_XOR"))
        if not contours:
            shown = ", ".join(f"{n} {kind}" for kind, n in kinds.items()) or "no contour"
            raise SiteDataError(
                f"{where}: {shown}; closed planar contours are needed", code="mask-empty"
            )
        open_ones = sum(n for kind, n in kinds.items() if kind not in (*_CLOSED, "POINT"))
        if open_ones:
            message = f"{where}: {open_ones} contours are not closed and were left out"
            return contours, (Finding("mask-incomplete", "warning", message),)
        return contours, ()

    def _items(self, number: int) -> Iterator[Dataset]:
        for drawn in sequence_of(self.data, "ROIContourSequence"):
            if integer_of(drawn, "ReferencedROINumber") == number:
                yield from sequence_of(drawn, "ContourSequence")


def open_structures(path: Path, data: Dataset) -> StructureSet:
    """Read which structures an RTSTRUCT holds and what they were drawn on."""
    names = {}
    for item in sequence_of(data, "StructureSetROISequence"):
        number = integer_of(item, "ROINumber")
        if number is not None:
            names[number] = text_of(item, "ROIName")
    series, frame = _references(data)
    own = text_of(data, "SeriesInstanceUID")
    identity = Identity("RTSTRUCT", own, series, frame)
    return StructureSet(path, identity, names, data)


def rasterise(contours_mm: Sequence[NDArray[np.float64]], grid: Geometry) -> NDArray[np.uint8]:
    """Fill contours ``(N, 3)`` on a grid: ``(D, H, W)`` uint8 in {0, 1}.

    Raises:
        GeometryError: contours have no slice, leave slices out, are not planar, or leave the image.
    """
    block, _ = fill([Contour(points) for points in contours_mm], grid)
    return np.zeros(grid.size[::-1], dtype=np.uint8) if block is None else block.full(grid)


def fill(contours: Sequence[Contour], grid: Geometry) -> tuple[Block | None, int]:
    """Fill contours on a grid; None where they enclose no voxel centre.

    Returns:
        The mask, and the number of slices on which contours cross each other.

    Raises:
        GeometryError: contours have no slice, leave slices out, are not planar, or leave the image.
    """
    placed = [grid.world_to_index(contour.points_mm) for contour in contours]
    axes = _plane_of(placed, grid)
    placed = [points[:, list(axes)] for points in placed]
    size, spacing = (np.array(of)[list(axes)] for of in (grid.size, grid.spacing_mm))
    slices = _slices_of(placed, size)
    boxes = np.array([[*p[:, :2].min(axis=0), *p[:, :2].max(axis=0)] for p in placed])
    _check_undrawn(slices, boxes, float(spacing[2]))
    low = np.clip(np.floor(boxes[:, :2].min(axis=0)), 0, size[:2] - 1).astype(int)
    high = np.clip(np.ceil(boxes[:, 2:].max(axis=0)), 0, size[:2] - 1).astype(int)
    width, height = (int(n) for n in high - low + 1)
    by_slice: defaultdict[int, list[Polygon]] = defaultdict(list)
    for contour, points, z in zip(contours, placed, slices, strict=True):
        by_slice[z].append(Polygon(points[:, :2] - low, contour.exclusive))
    first = min(by_slice)
    filled = np.zeros((max(by_slice) - first + 1, height, width), dtype=np.uint8)
    crossing = 0
    for z, polygons in by_slice.items():
        filled[z - first], crosses = fill_slice(polygons, width, height)
        crossing += crosses
    if not filled.any():
        return None, crossing
    # back from (columns, rows, slices of the contours) to x, y, z of the grid
    turned = np.transpose(filled, [2 - axes.index(axis) for axis in (2, 1, 0)])
    start = np.array([low[0], low[1], first])[[axes.index(axis) for axis in (0, 1, 2)]]
    x, y, z = (int(v) for v in start)
    return Block(np.ascontiguousarray(turned), (x, y, z)), crossing


def _plane_of(placed: Sequence[NDArray[np.float64]], grid: Geometry) -> tuple[int, int, int]:
    """Find the axes in the contours' plane and, last, the one they are stacked along."""
    ranges = np.array([np.ptp(points, axis=0) for points in placed])
    for axes in _AXES:
        if ranges[:, axes[2]].max() <= SLICE_TOLERANCE_FRACTION:
            return axes
    bent = float(ranges[:, 2].max()) * grid.spacing_mm[2]
    raise GeometryError(
        f"contours are not parallel to the slices (points of one are up to {bent:.2f} mm "
        "apart along the normal); export the structure as a mask",
        code="mask-geometry",
    )


def _slices_of(placed: Sequence[NDArray[np.float64]], size: NDArray[np.int_]) -> list[int]:
    """Find the slice of each contour, or refuse."""
    levels = np.array([np.median(contour[:, 2]) for contour in placed])
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
    return [int(z) for z in slices]


def _check_undrawn(slices: Sequence[int], boxes: NDArray[np.float64], spacing_mm: float) -> None:
    """Refuse structures drawn on every other slice or so: as they are they'd be too small."""
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    gaps = find_gaps(Pieces(np.array(slices), boxes, areas), spacing_mm)
    undrawn = sum(gap.slices for gap in gaps)
    if undrawn:
        raise GeometryError(
            f"{undrawn} slices between the contours have none: volume incomplete; draw the "
            "structure on every slice, or export it as a mask",
            code="mask-incomplete",
        )


def _points(contour: Dataset, where: str) -> NDArray[np.float64]:
    try:
        points = np.array([float(v) for v in contour.ContourData]).reshape(-1, 3)
        declared = contour.get("NumberOfContourPoints")
        count = len(points) if declared in (None, "") else int(declared)
    except (*PYDICOM_ERRORS, OSError) as err:
        raise SiteDataError(f"{where}: a contour's points are damaged", code="truncated") from err
    if count != len(points) or not (np.abs(points) < 1e6).all():
        raise SiteDataError(
            f"{where}: a contour declares {count} points and holds {len(points)}, or one that lies "
            "nowhere",
            code="truncated",
        )
    return points


def _references(data: Dataset) -> tuple[tuple[str, ...], str]:
    """List the series referenced and the frame of reference of the positions."""
    series, frames = referenced_by_structures(data)
    rois = sequence_of(data, "StructureSetROISequence")
    frames += tuple(text_of(item, "ReferencedFrameOfReferenceUID") for item in rois)
    named = [frame for frame in dict.fromkeys(frames) if frame]
    return series, named[0] if len(named) == 1 else ""  # of several none can be told from


def referenced_by_structures(data: Dataset) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """List the series that an RTSTRUCT was drawn on, and the frames of reference it names."""
    series: list[str] = []
    frames: list[str] = []
    for item in sequence_of(data, "ReferencedFrameOfReferenceSequence"):
        frames.append(text_of(item, "FrameOfReferenceUID"))
        for study in sequence_of(item, "RTReferencedStudySequence"):
            referenced = sequence_of(study, "RTReferencedSeriesSequence")
            series += [text_of(ref, "SeriesInstanceUID") for ref in referenced]
    return tuple(dict.fromkeys(filter(None, series))), tuple(dict.fromkeys(filter(None, frames)))
