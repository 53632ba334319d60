"""Series as other scanners and exporters write them: what must pass, and what must not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid

from nognet.data.ct.folder import read_folder
from nognet.data.ct.image import read_ct, read_ct_with_findings
from nognet.data.ct.series import SeriesReport, examine_series
from nognet.errors import SiteDataError
from tests.builders.ct_files import WrittenSeries, geometry, write_series

N_SLICES = 12
GRID = geometry((16, 12, N_SLICES), (0.7, 0.7, 1.0), origin=(-50.0, -40.0, -300.0))


def patient() -> np.ndarray:
    rng = np.random.default_rng(7)
    hu = rng.normal(-850, 15, (N_SLICES, 12, 16))
    hu[:, :, 8:] = rng.normal(40, 15, (N_SLICES, 12, 8))
    return np.rint(hu).astype(int)


def rewrite(series: WrittenSeries, change: Callable[[Dataset, int], None]) -> None:
    for k, file in enumerate(series.files):
        data = pydicom.dcmread(file)
        change(data, k)
        data.save_as(file)


def at_heights(folder: Path, heights_mm: np.ndarray | list[float]) -> WrittenSeries:
    series = write_series(folder, patient()[: len(heights_mm)], GRID)
    for file in series.files[len(heights_mm) :]:
        file.unlink()
    rewrite(series, lambda data, k: setattr(
        data, "ImagePositionPatient", [-50, -40, round(float(heights_mm[k]), 4)]
    ))  # fmt: skip
    return series


def report_on(folder: Path) -> SeriesReport:
    [headers] = read_folder(folder).series.values()
    return examine_series(headers)


def codes_of(folder: Path) -> list[str]:
    return [finding.code for finding in read_ct_with_findings(folder).findings]


def refusal_of(folder: Path) -> str:
    with pytest.raises(SiteDataError) as caught:
        read_ct(folder)
    return caught.value.code


def store(series: WrittenSeries, words: np.ndarray, **tags: Any) -> None:
    def change(data: Dataset, k: int) -> None:
        data.PixelData = (words[k] & 0xFFFF).astype("<u2").tobytes()
        for tag, value in tags.items():
            setattr(data, tag, value)

    rewrite(series, change)


@pytest.mark.parametrize(
    "heights",
    [np.round(np.arange(12) * 0.625, 1), np.arange(12) * 0.5 + 0.02 * (-1.0) ** np.arange(12)],
    ids=["rounded to 0.1 mm", "jitter of 0.02 mm at 0.5 mm"],
)
def test_gaps_that_move_no_slice_by_a_tenth_of_a_millimetre_pass(
    tmp_path: Path, heights: np.ndarray
) -> None:
    at_heights(tmp_path, heights)
    reading = read_ct_with_findings(tmp_path)
    assert not reading.findings
    usual = (heights[-1] - heights[0]) / 11
    assert reading.volume.geometry.spacing_mm[2] == pytest.approx(usual)


@pytest.mark.parametrize("wide", [2.5, 3.75])
def test_spacing_that_changes_halfway_is_irregular_and_not_only_a_missing_slice(
    tmp_path: Path, wide: float
) -> None:
    heights = [*np.arange(5) * 1.25, *(5.0 + wide * np.arange(1, 5))]
    at_heights(tmp_path, heights)
    report = report_on(tmp_path)
    assert [f.code for f in report.findings] == ["missing-slice", "irregular-spacing"]
    assert f"{wide:g} mm (4x)" in report.findings[1].message


def test_single_missing_slices_are_no_change_of_spacing(tmp_path: Path) -> None:
    at_heights(tmp_path, [0, 1, 2, 4, 5, 6, 8, 9, 10])
    assert [f.code for f in report_on(tmp_path).findings] == ["missing-slice"]


def test_slices_a_hair_apart_are_no_sign_of_hundreds_of_missing_ones(tmp_path: Path) -> None:
    at_heights(tmp_path, [0, 0.02, 1, 1.02, 2, 2.02, 3, 3.02])
    assert [f.code for f in report_on(tmp_path).findings] == ["irregular-spacing"]


def test_two_acquisitions_under_one_uid_are_not_woven_into_one(tmp_path: Path) -> None:
    first = write_series(tmp_path / "a", patient(), GRID, AcquisitionNumber=1)
    between = geometry(GRID.size, GRID.spacing_mm, origin=(-50.0, -40.0, -299.5))
    write_series(
        tmp_path / "b", patient(), between, AcquisitionNumber=2,
        SeriesInstanceUID=first.series_uid, StudyInstanceUID="1.2", PatientID="x",
    )  # fmt: skip

    def same_study(data: Dataset, _: int) -> None:
        data.PatientID, data.StudyInstanceUID = "x", UID("1.2")

    rewrite(first, same_study)
    assert [len(headers) for headers in read_folder(tmp_path).series.values()] == [12, 12]
    reading = read_ct_with_findings(tmp_path)
    assert "several-series" in [f.code for f in reading.findings]
    np.testing.assert_array_equal(reading.volume.array, patient())


def test_rotations_that_follow_each_other_stay_one_series(tmp_path: Path) -> None:
    series = write_series(tmp_path, patient(), GRID)
    rewrite(series, lambda data, k: setattr(data, "AcquisitionNumber", 1 + k // 4))
    assert codes_of(tmp_path) == []


def test_a_tilt_that_only_the_tag_tells_of_is_warned_of(tmp_path: Path) -> None:
    write_series(tmp_path, patient(), GRID, GantryDetectorTilt=15)
    [finding] = read_ct_with_findings(tmp_path).findings
    assert (finding.code, finding.severity) == ("sheared", "warning")
    assert "15 degrees" in finding.message


@pytest.mark.parametrize("bits", [12, 13, 14, 15])
@pytest.mark.parametrize("declared", [True, False])
def test_negative_padding_in_unsigned_words_is_air_and_told(
    tmp_path: Path, bits: int, declared: bool
) -> None:
    series = write_series(tmp_path, patient(), GRID)
    words = patient() + 1024
    words[:, 0:2] = 63536
    store(series, words, BitsStored=bits, HighBit=bits - 1, PixelRepresentation=0,
          RescaleIntercept=-1024)  # fmt: skip
    if declared:
        rewrite(series, lambda data, _: data.add_new("PixelPaddingValue", "US", 63536))
    wanted = patient()
    wanted[:, 0:2] = -1024
    reading = read_ct_with_findings(tmp_path)
    np.testing.assert_array_equal(reading.volume.array, wanted)
    [finding] = reading.findings
    assert finding.code == "unsigned-padding"
    assert finding.message.startswith(f"{12 * 2 * 16} voxels of padding")


def test_signed_values_of_twelve_bits_keep_their_hu_though_the_header_denies_the_sign(
    tmp_path: Path,
) -> None:
    series = write_series(tmp_path, patient(), GRID)
    store(series, patient(), BitsStored=12, HighBit=11, PixelRepresentation=0, RescaleIntercept=0)
    reading = read_ct_with_findings(tmp_path)
    np.testing.assert_array_equal(reading.volume.array, patient())
    assert [f.code for f in reading.findings] == ["unsigned-padding"]


def test_a_picture_in_sixteen_bits_is_no_ct(tmp_path: Path) -> None:
    series = write_series(tmp_path, patient(), GRID)
    grey = np.clip(np.rint((patient() + 900) / 1000 * 255), 0, 255).astype(int)
    store(series, grey, RescaleIntercept=0, RescaleSlope=1)
    assert refusal_of(tmp_path) == "eight-bit"


def test_a_ratio_of_lossy_compression_counts_where_the_flag_was_removed(tmp_path: Path) -> None:
    write_series(tmp_path, patient(), GRID, LossyImageCompressionRatio=12.5)
    assert refusal_of(tmp_path) == "lossy"


def test_slabs_of_highest_values_are_warned_of(tmp_path: Path) -> None:
    write_series(tmp_path, patient(), GRID, ImageType=["DERIVED", "SECONDARY", "AXIAL", "MIP"])
    assert codes_of(tmp_path) == ["not-hounsfield"]


def test_emptied_uids_that_share_one_file_meta_uid_are_no_duplicates(tmp_path: Path) -> None:
    series = write_series(tmp_path, patient(), GRID, SOPInstanceUID="", SeriesInstanceUID="")

    def same(data: Dataset, _: int) -> None:
        data.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")

    rewrite(series, same)
    reading = read_ct_with_findings(tmp_path)
    np.testing.assert_array_equal(reading.volume.array, patient())
    assert {f.code for f in reading.findings} == {"empty-uids"}


@pytest.mark.parametrize("with_meta", [True, False])
def test_old_files_without_preamble_are_read(tmp_path: Path, with_meta: bool) -> None:
    series = write_series(tmp_path, patient(), GRID)
    for file in series.files:
        if with_meta:
            file.write_bytes(file.read_bytes()[132:])
        else:
            data = pydicom.dcmread(file)
            del data.file_meta
            data.save_as(file, implicit_vr=True, little_endian=True, enforce_file_format=False)
    np.testing.assert_array_equal(read_ct(tmp_path).array, patient())


def test_a_dicom_object_that_is_no_image_spoils_no_series_beside_it(tmp_path: Path) -> None:
    series = write_series(tmp_path, patient(), GRID)
    data = pydicom.dcmread(series.files[0])
    palette = UID("1.2.840.10008.5.1.4.39.1")
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = palette
    for name in ("Modality", "PixelData", "Rows", "Columns", "SeriesInstanceUID"):
        delattr(data, name)
    data.save_as(tmp_path / "palette")
    np.testing.assert_array_equal(read_ct(tmp_path).array, patient())


@pytest.mark.parametrize(
    "image_type", [["DERIVED", "SECONDARY", "SCREEN SAVE"], ["DERIVED", "PRIMARY", "DOSE_INFO"]]
)
def test_pages_of_text_are_left_aside_also_as_ct_images(
    tmp_path: Path, image_type: list[str]
) -> None:
    series = write_series(tmp_path, patient(), GRID)
    data = pydicom.dcmread(series.files[0])
    data.ImageType, data.SOPInstanceUID = image_type, generate_uid()
    data.SeriesInstanceUID = generate_uid()
    data.save_as(tmp_path / "page")
    np.testing.assert_array_equal(read_ct(tmp_path).array, patient())
    assert codes_of(tmp_path) == []


def test_one_fault_in_many_files_is_told_once_and_counted(tmp_path: Path) -> None:
    series = write_series(tmp_path, patient(), GRID)
    for file in series.files:
        file.write_bytes(file.read_bytes()[:-100])
    messages = [f.message for f in report_on(tmp_path).findings if f.code == "truncated"]
    assert len(messages) == 4
    assert messages[-1] == "9 more files likewise: the file ends before its image does"


def test_a_file_that_claims_billions_of_frames_is_too_large(tmp_path: Path) -> None:
    write_series(tmp_path, patient()[:1], GRID, NumberOfFrames=2_000_000_000)
    assert "too-large" in [f.code for f in report_on(tmp_path).findings]
