"""Enhanced CT: every frame has its own place and its own slope and intercept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from nognet.data.ct.image import read_ct, read_ct_with_findings
from nognet.errors import SiteDataError
from tests.builders.ct_files import geometry, repr_ds, slice_dataset

GRID = geometry((16, 12, 6), (0.8, 0.7, 2.0), origin=(-50.0, 20.0, -300.0))
ENHANCED = "1.2.840.10008.5.1.4.1.1.2.1"
ORDER = (3, 0, 5, 1, 4, 2)


def patient() -> np.ndarray:
    rng = np.random.default_rng(3)
    hu = 2 * rng.integers(-500, -350, size=GRID.size[::-1])
    hu[:, 4:9, 5:12] = 2 * rng.integers(-40, 700, size=(6, 5, 7))
    return hu


def group(**tags: Any) -> Sequence:
    item = Dataset()
    for name, value in tags.items():
        setattr(item, name, value)
    return Sequence([item])


def write_frames(path: Path, order: tuple[int, ...] = ORDER) -> Path:
    """Frames in any order, slopes and intercepts in turn."""
    hu = patient()
    data = slice_dataset(hu[0], GRID, 0)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = UID(ENHANCED)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
                 "RescaleSlope", "RescaleIntercept", "SliceThickness"):  # fmt: skip
        delattr(data, name)
    data.SeriesInstanceUID, data.StudyInstanceUID = "1.2.3", "1.2.4"
    data.FrameOfReferenceUID, data.InstanceNumber = "1.2.5", 1
    data.NumberOfFrames = len(order)
    shared, frames, words = Dataset(), [], []
    shared.PlaneOrientationSequence = group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    shared.PixelMeasuresSequence = group(PixelSpacing=[0.7, 0.8], SliceThickness=2)
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    for number, k in enumerate(order):
        slope, intercept = (1, 2)[number % 2], -1024 - 2 * number
        position = GRID.index_to_world(np.array([0.0, 0.0, float(k)]))
        frame = Dataset()
        frame.PlanePositionSequence = group(ImagePositionPatient=[repr_ds(v) for v in position])
        frame.PixelValueTransformationSequence = group(
            RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="HU"
        )
        frame.FrameContentSequence = group(DimensionIndexValues=[1, number + 1])
        frames.append(frame)
        words.append(((hu[k] - intercept) // slope).astype("<i2"))
    data.PerFrameFunctionalGroupsSequence = Sequence(frames)
    data.PixelData = np.stack(words).tobytes()
    data.save_as(path, enforce_file_format=True)
    return path


def code_of(path: Path) -> str:
    with pytest.raises(SiteDataError) as caught:
        read_ct(path)
    return caught.value.code


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEGLSLossless])
def test_frames_in_any_order_and_codec_come_to_their_places(tmp_path: Path, syntax: UID) -> None:
    path = write_frames(tmp_path / "ct")
    if syntax != ExplicitVRLittleEndian:
        data = pydicom.dcmread(path)
        data.compress(syntax, generate_instance_uid=False)
        data.save_as(path)
    reading = read_ct_with_findings(path)
    np.testing.assert_array_equal(reading.volume.array, patient())
    assert reading.volume.geometry.spacing_mm == pytest.approx(GRID.spacing_mm)
    assert reading.volume.geometry.origin_mm == pytest.approx(GRID.origin_mm)
    assert reading.findings == ()


def test_two_times_or_stacks_at_one_place_are_refused(tmp_path: Path) -> None:
    assert code_of(write_frames(tmp_path / "ct", (*ORDER, *ORDER))) == "duplicate-position"


def test_a_frame_turned_against_the_others_is_refused(tmp_path: Path) -> None:
    data = pydicom.dcmread(write_frames(tmp_path / "ct"))
    data.PerFrameFunctionalGroupsSequence[2].PlaneOrientationSequence = group(
        ImageOrientationPatient=[0, 1, 0, 0, 0, -1]
    )
    data.save_as(tmp_path / "ct")
    assert code_of(tmp_path / "ct") == "mixed-orientation"


@pytest.mark.parametrize(
    ("code", "tags"),
    [
        ("bad-tags", {"NumberOfFrames": 5}),
        ("no-position", {"PerFrameFunctionalGroupsSequence": Sequence([])}),
        ("mixed-matrix", {}),
    ],
)
def test_frames_that_are_not_described_one_by_one_are_refused(
    tmp_path: Path, code: str, tags: dict[str, Any]
) -> None:
    data = pydicom.dcmread(write_frames(tmp_path / "ct"))
    for name, value in tags.items():
        setattr(data, name, value)
    if not tags:
        data.PerFrameFunctionalGroupsSequence[1].PixelMeasuresSequence = group(
            PixelSpacing=[0.9, 0.9]
        )
    data.save_as(tmp_path / "ct")
    assert code_of(tmp_path / "ct") == code
