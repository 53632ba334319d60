"""The faults of real exports, one by one, built with known voxels."""

from __future__ import annotations

import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from nognet.data.ct.image import read_ct, read_ct_with_findings
from nognet.data.ct.series import examine_series, read_folder
from nognet.errors import SiteDataError
from tests.builders.ct_files import (
    WrittenSeries,
    edit,
    geometry,
    slice_dataset,
    write_image,
    write_series,
)

GRID = geometry((16, 12, 8), (0.8, 0.7, 2.0), origin=(-50.0, 20.0, -300.0))
OUTSIDE = (slice(None), slice(0, 2))


def patient(seed: int = 0) -> np.ndarray:
    """Air, lung and tissue, ``(D, H, W)``."""
    rng = np.random.default_rng(seed)
    hu = rng.integers(-1000, -700, size=GRID.size[::-1])
    hu[:, 4:9, 5:12] = rng.integers(-80, 1500, size=(8, 5, 7))
    return hu


def rewrite(series: WrittenSeries, change: Callable[[Dataset, int], None]) -> None:
    for k, file in enumerate(series.files):
        data = pydicom.dcmread(file)
        change(data, k)
        data.save_as(file)


def stored(data: Dataset) -> np.ndarray:
    return np.frombuffer(data.PixelData, "<i2").astype(np.int32)


def code_of(path: Path, **options: Any) -> str:
    with pytest.raises(SiteDataError) as caught:
        read_ct_with_findings(path, **options)
    return caught.value.code


def codes(path: Path) -> list[str]:
    return [finding.code for finding in read_ct_with_findings(path).findings]


@pytest.mark.parametrize("tagged", [True, False])
def test_tilt_is_refused_with_its_angle_tag_or_not(tmp_path: Path, tagged: bool) -> None:
    series = write_series(tmp_path, patient(), GRID)
    shift = 2.0 * np.tan(np.radians(14.0))

    def tilt(data: Dataset, k: int) -> None:
        x, y, z = data.ImagePositionPatient
        data.ImagePositionPatient = [x, round(float(y) + k * shift, 6), z]
        if tagged:
            data.GantryDetectorTilt = 14

    rewrite(series, tilt)
    with pytest.raises(SiteDataError, match=r"sheared 14\.0 degrees") as caught:
        read_ct(tmp_path)
    assert caught.value.code == "sheared"


def test_tilt_and_changing_thickness_are_both_told_with_the_gaps(tmp_path: Path) -> None:
    series = write_series(tmp_path, patient(), GRID)

    def tilt(data: Dataset, k: int) -> None:
        rise = 2.0 * k if k < 4 else 6.0 + 5.0 * (k - 3)
        y = 20 + rise * np.tan(np.radians(14.0))
        data.ImagePositionPatient = [-50, round(float(y), 6), -300 + rise]

    rewrite(series, tilt)
    [headers] = read_folder(tmp_path).series.values()
    report = examine_series(headers)
    refused = {f.code: f.message for f in report.findings if f.severity == "refused"}
    assert set(refused) == {"sheared", "irregular-spacing"}
    assert "2 mm (3x)" in refused["irregular-spacing"]
    assert "5 mm (4x)" in refused["irregular-spacing"]


def test_a_missing_slice_is_refused_and_counted(tmp_path: Path) -> None:
    write_series(tmp_path, patient(), GRID).files[3].unlink()
    with pytest.raises(SiteDataError, match="1 slice is missing") as caught:
        read_ct(tmp_path)
    assert caught.value.code == "missing-slice"


def test_a_declared_gap_that_contradicts_the_positions_is_told_and_has_no_say(
    tmp_path: Path,
) -> None:
    write_series(tmp_path, patient(), GRID, SpacingBetweenSlices=6.5)
    reading = read_ct_with_findings(tmp_path)
    assert reading.volume.geometry.spacing_mm[2] == pytest.approx(2.0)
    [finding] = reading.findings
    assert finding.code == "irregular-spacing"
    assert "says 6.5 mm" in finding.message
    assert "say 2 mm" in finding.message


def test_jitter_of_positions_passes(tmp_path: Path) -> None:
    series = write_series(tmp_path, patient(), GRID)
    rewrite(series, lambda data, k: setattr(
        data, "ImagePositionPatient", [-50, 20, round(-300 + 2 * k + 0.0007 * (-1) ** k, 4)]
    ))  # fmt: skip
    assert codes(tmp_path) == []


@pytest.mark.parametrize(
    "tags",
    [
        {"ScanOptions": "SCOUT MODE"},
        {"ImageType": ["ORIGINAL", "PRIMARY", "TOPOGRAM"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
    ],
)
def test_localizers_are_left_aside_also_within_the_series(
    tmp_path: Path, tags: dict[str, Any]
) -> None:
    series = write_series(tmp_path / "ct", patient(), GRID)
    scout = slice_dataset(patient()[0], GRID, 0)
    scout.SeriesInstanceUID = series.series_uid
    for tag, value in tags.items():
        setattr(scout, tag, value)
    scout.save_as(tmp_path / "ct" / "scout", enforce_file_format=True)
    reading = read_ct_with_findings(tmp_path)
    np.testing.assert_array_equal(reading.volume.array, patient())
    assert [f.code for f in reading.findings] == ["localizer"]


def test_two_kernels_under_one_uid_are_two_series(tmp_path: Path) -> None:
    soft = write_series(tmp_path / "a", patient(), GRID, ConvolutionKernel="B30f")
    write_series(
        tmp_path / "b", patient(1), GRID, ConvolutionKernel="B70f",
        SeriesInstanceUID=soft.series_uid, FrameOfReferenceUID=soft.frame_of_reference,
    )  # fmt: skip
    contents = read_folder(tmp_path)
    assert set(contents.series) == {soft.series_uid, f"{soft.series_uid}#2"}
    reading = read_ct_with_findings(tmp_path)
    assert reading.kernel == "B30f"
    np.testing.assert_array_equal(reading.volume.array, patient())
    other = read_ct_with_findings(tmp_path, f"{soft.series_uid}#2")
    np.testing.assert_array_equal(other.volume.array, patient(1))


def test_kernels_side_by_side_stay_one_series(tmp_path: Path) -> None:
    series = write_series(tmp_path, patient(), GRID)
    rewrite(series, lambda data, k: setattr(data, "ConvolutionKernel", "AB"[k // 4]))
    assert len(read_folder(tmp_path).series) == 1
    assert codes(tmp_path) == ["mixed-matrix"]


def test_the_series_of_the_mask_the_axial_one_the_thinnest_is_taken(tmp_path: Path) -> None:
    thick_grid = geometry((16, 12, 8), (0.8, 0.7, 5.0), origin=(-50, 20, -300))
    coronal_axes = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    coronal_grid = geometry((16, 12, 8), (0.8, 0.7, 1.0), axes=coronal_axes)
    thick = write_series(tmp_path / "a", patient(), thick_grid)
    thin = write_series(tmp_path / "b", patient(1), GRID)
    write_series(tmp_path / "c", patient(2), coronal_grid)
    assert read_ct_with_findings(tmp_path).series_uid == thin.series_uid
    preferred = read_ct_with_findings(tmp_path, prefer=(thick.series_uid,))
    assert preferred.series_uid == thick.series_uid
    assert any("the mask was drawn on it" in f.message for f in preferred.findings)


def test_series_without_uid_are_told_apart_by_their_folder(tmp_path: Path) -> None:
    for name in "ab":
        write_series(tmp_path / name, patient(), GRID, SeriesInstanceUID="")
    assert [len(headers) for headers in read_folder(tmp_path).series.values()] == [8, 8]
    np.testing.assert_array_equal(read_ct(tmp_path / "b").array, patient())


@pytest.mark.parametrize("value", [-2000, -2048, -3024])
@pytest.mark.parametrize("declared", [True, False])
def test_padding_is_air_and_told_where_it_was_not_declared(
    tmp_path: Path, value: int, declared: bool
) -> None:
    series = write_series(tmp_path, patient(), GRID)

    def pad(data: Dataset, k: int) -> None:
        words = stored(data).reshape(12, 16)
        words[0:2] = value
        data.PixelData = words.astype("<i2").tobytes()
        data.RescaleIntercept = -1024
        if declared:
            data.add_new("PixelPaddingValue", "US" if k % 2 else "SS",
                         value % 65536 if k % 2 else value)  # fmt: skip

    rewrite(series, pad)
    reading = read_ct_with_findings(tmp_path)
    wanted = patient()
    wanted[OUTSIDE] = -1024
    np.testing.assert_array_equal(reading.volume.array, wanted)
    assert [f.code for f in reading.findings] == ([] if declared else ["padding"])


def test_declared_padding_that_lost_its_sign_is_air(tmp_path: Path) -> None:
    series = write_series(tmp_path, patient(), GRID, PixelRepresentation=0)

    def pad(data: Dataset, _: int) -> None:
        words = stored(data).reshape(12, 16)
        words[0:2] = 63536
        data.PixelData = words.astype("<u2").tobytes()
        data.add_new("PixelPaddingValue", "SS", -2000)

    rewrite(series, pad)
    wanted = patient()
    wanted[OUTSIDE] = -1024
    np.testing.assert_array_equal(read_ct(tmp_path).array, wanted)


def test_tissue_stored_with_a_sign_that_the_header_denies_keeps_its_hu(tmp_path: Path) -> None:
    series = write_series(tmp_path, patient(), GRID, PixelRepresentation=0, RescaleIntercept=0)
    rewrite(series, lambda data, _: setattr(
        data, "PixelData", (stored(data) - 1024).astype("<i2").tobytes()
    ))  # fmt: skip
    reading = read_ct_with_findings(tmp_path)
    np.testing.assert_array_equal(reading.volume.array, patient())
    assert [f.code for f in reading.findings] == ["unsigned-padding"]


def test_padding_wider_than_the_stored_bits_does_not_become_bone(tmp_path: Path) -> None:
    series = write_series(tmp_path, np.minimum(patient(), 900), GRID, BitsStored=12, HighBit=11)

    def pad(data: Dataset, _: int) -> None:
        words = stored(data).reshape(12, 16)
        words[0:2] = -3024
        data.PixelData = words.astype("<i2").tobytes()

    rewrite(series, pad)
    assert (read_ct(tmp_path).array[OUTSIDE] == -1024).all()


def test_monochrome1_is_told_and_changes_no_hu(tmp_path: Path) -> None:
    write_series(tmp_path, patient(), GRID, PhotometricInterpretation="MONOCHROME1")
    reading = read_ct_with_findings(tmp_path)
    np.testing.assert_array_equal(reading.volume.array, patient())
    assert "MONOCHROME1" in reading.findings[0].message


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless,
     JPEGLSLossless],
)  # fmt: skip
@pytest.mark.parametrize("slope", [1, 2, 0.5])
def test_every_syntax_gives_the_same_hu(tmp_path: Path, syntax: Any, slope: float) -> None:
    series = write_series(tmp_path, patient(), GRID, RescaleSlope=slope)
    wanted = (patient() + 1024) * slope - 1024

    def recode(data: Dataset, _: int) -> None:
        if syntax in (RLELossless, JPEGLSLossless):
            data.compress(syntax, generate_instance_uid=False)
            return
        data.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            data.PixelData = np.frombuffer(data.PixelData, "<i2").astype(">i2").tobytes()

    for file in series.files:
        data = pydicom.dcmread(file)
        recode(data, 0)
        big = syntax == ExplicitVRBigEndian
        pydicom.dcmwrite(file, data, implicit_vr=None if not big else False,
                         little_endian=None if not big else False)  # fmt: skip
    np.testing.assert_array_equal(read_ct(tmp_path).array, wanted)


def test_air_that_is_missing_is_told_and_missing_rescale_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "soft", np.full((8, 12, 16), 40), GRID)
    assert codes(tmp_path / "soft") == ["not-hounsfield"]
    stored_values = write_series(tmp_path / "raw", patient(), GRID, RescaleIntercept=0)
    assert code_of(tmp_path / "raw") == "not-hounsfield"
    for file in stored_values.files:
        edit(file, RescaleIntercept=None)
    assert code_of(tmp_path / "raw") == "bad-tags"  # slope without intercept


def test_contrast_and_patient_are_kept_as_facts_not_as_text(tmp_path: Path) -> None:
    for value, wanted in (("Iomeron", True), ("", None), (None, False), ("NONE", False)):
        tags = {} if value is None else {"ContrastBolusAgent": value}
        folder = tmp_path / f"agent {value}"
        write_series(folder, patient(), GRID, **tags)
        reading = read_ct_with_findings(folder)
        assert reading.contrast is wanted
        assert len(reading.patient_digest) == 64
        assert "SECRET" not in repr(reading)


def test_an_archive_in_a_folder_is_left_closed(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", patient(), GRID)
    (tmp_path / "more.zip").write_bytes(b"PK\x03\x04" + bytes(200))
    np.testing.assert_array_equal(read_ct(tmp_path).array, patient())
    [(_, finding)] = read_folder(tmp_path).left_aside
    assert (finding.code, finding.severity) == ("not-dicom", "skipped")
    assert "an archive (ZIP)" in finding.message


def test_more_pixels_than_rows_and_columns_tell_are_refused(tmp_path: Path) -> None:
    series = write_series(tmp_path, patient(), GRID)
    rewrite(series, lambda data, _: setattr(data, "Rows", 11))
    assert code_of(tmp_path) == "wrong-length"


def test_too_many_voxels_are_refused_in_every_format(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", patient(), GRID)
    assert code_of(tmp_path / "ct", max_voxels=1535) == "too-large"
    assert read_ct(tmp_path / "ct", max_voxels=1536).array.size == 1536
    for suffix in (".nii.gz", ".nrrd", ".mha"):
        path = write_image(tmp_path / f"ct{suffix}", patient().astype(np.int16), GRID)
        assert code_of(path, max_voxels=1535) == "too-large"
        assert read_ct(path, max_voxels=1536).array.size == 1536


def peak_mib(path: Path) -> tuple[str, float]:
    """Read a path in a process of its own: what came of it, and the growth of its memory."""
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from nognet.data.ct.image import read_ct\n"
        "from nognet.errors import NognetError\n"
        "from nognet.memory import largest_resident_bytes as peak\n"
        "before = peak()\n"
        "try:\n"
        "    read_ct(Path(sys.argv[1])); code = 'read'\n"
        "except NognetError as err:\n"
        "    code = err.code\n"
        "print(code, (peak() - before) / 2**20)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    code, grown = done.stdout.split()
    return code, float(grown)


def deflated_bomb(path: Path) -> None:
    series = write_series(path.parent, patient()[:1], GRID)
    data = pydicom.dcmread(series.files[0])
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(path)
    series.files[0].unlink()
    raw = path.read_bytes()
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = b"".join([packer.compress(bytes(1 << 20)) for _ in range(400)] + [packer.flush()])
    start = raw.index(b"1.2.840.10008.1.2.1.99")
    end = raw.index(b"PYDICOM", start) + 14
    path.write_bytes(raw[:end] + zeros)


def private_giant(path: Path) -> None:
    series = write_series(path.parent, patient()[:1], GRID)
    data = pydicom.dcmread(series.files[0])
    data.add_new(0x00091001, "OB", b"\0" * 100)
    data.save_as(path)
    series.files[0].unlink()
    raw = path.read_bytes()
    at = raw.index(b"\x09\x00\x01\x10OB\0\0") + 8
    with path.open("wb") as file:
        file.write(raw[:at] + (600 * 2**20).to_bytes(4, "little"))
        file.seek(600 * 2**20, 1)
        file.write(raw[at + 104 :])


def wide_header(path: Path) -> None:
    write_series(path.parent, patient(), GRID, Rows=60000, Columns=60000)


@pytest.mark.parametrize(
    ("build", "wanted", "most_mib"),
    [(private_giant, "single-slice", 150), (wide_header, "too-large", 150),
     (deflated_bomb, "too-large", 700)],
)  # fmt: skip
def test_memory_is_bounded_on_files_like_bombs(
    tmp_path: Path, build: Callable[[Path], None], wanted: str, most_mib: float
) -> None:
    build(tmp_path / "bomb")
    code, grown = peak_mib(tmp_path)
    assert code == wanted
    assert grown < most_mib
