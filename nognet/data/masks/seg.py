"""Masks as DICOM SEG: binary, fractional or LABELMAP, overlapping or sparse, by highdicom.

highdicom lays frames out as a volume by their positions. What it can't know is checked here first:
that no header claims more than the site allows, and that frames far apart don't make it build a
volume of thousands of empty slices.
"""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from nognet.data.ct.dicom_file import PYDICOM_ERRORS
from nognet.data.ct.header import SliceHeader, is_compressed, read_headers
from nognet.data.ct.tags import integer_of, sequence_of, text_of
from nognet.data.findings import Finding
from nognet.data.masks.grid import Block, place_on
from nognet.data.masks.source import Identity
from nognet.errors import GeometryError, SiteDataError
from nognet.types import Geometry, Matrix3, Vector3, Volume

NEAREST_FRAMES_MM = 0.01
"""Frames closer to each other than this lie at one position."""
FRAME_TOLERANCE_MM = 0.1
_FAULTS = (*PYDICOM_ERRORS, RuntimeError, OSError, sqlite3.Error)
"""What highdicom and pydicom raise, one time or another, on damaged or odd files."""


@dataclass(frozen=True)
class SegFile:
    """A DICOM SEG.

    Attributes:
        path: The file.
        identity: What it says of itself.
        names: Segment labels by number; a LABELMAP's background is none.
        seg: highdicom's object.
        headers: One for each frame.
        gap_mm: SpacingBetweenSlices; None where the file has none.
    """

    path: Path
    identity: Identity
    names: Mapping[int, str]
    seg: Any
    headers: tuple[SliceHeader, ...]
    gap_mm: float | None

    def on(self, number: int, grid: Geometry) -> tuple[Block, tuple[Finding, ...]]:
        """Lay one segment on a grid.

        Raises:
            GeometryError: its frames make no volume, or one that doesn't lie on the grid.
            SiteDataError: the segment is empty, or can't be decoded.
        """
        volume = self.volume(number)
        self._check_gap(volume, grid)
        try:
            return place_on(volume.array, volume.geometry, grid)
        except SiteDataError as err:
            raise type(err)(f"{self.path}: {err}", code=err.code) from err

    def volume(self, number: int) -> Volume:
        """Read one segment on the SEG's own grid: ``(D, H, W)`` uint8 in {0, 1}, not empty.

        Raises:
            GeometryError: its frames make no volume.
            SiteDataError: the segment is empty, or can't be decoded.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd tags that don't matter here
            try:
                whole = self.seg.get_volume(segment_numbers=[number], allow_missing_positions=True)
                array, affine = np.asarray(whole.array)[..., 0], np.asarray(whole.affine)
            except _FAULTS as err:
                raise GeometryError(
                    f"{self.path}: the frames of segment {number} make no volume ({err})",
                    code="mask-geometry",
                ) from err
        # a fractional segment counts where at least half of the voxel belongs to it
        mask = (array >= 0.5).astype(np.uint8)
        if not mask.any():
            raise SiteDataError(
                f"{self.path}: segment {number} '{self.names[number]}' is empty", code="mask-empty"
            )
        geometry = _geometry_of(affine.astype(np.float64), mask.shape)
        self._check_frames(geometry)
        return Volume(mask, geometry)

    def _check_frames(self, geometry: Geometry) -> None:
        """Hold the volume against the position of every frame."""
        positions = np.array([header.position_mm for header in self.headers])
        index = geometry.world_to_index(positions)
        off_mm = np.abs(index - np.round(index)) * np.array(geometry.spacing_mm)
        corner = np.abs(np.round(index)[:, :2]).max()
        if off_mm.max() > FRAME_TOLERANCE_MM or corner > 0:
            raise GeometryError(
                f"{self.path}: frames don't lie where the volume has them (up to "
                f"{off_mm.max():.2f} mm off); export the segmentation again",
                code="mask-geometry",
            )

    def _check_gap(self, volume: Volume, grid: Geometry) -> None:
        """Refuse frames on every other slice or so of the CT, with no word of their distance.

        highdicom takes the least distance of frames for that of slices, so that such a nodule
        would come in twice as large; with the empty slices in between, half as large.
        """
        if self.gap_mm is not None or volume.geometry.size[2] < 2:
            return
        step = volume.geometry.index_to_world(np.eye(3)[2]) - np.array(volume.geometry.origin_mm)
        along = np.linalg.inv(np.asarray(grid.direction)) @ step / np.asarray(grid.spacing_mm)
        slices = np.abs(along).max()
        if slices > 1.5 and np.abs(along - np.round(along)).max() < 0.05:
            raise GeometryError(
                f"{self.path}: frames lie on every {round(float(slices))}th slice of the CT and "
                "the file doesn't say how far apart they are: volume incomplete; segment every "
                "slice",
                code="mask-incomplete",
            )


def open_seg(path: Path, data: Dataset, *, max_voxels: int) -> SegFile:
    """Open a DICOM SEG.

    Args:
        path: The file.
        data: Its data set without pixels.
        max_voxels: What it may claim at most.

    Raises:
        GeometryError: its frames make no volume.
        SiteDataError: it claims too much, or is damaged.
    """
    import highdicom as hd  # late: half a second that sites without SEG don't pay

    headers = tuple(read_headers(path))
    declared = _declared_gap(data)
    n_slices = _check_size(path, headers, declared, max_voxels)
    _check_length(path, data, headers[0])
    try:
        seg = hd.seg.segread(path)
        names = {
            int(s.SegmentNumber): str(s.get("SegmentLabel", "")).strip()
            for s in seg.SegmentSequence
        }
    except _FAULTS as err:
        raise SiteDataError(
            f"{path}: not a usable DICOM SEG ({type(err).__name__})", code="truncated"
        ) from err
    names.pop(0, None)
    _check_frames_named(path, data, names)
    frame = text_of(data, "FrameOfReferenceUID")
    own = text_of(data, "SeriesInstanceUID")
    geometry = _own_geometry(headers, n_slices)
    identity = Identity("SEG", own, referenced_by_seg(data), frame, len(headers), geometry)
    return SegFile(path, identity, names, seg, headers, declared)


def _check_frames_named(path: Path, data: Dataset, names: Mapping[int, str]) -> None:
    """Refuse frames that belong to no segment: one would be smaller than it was drawn."""
    if text_of(data, "SegmentationType") == "LABELMAP":
        return
    shared = sequence_of(data, "SharedFunctionalGroupsSequence")
    lost = 0
    for frame in sequence_of(data, "PerFrameFunctionalGroupsSequence"):
        named = [sequence_of(group, "SegmentIdentificationSequence") for group in (frame, *shared)]
        items = next((item for item in named if item), [])
        lost += not items or integer_of(items[0], "ReferencedSegmentNumber") not in names
    if lost:
        raise GeometryError(
            f"{path}: {lost} frames belong to no segment: volume incomplete; export the "
            "segmentation again",
            code="mask-incomplete",
        )


def referenced_by_seg(data: Dataset) -> tuple[str, ...]:
    """List the series that a SEG was drawn on."""
    items = sequence_of(data, "ReferencedSeriesSequence")
    uids = [text_of(item, "SeriesInstanceUID") for item in items]
    return tuple(dict.fromkeys(uid for uid in uids if uid))


def _check_length(path: Path, data: Dataset, first: SliceHeader) -> None:
    """Refuse a file whose pixels are fewer or more than its frames; compressed ones tell it later.

    With rows or columns too few, highdicom would read bits of one frame into the next.
    """
    element = first.pixels.element
    if element is None:
        raise SiteDataError(f"{path}: there are no pixels in the file", code="no-pixels")
    if element.length is None or is_compressed(first.pixels.syntax) or first.matrix is None:
        return
    frames = integer_of(data, "NumberOfFrames") or first.n_frames
    needed = -(-frames * first.matrix[0] * first.matrix[1] * first.pixels.bits[0] // 8)
    if min(element.length, element.available) < needed or element.length > needed + needed % 2:
        raise SiteDataError(
            f"{path}: {frames} frames need {needed} bytes, the file holds "
            f"{min(element.length, element.available)}",
            code="truncated",
        )


def _declared_gap(data: Dataset) -> float | None:
    """Read SpacingBetweenSlices; None where the file has none that can be used."""
    try:
        measures = data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        gap = abs(float(measures.SpacingBetweenSlices))
    except _FAULTS:
        return None
    return gap if NEAREST_FRAMES_MM <= gap < 1e4 else None


def _check_size(
    path: Path, headers: Sequence[SliceHeader], gap_mm: float | None, max_voxels: int
) -> int:
    """Refuse what can't be laid out before anything is; return the number of slices."""
    first = headers[0]
    if first.matrix is None:
        raise SiteDataError(f"{path}: there are no pixels in the file", code="no-pixels")
    if any(not (h.position_mm and h.orientation and h.pixel_spacing_mm) for h in headers):
        raise GeometryError(
            f"{path}: frames without position, orientation or pixel spacing", code="mask-geometry"
        )
    if any(h.orientation != first.orientation for h in headers) or any(
        h.pixel_spacing_mm != first.pixel_spacing_mm for h in headers
    ):
        raise GeometryError(
            f"{path}: frames are turned against each other or of unlike pixel spacing",
            code="mask-geometry",
        )
    n_slices = _slices_spanned(headers, gap_mm)
    voxels = max(len(headers), first.n_frames, n_slices) * first.matrix[0] * first.matrix[1]
    if voxels > max_voxels:
        raise SiteDataError(
            f"{path}: {len(headers)} frames over {n_slices} slices claim {voxels:,} voxels, at "
            f"most {max_voxels:,} are allowed (preparation.max_volume_voxels)",
            code="too-large",
        )
    return n_slices


def _normal(header: SliceHeader) -> NDArray[np.float64]:
    orientation = np.array(header.orientation)
    normal = np.cross(orientation[:3], orientation[3:])
    return np.asarray(normal / max(float(np.linalg.norm(normal)), 1e-9))


def _slices_spanned(headers: Sequence[SliceHeader], gap_mm: float | None) -> int:
    """Count the slices from the first frame to the last, empty ones included."""
    rises = np.array([h.position_mm for h in headers]) @ _normal(headers[0])
    gaps = np.diff(np.unique(np.round(rises / NEAREST_FRAMES_MM)) * NEAREST_FRAMES_MM)
    return 1 if gaps.size == 0 else round(float(np.ptp(rises) / (gap_mm or gaps.min()))) + 1


def _own_geometry(headers: Sequence[SliceHeader], n_slices: int) -> Geometry | None:
    """Describe the grid of the frames; None for a single slice of unknown thickness."""
    first = headers[0]
    rises = np.array([h.position_mm for h in headers]) @ _normal(first)
    gap = float(np.ptp(rises)) / (n_slices - 1) if n_slices > 1 else first.thickness_mm
    if not (gap and first.matrix and first.pixel_spacing_mm and first.orientation):
        return None
    lowest = headers[int(rises.argmin())].position_mm
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    axes = np.stack([row, column, _normal(first)], axis=1)
    between_rows, between_columns = first.pixel_spacing_mm
    return Geometry(
        (first.matrix[1], first.matrix[0], n_slices),
        (between_columns, between_rows, gap),
        _vector(np.array(lowest)),
        _matrix(axes),
    )


def _geometry_of(affine: NDArray[np.float64], shape: tuple[int, ...]) -> Geometry:
    steps = affine[:3, [2, 1, 0]]  # highdicom's axes are (slice, row, column)
    spacing = np.linalg.norm(steps, axis=0)
    size = (shape[2], shape[1], shape[0])
    return Geometry(size, _vector(spacing), _vector(affine[:3, 3]), _matrix(steps / spacing))


def _vector(values: NDArray[np.float64]) -> Vector3:
    x, y, z = values.tolist()
    return x, y, z


def _matrix(axes: NDArray[np.float64]) -> Matrix3:
    return _vector(axes[0]), _vector(axes[1]), _vector(axes[2])
