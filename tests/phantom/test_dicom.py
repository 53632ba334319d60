from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from nognet.phantom.dicom import write_ct_series, write_rtstruct, write_seg
from nognet.phantom.render import render_soft_mask
from nognet.types import Geometry, Volume
from tests.builders.mask_files import rtstruct_mask, seg_mask
from tests.builders.phantom_scene import (
    drawn_look,
    grid,
    nodule_plan,
    one_nodule_scene,
    series_header,
)

TURN = math.radians(20)
GEOMETRIES = {
    "straight": Geometry((30, 26, 9), (0.84375, 0.84375, 1.5), (-100.0, -3.03125, 1217.25)),
    "oblique": Geometry(
        (30, 26, 9),
        (0.7, 0.7, 1.25),
        (12.5, -40.0, -310.0),
        (
            (math.cos(TURN), -math.sin(TURN), 0.0),
            (math.sin(TURN), math.cos(TURN), 0.0),
            (0.0, 0.0, 1.0),
        ),
    ),
}


def noisy_volume(geometry: Geometry) -> Volume:
    rng = np.random.default_rng(0)
    return Volume(rng.normal(-500, 300, geometry.size[::-1]).astype(np.float32), geometry)


def stored_hu(volume: Volume) -> NDArray[np.float64]:
    return np.clip(np.rint(volume.array.astype(np.float64)), -1024, None)


@pytest.mark.parametrize("name", list(GEOMETRIES))
def test_simpleitk_reads_back_the_same_hu_and_geometry(name: str, tmp_path: Path) -> None:
    volume = noisy_volume(GEOMETRIES[name])
    before = volume.array.copy()
    write_ct_series(volume, tmp_path, series_header())
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    geometry = volume.geometry
    assert np.array_equal(sitk.GetArrayFromImage(image), stored_hu(volume))
    assert image.GetSpacing() == pytest.approx(geometry.spacing_mm, abs=1e-5)
    assert image.GetOrigin() == pytest.approx(geometry.origin_mm, abs=1e-5)
    assert image.GetDirection() == pytest.approx(np.ravel(geometry.direction), abs=1e-5)
    assert np.array_equal(volume.array, before)


def test_every_slice_is_valid_and_consistent(tmp_path: Path) -> None:
    geometry = GEOMETRIES["straight"]
    files = write_ct_series(noisy_volume(geometry), tmp_path, series_header())
    slices = [pydicom.dcmread(path) for path in files]
    assert len({s.SOPInstanceUID for s in slices}) == geometry.size[2]
    assert len({s.SeriesInstanceUID for s in slices}) == 1
    assert len({s.FrameOfReferenceUID for s in slices}) == 1
    for number, s in enumerate(slices):
        assert s.file_meta.MediaStorageSOPInstanceUID == s.SOPInstanceUID
        assert s.SOPInstanceUID.is_valid
        assert s.InstanceNumber == number + 1
        assert float(s.ImagePositionPatient[2]) == pytest.approx(1217.25 + 1.5 * number)
        assert float(s.SliceLocation) == pytest.approx(float(s.ImagePositionPatient[2]))
        assert s.pixel_array.shape == (26, 30)
        assert (s.ConvolutionKernel, s.Modality, s.RescaleType) == ("B40f", "CT", "HU")
        assert str(s.PatientName) == "PHANTOM^T001"
        for element in s.iterall():
            if element.VR == "DS":
                values = element.value if element.VM > 1 else [element.value]
                assert all(len(str(value)) <= 16 for value in values)


def test_equal_arguments_write_equal_bytes_and_other_studies_other_uids(tmp_path: Path) -> None:
    volume = noisy_volume(GEOMETRIES["straight"])
    first = write_ct_series(volume, tmp_path / "1", series_header())
    again = write_ct_series(volume, tmp_path / "2", series_header())
    other = write_ct_series(volume, tmp_path / "3", series_header("other study"))
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in again]
    uids = [pydicom.dcmread(p).SOPInstanceUID for p in (*first, *other)]
    assert len(set(uids)) == len(uids)


def two_masks(geometry: Geometry) -> dict[str, NDArray[np.uint8]]:
    first, second = (np.zeros(geometry.size[::-1], dtype=np.uint8) for _ in range(2))
    first[2:5, 4:11, 6:12] = 1
    first[3, 7:9, 8:10] = 0  # a hole
    second[4:7, 15:20, 18:25] = 1
    second[5, 2, 2] = 1  # an island of one voxel
    return {"nodule_1": first, "nodule_2": second}


@pytest.mark.parametrize("name", list(GEOMETRIES))
def test_a_seg_read_again_gives_the_masks(name: str, tmp_path: Path) -> None:
    geometry = GEOMETRIES[name]
    masks = two_masks(geometry)
    files = write_ct_series(noisy_volume(geometry), tmp_path / "ct", series_header())
    path = tmp_path / "seg.dcm"
    write_seg(masks, geometry, series_header(), path, ct_files=files)
    for label, mask in masks.items():
        assert np.array_equal(seg_mask(path, label, geometry), mask)
    ct = pydicom.dcmread(files[0])
    seg = pydicom.dcmread(path)
    assert seg.FrameOfReferenceUID == ct.FrameOfReferenceUID
    assert seg.StudyInstanceUID == ct.StudyInstanceUID
    written = path.read_bytes()
    write_seg(masks, geometry, series_header(), path, ct_files=files)
    assert path.read_bytes() == written


@pytest.mark.parametrize("name", list(GEOMETRIES))
def test_an_rtstruct_read_again_gives_the_masks(name: str, tmp_path: Path) -> None:
    geometry = GEOMETRIES[name]
    masks = two_masks(geometry)
    files = write_ct_series(noisy_volume(geometry), tmp_path / "ct", series_header())
    path = tmp_path / "rtstruct.dcm"
    write_rtstruct(masks, geometry, series_header(), path)
    for label, mask in masks.items():
        assert np.array_equal(rtstruct_mask(path, label, geometry), mask)
    slices = {pydicom.dcmread(f).SOPInstanceUID for f in files}
    dataset = pydicom.dcmread(path)
    referenced = {
        contour.ContourImageSequence[0].ReferencedSOPInstanceUID
        for roi in dataset.ROIContourSequence
        for contour in roi.ContourSequence
    }
    assert referenced <= slices
    frame = dataset.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID
    assert frame == pydicom.dcmread(files[0]).FrameOfReferenceUID


def test_contours_of_a_soft_mask_hold_the_nodules_volume(tmp_path: Path) -> None:
    plan = nodule_plan("lobulated", 9.0)
    scene = one_nodule_scene(drawn_look("lobulated", 5), plan)
    geometry = grid(spacing_mm=(0.8, 0.8, 1.0))
    soft = render_soft_mask(scene, scene.nodules[0], geometry)
    path = tmp_path / "rtstruct.dcm"
    write_rtstruct({"nodule_1": soft}, geometry, series_header(), path)
    mask = rtstruct_mask(path, "nodule_1", geometry)
    assert np.array_equal(mask, (soft > 0.5).astype(np.uint8))
    area_mm2 = 0.0
    for contour in pydicom.dcmread(path).ROIContourSequence[0].ContourSequence:
        x, y, _ = np.array(contour.ContourData, dtype=float).reshape(-1, 3).T
        area_mm2 += abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))) / 2
    assert area_mm2 * 1.0 == pytest.approx(plan.volume_mm3(0), rel=0.03)
