from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import UID, JPEGLSLossless, RLELossless

from nognet.data.ct.image import check_hounsfield, read_ct, read_ct_with_findings
from nognet.data.masks.reading import read_mask
from nognet.data.pairs.roi import crop_mask, nodule_centre_mm, nodule_volume_mm3
from nognet.errors import GeometryError, SiteDataError
from nognet.types import Geometry
from tests.builders.ct_files import (
    ball,
    edit,
    geometry,
    middle,
    rotation,
    write_image,
    write_series,
)

PLAIN = geometry((20, 16, 8), (0.8, 0.7, 2.0), origin=(-50.0, 20.0, -300.0))


def phantom_hu(grid: Geometry, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(-1024, 1500, size=grid.size[::-1])


def assert_same_place(found: Geometry, wanted: Geometry) -> None:
    assert found.size == wanted.size
    for name in ("spacing_mm", "origin_mm", "direction"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), atol=1e-6)


grids = st.builds(
    lambda size, spacing, origin, degrees: geometry(
        size, spacing, origin=origin, axes=rotation(degrees)
    ),
    st.tuples(*[st.integers(5, 12)] * 3),
    st.tuples(*[st.floats(0.4, 4.0)] * 3),
    st.tuples(*[st.floats(-500, 500)] * 3),
    st.tuples(*[st.floats(-180, 180)] * 3),
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(grid=grids, seed=st.integers(0, 1000))
def test_any_geometry_comes_back_with_every_voxel_where_it_was(
    tmp_path_factory: pytest.TempPathFactory, grid: Geometry, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("ct")
    hu = phantom_hu(grid, seed)
    write_series(folder, hu, grid, rng=np.random.default_rng(seed))
    volume = read_ct(folder)
    assert_same_place(volume.geometry, grid)
    np.testing.assert_array_equal(volume.array, hu)


@given(grid=grids, point=st.tuples(*[st.floats(-1000, 1000)] * 3))
def test_world_and_index_are_each_others_inverse(
    grid: Geometry, point: tuple[float, float, float]
) -> None:
    there = grid.world_to_index(np.array(point))
    np.testing.assert_allclose(grid.index_to_world(there), point, atol=1e-6)


def test_slices_equal_those_simpleitk_reads(tmp_path: Path) -> None:
    series = write_series(tmp_path, phantom_hu(PLAIN), PLAIN, rng=np.random.default_rng(3))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series.folder)))
    reference = reader.Execute()
    volume = read_ct(tmp_path)
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(reference))
    np.testing.assert_allclose(volume.geometry.origin_mm, reference.GetOrigin())
    np.testing.assert_allclose(volume.geometry.spacing_mm, reference.GetSpacing())


@pytest.mark.parametrize("syntax", [JPEGLSLossless, RLELossless])
def test_compressed_slices_are_decoded_to_the_same_values(tmp_path: Path, syntax: UID) -> None:
    hu = phantom_hu(PLAIN)
    series = write_series(tmp_path, hu, PLAIN)
    for file in series.files:
        data = pydicom.dcmread(file)
        data.compress(syntax, generate_instance_uid=False)
        data.save_as(file)
    assert pydicom.dcmread(series.files[0]).file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(read_ct(tmp_path).array, hu)


def test_slope_and_intercept_are_taken_slice_by_slice(tmp_path: Path) -> None:
    hu = np.round(phantom_hu(PLAIN) / 8) * 8.0
    series = write_series(tmp_path, hu, PLAIN)
    for k, file in enumerate(series.files):
        slope, intercept = (0.5, 2, 4, 8)[k % 4], -1024 - 8 * k
        data = pydicom.dcmread(file)
        data.RescaleSlope, data.RescaleIntercept = slope, intercept
        stored = np.round((np.maximum(hu[k], -1024) - intercept) / slope).astype("<i2")
        data.PixelData = stored.tobytes()
        data.save_as(file)
    np.testing.assert_array_equal(read_ct(tmp_path).array, hu)


def test_twelve_stored_bits_ignore_what_lies_above_them(tmp_path: Path) -> None:
    hu = np.clip(phantom_hu(PLAIN), -1024, 1000)
    series = write_series(tmp_path, hu, PLAIN, BitsStored=12, HighBit=11, PixelRepresentation=0)
    for file in series.files:
        data = pydicom.dcmread(file)
        dirty = np.frombuffer(data.PixelData, "<u2") | 0xA000  # an old overlay in the high bits
        data.PixelData = dirty.astype("<u2").tobytes()
        data.save_as(file)
    np.testing.assert_array_equal(read_ct(tmp_path).array, hu)


def test_padding_is_clipped_to_air_and_reported(tmp_path: Path) -> None:
    hu = np.clip(phantom_hu(PLAIN), -1000, None)
    hu[:, 0] = -2048
    write_series(tmp_path, hu, PLAIN)
    reading = read_ct_with_findings(tmp_path)
    assert reading.volume.array.min() == -1024
    assert (reading.volume.array[:, 0] == -1024).all()
    assert [f.code for f in reading.findings] == ["padding"]


def test_padding_stored_with_the_wrong_sign_is_air(tmp_path: Path) -> None:
    hu = np.clip(phantom_hu(PLAIN), -1000, None)
    series = write_series(tmp_path, hu, PLAIN, PixelRepresentation=0)
    for file in series.files:
        data = pydicom.dcmread(file)
        stored = np.frombuffer(data.PixelData, "<u2").copy()
        stored[:5] = 63536  # -2000 as unsigned
        data.PixelData = stored.tobytes()
        data.save_as(file)
    reading = read_ct_with_findings(tmp_path)
    assert (reading.volume.array[:, 0, :5] == -1024).all()
    np.testing.assert_array_equal(reading.volume.array[:, 1:], hu[:, 1:])
    assert [f.code for f in reading.findings] == ["unsigned-padding"]


def test_spacing_between_slices_has_no_say(tmp_path: Path) -> None:
    write_series(tmp_path, phantom_hu(PLAIN), PLAIN, SpacingBetweenSlices=7, SliceThickness=9)
    assert read_ct(tmp_path).geometry.spacing_mm[2] == pytest.approx(2.0)


def test_a_folder_of_all_sorts_gives_its_one_ct(tmp_path: Path) -> None:
    hu = phantom_hu(PLAIN)
    write_series(tmp_path / "deep" / "er", hu, PLAIN)
    write_series(tmp_path / "mr", hu, PLAIN, Modality="MR")
    write_series(tmp_path / "scout", hu[:1], PLAIN, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    (tmp_path / "notes.txt").write_text("no DICOM at all")
    (tmp_path / "empty").touch()
    np.testing.assert_array_equal(read_ct(tmp_path).array, hu)


def test_of_two_series_alike_one_is_taken_and_the_choice_is_told(tmp_path: Path) -> None:
    hu = phantom_hu(PLAIN)
    first = write_series(tmp_path / "a", hu, PLAIN, ConvolutionKernel="B30f")
    second = write_series(tmp_path / "b", hu[::-1], PLAIN, ConvolutionKernel="B70f")
    reading = read_ct_with_findings(tmp_path)
    assert reading.series_uid == first.series_uid
    [finding] = reading.findings
    assert (finding.code, finding.severity) == ("several-series", "warning")
    assert f"taken: {first.series_uid}" in finding.message
    found = read_ct_with_findings(tmp_path, second.series_uid)
    np.testing.assert_array_equal(found.volume.array, hu[::-1])
    assert found.findings == ()


def test_missing_tags_pass_with_a_warning_that_names_them(tmp_path: Path) -> None:
    series = write_series(tmp_path, phantom_hu(PLAIN), PLAIN)
    for file in series.files:
        edit(file, Modality=None, InstanceNumber=None, FrameOfReferenceUID=None)
    [finding] = read_ct_with_findings(tmp_path).findings
    assert finding.code == "missing-tags"
    assert "Modality, InstanceNumber, FrameOfReferenceUID" in finding.message


@pytest.mark.parametrize(
    ("code", "tags"),
    [
        ("not-ct", {"Modality": "MR"}),
        ("not-ct", {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}),
        ("localizer", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
        ("no-pixels", {"PixelData": None}),
        ("no-position", {"ImagePositionPatient": None}),
        ("eight-bit", {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}),
        ("lossy", {"LossyImageCompression": "01"}),
        ("same-position", {"ImagePositionPatient": [0, 0, 0]}),
        ("duplicate-position", {"SOPInstanceUID": "1.2.3"}),
    ],
)
def test_what_can_not_be_trusted_is_refused_with_its_code(
    tmp_path: Path, code: str, tags: dict[str, object]
) -> None:
    series = write_series(tmp_path, phantom_hu(PLAIN), PLAIN)
    for file in series.files:
        edit(file, **tags)
    with pytest.raises(SiteDataError) as caught:
        read_ct(tmp_path)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("code", "tags"),
    [
        ("mixed-matrix", {"PixelSpacing": [0.9, 0.9]}),
        ("mixed-matrix", {"Rows": 15}),
        ("mixed-orientation", {"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]}),
        ("irregular-spacing", {"ImagePositionPatient": [-50, 20, -293.1]}),
    ],
)
def test_one_slice_unlike_the_others_is_refused(
    tmp_path: Path, code: str, tags: dict[str, object]
) -> None:
    series = write_series(tmp_path, phantom_hu(PLAIN), PLAIN)
    edit(series.files[3], **tags)
    with pytest.raises(GeometryError) as caught:
        read_ct(tmp_path)
    assert caught.value.code == code


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    series = write_series(tmp_path, phantom_hu(PLAIN), PLAIN)
    series.files[2].write_bytes(series.files[2].read_bytes()[:-100])
    with pytest.raises(GeometryError, match="ends before its image does") as caught:
        read_ct(tmp_path)
    assert caught.value.code == "truncated"


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_image_files_keep_their_geometry(tmp_path: Path, suffix: str) -> None:
    grid = geometry((9, 8, 7), (0.7, 0.9, 1.5), origin=(3, -4, 5), axes=rotation((10, 20, 30)))
    hu = phantom_hu(grid).astype(np.int16)
    volume = read_ct(write_image(tmp_path / f"ct{suffix}", hu, grid))
    np.testing.assert_array_equal(volume.array, hu)
    np.testing.assert_allclose(volume.geometry.index_to_world(np.array([8.0, 7, 6])),
                               grid.index_to_world(np.array([8.0, 7, 6])), atol=1e-4)  # fmt: skip


def test_grey_pictures_are_no_ct(tmp_path: Path) -> None:
    path = write_image(tmp_path / "x.nrrd", np.full((8, 16, 20), 255, np.uint8), PLAIN)
    with pytest.raises(SiteDataError, match="no Hounsfield units"):
        read_ct(path)


def test_stored_values_without_their_intercept_are_no_hounsfield_units(tmp_path: Path) -> None:
    hu = np.clip(phantom_hu(PLAIN), -1000, None)
    series = write_series(tmp_path / "ct", hu, PLAIN)
    for file in series.files:
        edit(file, RescaleSlope=None, RescaleIntercept=None)
    image = write_image(tmp_path / "ct.nii.gz", (hu + 1024).astype(np.int16), PLAIN)
    for path in (tmp_path / "ct", image):
        with pytest.raises(SiteDataError, match="stored values, not HU") as caught:
            check_hounsfield(read_ct_with_findings(path))
        assert caught.value.code == "not-hounsfield"
    check_hounsfield(read_ct_with_findings(write_image(tmp_path / "hu.mha", hu, PLAIN)))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_in_every_format(
    tmp_path: Path, suffix: str, value: float
) -> None:
    hu = phantom_hu(PLAIN).astype(np.float32)
    hu[2:4, 5, 6] = value
    path = write_image(tmp_path / f"ct{suffix}", hu, PLAIN)
    with pytest.raises(SiteDataError, match="2 of 2560 values are not finite"):
        read_ct(path)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16])
def test_finite_values_of_any_type_are_read_from_nifti(tmp_path: Path, kind: type) -> None:
    hu = phantom_hu(PLAIN)
    np.testing.assert_array_equal(
        read_ct(write_image(tmp_path / "ct.nii.gz", hu.astype(kind), PLAIN)).array, hu
    )


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    degrees=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing=st.tuples(st.floats(0.5, 0.9), st.floats(0.5, 0.9), st.floats(0.5, 1.0)),
    diameter=st.floats(6.0, 12.0),
    off=st.tuples(*[st.floats(-2, 2)] * 3),
)
def test_a_sphere_has_its_volume_and_centre_whatever_the_geometry(
    tmp_path_factory: pytest.TempPathFactory,
    degrees: tuple[float, float, float],
    spacing: tuple[float, float, float],
    diameter: float,
    off: tuple[float, float, float],
) -> None:
    folder = tmp_path_factory.mktemp("sphere")
    n = [int(18 / s) + 2 for s in spacing]
    grid = geometry((n[0], n[1], n[2]), spacing, origin=(7, -80, 900), axes=rotation(degrees))
    centre = middle(grid) + np.array(off)
    mask = ball(grid, centre, diameter / 2)
    write_series(folder / "ct", np.where(mask, 40, -850), grid, rng=np.random.default_rng(0))
    written = write_image(folder / "mask.nrrd", mask, grid)
    ct = read_ct(folder / "ct")
    read = crop_mask(read_mask(written, ct), ct.geometry)
    assert nodule_volume_mm3(read) == pytest.approx(mask.sum() * np.prod(spacing), rel=1e-6)
    assert nodule_volume_mm3(read) == pytest.approx(np.pi / 6 * diameter**3, rel=0.08)
    assert np.linalg.norm(nodule_centre_mm(read) - centre) < 0.15
    dense = crop_mask((ct.array > -400).astype(np.uint8), ct.geometry)
    assert nodule_volume_mm3(dense) == nodule_volume_mm3(read)
