"""Masks read from DICOM SEG and RTSTRUCT apart from nognet's own readers; SEG written by hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from skimage.draw import polygon2mask

from nognet.types import Geometry
from tests.builders.ct_files import WrittenSeries, new_dataset, repr_ds

SEG_CLASS = "1.2.840.10008.5.1.4.1.1.66.4"


def seg_mask(path: Path, label: str, geometry: Geometry) -> NDArray[np.uint8]:
    """Read a SEG frame by frame, by position alone."""
    seg = pydicom.dcmread(path)
    number = next(s.SegmentNumber for s in seg.SegmentSequence if s.SegmentLabel == label)
    frames = seg.pixel_array.reshape(seg.NumberOfFrames, seg.Rows, seg.Columns)
    mask = np.zeros(geometry.size[::-1], dtype=np.uint8)
    for frame, item in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        shared = seg.SharedFunctionalGroupsSequence[0]
        named = item if "SegmentIdentificationSequence" in item else shared
        if named.SegmentIdentificationSequence[0].ReferencedSegmentNumber != number:
            continue
        place = np.array(item.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        mask[round(float(geometry.world_to_index(place)[2]))] = frame
    return mask


def rtstruct_mask(path: Path, name: str, geometry: Geometry) -> NDArray[np.uint8]:
    """Fill an RTSTRUCT's polygons by the even-odd rule with scikit-image."""
    dataset = pydicom.dcmread(path)
    number = next(r.ROINumber for r in dataset.StructureSetROISequence if r.ROIName == name)
    roi = next(r for r in dataset.ROIContourSequence if r.ReferencedROINumber == number)
    mask = np.zeros(geometry.size[::-1], dtype=np.uint8)
    for contour in roi.ContourSequence:
        points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
        assert len(points) == contour.NumberOfContourPoints
        index = geometry.world_to_index(points)
        k = round(float(index[0, 2]))
        assert index[:, 2] == pytest.approx(np.full(len(points), k), abs=1e-3)
        mask[k] ^= polygon2mask(mask.shape[1:], index[:, 1::-1]).astype(np.uint8)
    return mask


@dataclass(frozen=True)
class SegFrame:
    """A frame of a SEG: ``(H, W)`` values on one slice of a grid, for one segment."""

    values: NDArray[Any]
    slice_index: int
    segment: int = 1


def write_raw_seg(
    path: Path,
    frames: list[SegFrame],
    grid: Geometry,
    *,
    kind: str = "BINARY",
    series: WrittenSeries | None = None,
    **tags: Any,
) -> Path:
    """Write a SEG tag by tag, frames in the order given.

    Args:
        path: Where to.
        frames: Of a LABELMAP the values are the segments' numbers.
        grid: Where the slices lie.
        kind: ``BINARY`` (bits packed across frames), ``FRACTIONAL`` (255 is 1) or ``LABELMAP``.
        series: What it references; nothing where None.
        tags: Tags to change; None deletes one. `spacing_between_slices` and `labels` are special.
    """
    labels = tags.pop("labels", {f.segment: f"segment {f.segment}" for f in frames})
    gap = tags.pop("spacing_between_slices", grid.spacing_mm[2])
    data = new_dataset("1.2.840.10008.5.1.4.1.1.66.7" if kind == "LABELMAP" else SEG_CLASS)
    data.Modality, data.SeriesInstanceUID = "SEG", generate_uid()
    data.SegmentationType, data.NumberOfFrames = kind, len(frames)
    data.Rows, data.Columns = frames[0].values.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.PixelRepresentation = 0
    bits = 1 if kind == "BINARY" else 8
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    if kind == "FRACTIONAL":
        data.SegmentationFractionalType, data.MaximumFractionalValue = "PROBABILITY", 255
    if series is not None:
        data.FrameOfReferenceUID = series.frame_of_reference
        reference = Dataset()
        reference.SeriesInstanceUID = series.series_uid
        data.ReferencedSeriesSequence = [reference]
    else:
        data.FrameOfReferenceUID = generate_uid()
    data.SegmentSequence = [_segment(number, label) for number, label in labels.items()]
    data.SharedFunctionalGroupsSequence = [_shared(grid, gap)]
    data.PerFrameFunctionalGroupsSequence = [_per_frame(f, grid, kind) for f in frames]
    organization = generate_uid()
    data.DimensionOrganizationSequence = [Dataset()]
    data.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    data.DimensionIndexSequence = [_index(organization, 0x00200032, 0x00209113)]
    if kind != "LABELMAP":
        data.DimensionIndexSequence.insert(0, _index(organization, 0x0062000B, 0x0062000A))
    raw = np.stack([f.values for f in frames]).astype(np.uint8)
    packed = np.packbits(raw.ravel(), bitorder="little") if bits == 1 else raw
    data.PixelData = packed.tobytes() + b"\0" * (packed.nbytes % 2)
    data["PixelData"].VR = "OB"
    for tag, value in tags.items():
        if value is None:
            delattr(data, tag)
        else:
            setattr(data, tag, value)
    data.save_as(path, enforce_file_format=True)
    return path


def _segment(number: int, label: str) -> Dataset:
    item = Dataset()
    item.SegmentNumber, item.SegmentLabel, item.SegmentAlgorithmType = number, label, "MANUAL"
    for name, code in (("Category", "49755003"), ("Type", "27925004")):
        coded = Dataset()
        coded.CodeValue, coded.CodingSchemeDesignator, coded.CodeMeaning = code, "SCT", "Nodule"
        setattr(item, f"SegmentedProperty{name}CodeSequence", [coded])
    return item


def _shared(grid: Geometry, gap: float | None) -> Dataset:
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [repr_ds(grid.spacing_mm[1]), repr_ds(grid.spacing_mm[0])]
    measures.SliceThickness = repr_ds(grid.spacing_mm[2])
    if gap is not None:
        measures.SpacingBetweenSlices = repr_ds(gap)
    axes = np.array(grid.direction)
    orientation.ImageOrientationPatient = [repr_ds(v) for v in (*axes[:, 0], *axes[:, 1])]
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [orientation]
    return shared


def _per_frame(frame: SegFrame, grid: Geometry, kind: str) -> Dataset:
    item, place, content, named = Dataset(), Dataset(), Dataset(), Dataset()
    position = grid.index_to_world(np.array([0.0, 0.0, float(frame.slice_index)]))
    place.ImagePositionPatient = [repr_ds(v) for v in position]
    item.PlanePositionSequence = [place]
    in_stack = [frame.slice_index + 1]
    content.DimensionIndexValues = in_stack if kind == "LABELMAP" else [frame.segment, *in_stack]
    item.FrameContentSequence = [content]
    if kind != "LABELMAP":
        named.ReferencedSegmentNumber = frame.segment
        item.SegmentIdentificationSequence = [named]
    return item


def _index(organization: str, pointer: int, group: int) -> Dataset:
    item = Dataset()
    item.DimensionOrganizationUID = organization
    item.DimensionIndexPointer, item.FunctionalGroupPointer = pointer, group
    return item
