"""`nognet inspect` on all real files: each row as it was checked by hand against SOURCES.md."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from nognet.data.inspect_tree import inspect
from nognet.data.inspection import Inspected

pytestmark = pytest.mark.real_data

DEFAULT = Path(__file__).resolve().parents[2].parent / "shared" / "data"
GOLDEN = Path(__file__).with_name("golden_inspect.json")


@pytest.fixture(scope="module")
def root() -> Path:
    folder = Path(os.environ.get("NOGNET_REAL_DATA", DEFAULT))
    if not (folder / "SOURCES.md").is_file():
        pytest.skip(f"no real data at {folder}; set NOGNET_REAL_DATA to their folder")
    return folder


@pytest.fixture(scope="module")
def rows(root: Path) -> dict[str, Inspected]:
    found = inspect(root)
    by_path = {row.path.removeprefix(f"{root}/"): row for row in found}
    assert len(by_path) == len(found)
    return by_path


def test_every_row_is_the_stored_one(
    rows: dict[str, Inspected], request: pytest.FixtureRequest
) -> None:
    found: list[dict[str, Any]] = [
        {"path": path, "kind": row.kind, "status": row.status, "codes": sorted(row.codes)}
        for path, row in rows.items()
    ]
    if request.config.getoption("--regenerate-golden"):
        lines = ",\n".join(json.dumps(row) for row in found)
        GOLDEN.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    assert found == json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("dicom2nifti_gantrytilt/gantrytilting/001", "slices are sheared 14.0 degrees"),
        ("4dlung_rtstruct/1.000000-P4P113S303I10349 Gated 40.0B-47.35/1-1.dcm",
         "'Tumor_c40': 22 of 28 contours have no slice: volume incomplete"),
        ("codecs_ge_chest", "duplicate position"),
        ("codecs_ge_chest", "not usable for HU: 8 bits a pixel"),
        ("lesionsizing_partsolid/PartSolidLesionCroppedManualInitialization1.mha",
         "their directions differ"),
        ("highdicom_seg/seg_image_ct_binary.dcm", "is not among the CTs below the path"),
        ("totalsegmentator_dicom/example_ct_dicom", "slices are 3 mm thick and 2 mm apart"),
    ],
)  # fmt: skip
def test_messages_have_the_figures_of_the_sources(
    rows: dict[str, Inspected], path: str, words: str
) -> None:
    assert words in rows[path].message


@pytest.mark.parametrize(
    ("path", "size", "spacing_mm", "hu_range"),
    [
        ("4dlung_rtstruct/1.000000-P4P113S303I10349 Gated 40.0B-29543", (512, 512, 18),
         (0.9766, 0.9766, 3), (-1000, 1356)),
        ("totalsegmentator_dicom/example_ct_dicom", (512, 512, 20), (0.9766, 0.9766, 2),
         (-1024, 1839)),
        ("cip_ct64/ct-64Dicom", (64, 64, 79), (4.172, 4.172, 3.987), (-1007, 1095)),
        ("rtutils_oblique/oriented_data", (100, 50, 3), (2.5, 3.5, 4.5), (-10, 9.999)),
        ("dcmqi_small/24x38x3/multiframe/mf.dcm", (24, 38, 3), (0.7, 0.7, 2.5), (0, 1)),
        ("lesionsizing_partsolid/PartSolidLesionCropped.mha", (97, 101, 59),
         (0.7012, 0.7012, 1.25), (-1024, 1513)),
    ],
)  # fmt: skip
def test_rows_have_the_facts_of_the_sources(
    rows: dict[str, Inspected],
    path: str,
    size: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    hu_range: tuple[float, float],
) -> None:
    row = rows[path]
    assert (row.size, row.orientation) == (size, "axial")
    assert row.spacing_mm == pytest.approx(spacing_mm, rel=2e-4)
    assert row.hu_range == pytest.approx(hu_range, abs=1e-3)


def test_a_folder_alone_gives_the_rows_it_has_in_the_whole(
    root: Path, rows: dict[str, Inspected]
) -> None:
    for name in ("codecs_ge_chest", "dcmqi_small", "rtutils_oblique", "totalsegmentator_nifti"):
        alone = {row.path.removeprefix(f"{root}/"): row.codes for row in inspect(root / name)}
        assert alone == {p: row.codes for p, row in rows.items() if p.startswith(f"{name}")}
