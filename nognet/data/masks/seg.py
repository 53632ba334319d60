"""Masks as DICOM SEG: binary, fractional or LABELMAP, overlapping or sparse, by highdicom."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nognet.errors import GeometryError, SiteDataError
from nognet.types import Geometry, Matrix3, Vector3, Volume


@dataclass(frozen=True)
class SegReading:
    """One segment on the SEG's own grid, and what it says it was drawn on.

    Attributes:
        volume: ``(D, H, W)`` uint8 in {0, 1}.
        series_uids: Series it references; empty where it names none.
        frame_of_reference: FrameOfReferenceUID.
    """

    volume: Volume
    series_uids: tuple[str, ...]
    frame_of_reference: str


def read_seg(path: Path, segment: str | None) -> SegReading:
    """Read one segment of a DICOM SEG.

    Args:
        path: The SEG file.
        segment: Number or label of the segment; may be left out where there is only one.

    Raises:
        GeometryError: its frames make no volume.
        SiteDataError: the segment is not there, is named twice, is empty, or can't be decoded.
    """
    import highdicom as hd  # late: half a second that sites without SEG don't pay

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # highdicom warns of odd tags that don't matter here
        try:
            seg = hd.seg.segread(path)
        except (ValueError, AttributeError, KeyError, OSError, TypeError) as err:
            raise SiteDataError(
                f"{path}: not a usable DICOM SEG ({type(err).__name__})", code="truncated"
            ) from err
        volume = _segment_volume(seg, choose_segment(_labels(seg), segment, path), path)
    if not volume.array.any():
        raise SiteDataError(f"{path}: the segment is empty", code="mask-empty")
    references = seg.get("ReferencedSeriesSequence") or []
    uids = tuple(str(item.SeriesInstanceUID) for item in references if "SeriesInstanceUID" in item)
    return SegReading(volume, uids, str(seg.get("FrameOfReferenceUID", "")))


def choose_segment(labels: dict[int, str], segment: str | None, path: Path) -> int:
    """Find the number of a segment given by number or label.

    Raises:
        SiteDataError: none or several match, or a choice is needed and none was given.
    """
    listed = ", ".join(f"{number} '{label}'" for number, label in sorted(labels.items()))
    if segment is None:
        if len(labels) == 1:
            return next(iter(labels))
        raise SiteDataError(
            f"{path}: {len(labels)} segments ({listed}); name one in the column 'segment'",
            code="mask-segment",
        )
    by_label = [number for number, label in labels.items() if label == segment]
    if not by_label and segment.isdecimal() and int(segment) in labels:
        return int(segment)
    if len(by_label) != 1:
        found = "no segment" if not by_label else f"{len(by_label)} segments"
        raise SiteDataError(
            f"{path}: {found} '{segment}'; it holds {listed or 'none'}", code="mask-segment"
        )
    return by_label[0]


def _labels(seg: Any) -> dict[int, str]:  # noqa: ANN401  highdicom has no types
    """List the segments by number; a LABELMAP's background is none."""
    labels = {
        int(item.SegmentNumber): str(item.get("SegmentLabel", "")) for item in seg.SegmentSequence
    }
    labels.pop(0, None)
    return labels


def _segment_volume(seg: Any, number: int, path: Path) -> Volume:  # noqa: ANN401  untyped
    try:
        whole = seg.get_volume(segment_numbers=[number], allow_missing_positions=True)
    except (ValueError, RuntimeError, AttributeError, KeyError, TypeError) as err:
        raise GeometryError(
            f"{path}: the frames of segment {number} make no volume ({err})", code="mask-geometry"
        ) from err
    affine = np.asarray(whole.affine, dtype=np.float64)
    # a fractional segment counts where at least half of the voxel belongs to it
    array = (np.asarray(whole.array)[..., 0] >= 0.5).astype(np.uint8)
    steps = affine[:3, [2, 1, 0]]  # highdicom's axes are (slice, row, column)
    spacing = np.linalg.norm(steps, axis=0)
    return Volume(array, _geometry(array.shape, spacing, affine[:3, 3], steps / spacing))


def _geometry(
    shape: tuple[int, ...], spacing: np.ndarray, origin: np.ndarray, axes: np.ndarray
) -> Geometry:
    direction: Matrix3 = (_vector(axes[0]), _vector(axes[1]), _vector(axes[2]))
    return Geometry((shape[2], shape[1], shape[0]), _vector(spacing), _vector(origin), direction)


def _vector(values: np.ndarray) -> Vector3:
    x, y, z = values.tolist()
    return x, y, z
