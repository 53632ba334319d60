"""Real files (see SOURCES.md beside them): what comes in right, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from nognet.data.ct.image import read_ct, read_ct_with_findings
from nognet.data.masks.reading import MaskSource, read_mask, read_mask_with_findings
from nognet.errors import NognetError

pytestmark = pytest.mark.real_data

DEFAULT = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture(scope="module")
def root() -> Path:
    folder = Path(os.environ.get("NOGNET_REAL_DATA", DEFAULT))
    if not (folder / "SOURCES.md").is_file():
        pytest.skip(f"no real data at {folder}; set NOGNET_REAL_DATA to their folder")
    return folder


LUNG_4D = "4dlung_rtstruct/1.000000-P4P113S303I10349 Gated 40.0B-29543"
LUNG_4D_CONTOURS = "4dlung_rtstruct/1.000000-P4P113S303I10349 Gated 40.0B-47.35/1-1.dcm"


@pytest.mark.parametrize(
    ("structure", "volume_mm3"),
    [("LN_c40", 6406.3), ("Vertebra_c40", 9865.6), ("Carina_c40", 486.4)],
)
def test_structures_of_4d_lung_have_their_volumes(
    root: Path, structure: str, volume_mm3: float
) -> None:
    ct = read_ct_with_findings(root / LUNG_4D)
    reading = read_mask_with_findings(root / LUNG_4D_CONTOURS, MaskSource.of(ct), structure)
    found = reading.mask.sum() * ct.volume.geometry.voxel_volume_mm3
    # one voxel centre of LN_c40 lies exactly on an edge: 2.9 mm3 either way
    assert found == pytest.approx(volume_mm3, rel=1e-3)
    assert reading.findings == ()


@pytest.mark.parametrize(
    ("place", "size", "spacing_mm", "range_hu", "codes"),
    [
        (LUNG_4D, (512, 512, 18), (0.9766, 0.9766, 3), (-1000, 1356), set()),
        ("totalsegmentator_dicom/example_ct_dicom", (512, 512, 20), (0.9766, 0.9766, 2),
         (-1024, 1839), {"empty-uids"}),
        ("cip_ct64/ct-64Dicom", (64, 64, 79), (4.172, 4.172, 3.987), (-1007, 1095), set()),
        ("elastix_lung_pair/Baselines/3DCT_lung.mha", (115, 157, 129), (1.366, 1.366, 2.5),
         (-1024, 1474), {"padding"}),
        ("lesionsizing_partsolid/PartSolidLesionCropped.mha", (97, 101, 59),
         (0.7012, 0.7012, 1.25), (-1024, 1513), set()),
        ("totalsegmentator_nifti/example_ct_sm.nii.gz", (122, 101, 30), (3, 3, 3),
         (-1024, 1207), {"padding"}),
        ("rtutils_oblique/oriented_data", (100, 50, 3), (2.5, 3.5, 4.5), (-10, 9.999),
         {"missing-tags", "oblique", "not-hounsfield"}),
        ("dcmqi_small/24x38x3/multiframe/mf.dcm", (24, 38, 3), (0.7, 0.7, 2.5), (0, 1),
         {"not-hounsfield"}),
    ],
)  # fmt: skip
def test_clean_series_come_in_with_their_geometry_and_hu(
    root: Path,
    place: str,
    size: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    range_hu: tuple[float, float],
    codes: set[str],
) -> None:
    reading = read_ct_with_findings(root / place)
    assert reading.volume.geometry.size == size
    np.testing.assert_allclose(reading.volume.geometry.spacing_mm, spacing_mm, rtol=2e-4)
    found = (reading.volume.array.min(), reading.volume.array.max())
    np.testing.assert_allclose(found, range_hu, atol=1e-3)
    assert {f.code for f in reading.findings} == codes


@pytest.mark.parametrize(
    ("place", "code", "words"),
    [
        ("dicom2nifti_gantrytilt", "sheared", "slices are sheared 14.0 degrees"),
        ("dicom2nifti_slopes", "not-ct", "not CT: MR"),
        ("codecs_ge_chest", "eight-bit", "duplicate position"),
        ("rtutils_oblique/one_slice_data", "single-slice", "1 slice is no volume"),
        ("highdicom_seg/sr_document.dcm", "not-ct", "not CT: SR"),
        ("broken_files/no_meta.dcm", "not-dicom", "not a DICOM file"),
    ],
)
def test_what_can_not_be_trusted_is_refused(root: Path, place: str, code: str, words: str) -> None:
    with pytest.raises(NognetError, match=words) as caught:
        read_ct(root / place)
    assert caught.value.code == code


def test_the_dicom_series_of_cip_equals_its_nrrd(root: Path) -> None:
    series, nrrd = (read_ct(root / "cip_ct64" / name) for name in ("ct-64Dicom", "ct-64.nrrd"))
    np.testing.assert_array_equal(series.array, nrrd.array)
    np.testing.assert_allclose(series.geometry.origin_mm, nrrd.geometry.origin_mm, atol=1e-3)
    np.testing.assert_allclose(series.geometry.spacing_mm, nrrd.geometry.spacing_mm, atol=1e-3)


def test_a_flipped_label_map_lands_on_its_organs(root: Path) -> None:
    ct = read_ct(root / "totalsegmentator_dicom/example_ct_dicom")
    path = root / "totalsegmentator_dicom/example_seg_dicom.nii.gz"
    liver = read_mask(path, ct, "5")
    assert 40 < np.median(ct.array[liver > 0]) < 160
    spine = read_mask(path, ct, "32")
    assert np.median(ct.array[spine > 0]) > 100


@pytest.mark.parametrize(
    ("ct", "mask", "segment", "code"),
    [
        (LUNG_4D, LUNG_4D_CONTOURS, "Tumor_c40", "mask-incomplete"),
        (LUNG_4D, LUNG_4D_CONTOURS, None, "mask-segment"),
        ("lesionsizing_partsolid/PartSolidLesionCropped.mha",
         "lesionsizing_partsolid/PartSolidLesionCroppedManualInitialization1.mha",
         None, "mask-not-binary"),
        ("lesionsizing_partsolid/PartSolidLesionCropped.mha",
         "lesionsizing_partsolid/PartSolidLesionCroppedManualInitialization1.mha",
         "255", "mask-not-binary"),
        ("elastix_lung_pair/Baselines/3DCT_lung.mha",
         "elastix_lung_pair/Data/3DCT_lung_followup_mask.mha", None, "mask-geometry"),
    ],
)  # fmt: skip
def test_masks_that_do_not_fit_are_refused(
    root: Path, ct: str, mask: str, segment: str | None, code: str
) -> None:
    source = MaskSource.of(read_ct_with_findings(root / ct))
    with pytest.raises(NognetError) as caught:
        read_mask_with_findings(root / mask, source, segment)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("mask", "volume_mm3"),
    [
        ("24x38x3/seg/label.seg", 385.875),
        ("24x38x3/nrrd/label.nrrd", 385.875),
        ("sparse-labelmap-noppv.dcm", 771.75),
        ("sparse-labelmap-ppv5.dcm", 771.75),
    ],
)
def test_seg_label_map_and_nrrd_have_their_volumes(
    root: Path, mask: str, volume_mm3: float
) -> None:
    ct = read_ct(root / "dcmqi_small/24x38x3/image")
    found = read_mask(root / "dcmqi_small" / mask, ct)
    assert found.sum() * ct.geometry.voxel_volume_mm3 == pytest.approx(volume_mm3, rel=1e-4)
