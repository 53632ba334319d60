"""Masks read from DICOM SEG and RTSTRUCT, apart from nognet's own readers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from skimage.draw import polygon2mask

from nognet.types import Geometry


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
