"""Real masks (see SOURCES.md beside them): the row of each, and its nodules."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nognet.config import PreparationConfig
from nognet.data.ct.image import read_ct_with_findings
from nognet.data.masks.inspect import examine_mask
from nognet.data.masks.nodules import read_nodules
from nognet.data.masks.source import MaskSource
from nognet.data.pairs.roi import nodule_volume_mm3

pytestmark = pytest.mark.real_data

DEFAULT = Path(__file__).resolve().parents[2].parent / "shared" / "data"
LUNG_4D = "4dlung_rtstruct/1.000000-P4P113S303I10349 Gated 40.0B-29543"
LUNG_4D_CONTOURS = "4dlung_rtstruct/1.000000-P4P113S303I10349 Gated 40.0B-47.35/1-1.dcm"
PART_SOLID = "lesionsizing_partsolid/PartSolidLesionCropped"


@pytest.fixture(scope="module")
def root() -> Path:
    folder = Path(os.environ.get("NOGNET_REAL_DATA", DEFAULT))
    if not (folder / "SOURCES.md").is_file():
        pytest.skip(f"no real data at {folder}; set NOGNET_REAL_DATA to their folder")
    return folder


@pytest.mark.parametrize(
    ("ct", "mask", "status", "codes"),
    [
        (LUNG_4D, LUNG_4D_CONTOURS, "warning", {"mask-incomplete"}),
        (f"{PART_SOLID}.mha", f"{PART_SOLID}ManualInitialization1.mha", "refused",
         {"mask-not-binary", "mask-geometry"}),
        ("totalsegmentator_dicom/example_ct_dicom",
         "totalsegmentator_dicom/example_seg_dicom.nii.gz", "ok", set()),
        ("totalsegmentator_nifti/example_ct_sm.nii.gz", "totalsegmentator_nifti/example_seg.nii.gz",
         "ok", set()),
        ("cip_ct64/ct-64Dicom", "cip_ct64/lm-64.nrrd", "warning",
         {"mask-incomplete"}),
        ("elastix_lung_pair/Baselines/3DCT_lung.mha",
         "elastix_lung_pair/Data/3DCT_lung_baseline_mask.mha", "ok", set()),
        ("elastix_lung_pair/Baselines/3DCT_lung.mha",
         "elastix_lung_pair/Data/3DCT_lung_followup_mask.mha", "refused", {"mask-geometry"}),
    ],
)  # fmt: skip
def test_the_row_of_each_mask(root: Path, ct: str, mask: str, status: str, codes: set[str]) -> None:
    source = MaskSource.of(read_ct_with_findings(root / ct))
    row = examine_mask(root / mask, [source])
    assert (row.status, set(row.codes)) == (status, codes)


def test_structures_are_nodules_and_the_truncated_one_is_told(root: Path) -> None:
    source = MaskSource.of(read_ct_with_findings(root / LUNG_4D))
    found = read_nodules(root / LUNG_4D_CONTOURS, source, None, limits=PreparationConfig())
    volumes = {n.label: round(nodule_volume_mm3(n.mask), 1) for n in found.nodules}
    assert volumes["Carina_c40"] == 486.4
    assert volumes["LN_c40"] + volumes["LN_c40.2"] == pytest.approx(6406.3, rel=1e-3)
    assert "22 of 28 contours have no slice: volume incomplete" in found.findings[0].message
