from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nognet.config import PreparationConfig
from nognet.data.ct.image import read_ct_with_findings
from nognet.data.inspect_tree import examine_ct, inspect
from nognet.data.inspection import Inspected
from nognet.data.masks.nodules import read_nodules
from nognet.data.masks.source import MaskSource
from nognet.errors import NognetError, SiteDataError
from tests.builders.ct_files import edit, geometry, rotation, write_image, write_seg, write_series
from tests.builders.inspect_cases import (
    CASES,
    GRID,
    MASK,
    Case,
    hu,
    magnetic_resonance,
    masks_that_fit,
    mixed_export,
    series,
    sheared,
    zipped,
)

LIMITS = PreparationConfig(max_unpacked_bytes=2_000_000, min_nodule_volume_mm3=1.0)
named = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def below(folder: Path, rows: list[Inspected]) -> dict[str, Inspected]:
    """Rows by their path below the folder; each path once."""
    by_path = {row.path.removeprefix(f"{folder}/"): row for row in rows}
    assert len(by_path) == len(rows)
    return by_path


@named
def test_each_case_has_its_rows(tmp_path: Path, case: Case) -> None:
    case.build(tmp_path)
    rows = below(tmp_path, inspect(tmp_path, limits=LIMITS))
    found = {path: (row.kind, row.status, set(row.codes)) for path, row in rows.items()}
    assert found == case.expected


@named
def test_what_is_refused_can_not_be_read_and_what_is_not_can(tmp_path: Path, case: Case) -> None:
    case.build(tmp_path)
    rows = inspect(tmp_path, limits=LIMITS)
    sources = []
    for row in rows:
        if row.kind == "ct" and "!" not in row.path:
            assert (row.status == "refused") == (not_readable(row)), row
            again = examine_ct(Path(row.path), row.series_uid or None, limits=LIMITS)
            assert (again.row.status, set(again.row.codes)) == (row.status, set(row.codes))
            if again.reading:
                sources.append(MaskSource.of(again.require()))
    for row in rows:
        if row.kind == "mask" and "!" not in row.path and sources:
            assert (row.status == "refused") == mask_not_readable(row, sources[0]), row


def not_readable(row: Inspected) -> bool:
    try:
        read_ct_with_findings(Path(row.path), row.series_uid or None)
    except NognetError:
        return True
    return False


def mask_not_readable(row: Inspected, source: MaskSource) -> bool:
    try:
        read_nodules(Path(row.path), source, None, limits=LIMITS)
    except NognetError:
        return True
    return False


def test_a_row_says_what_the_ct_is(tmp_path: Path) -> None:
    turned = geometry((16, 14, 8), (0.8, 0.7, 2.0), axes=rotation((90.0, 0.0, 0.0)))
    values = hu(3)
    written = write_series(tmp_path / "ct", values, turned, rng=np.random.default_rng(0))
    (row,) = inspect(tmp_path)
    assert (row.kind, row.modality, row.series_uid) == ("ct", "CT", written.series_uid)
    assert (row.slices, row.size, row.orientation) == (8, (16, 14, 8), "coronal")
    assert row.spacing_mm == pytest.approx((0.8, 0.7, 2.0))
    assert row.kernel == "B30f"
    assert row.hu_range == (values.min(), values.max())


def test_messages_have_the_figures(tmp_path: Path) -> None:
    sheared(tmp_path)
    (row,) = inspect(tmp_path)
    assert "slices are sheared 14.0 degrees" in row.message
    assert row.as_json()["code"] == "sheared"


def test_nothing_at_the_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SiteDataError, match="no such file or folder") as caught:
        inspect(tmp_path / "nowhere")
    assert caught.value.code == "missing-file"


@pytest.mark.parametrize("name", ["export.zip", "export"])
def test_an_archive_is_known_by_its_content_and_may_be_the_path_itself(
    tmp_path: Path, name: str
) -> None:
    zipped(tmp_path)
    path = (tmp_path / "export.zip").rename(tmp_path / name)
    rows = {row.path.removeprefix(f"{path}!"): row.status for row in inspect(path)}
    assert rows == {"study/CT": "ok", "study/SEG/1": "ok", "study/readme.txt": "skipped"}


def test_messages_on_an_archive_name_its_entries(tmp_path: Path) -> None:
    written = series(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number, file in enumerate(written.files):
            archive.writestr(f"ct/slice{number}", file.read_bytes()[: -40 if number == 3 else None])
    (row,) = inspect(tmp_path / "a.zip")
    assert row.codes == ("truncated",)
    assert row.message == "slice3: the file ends before its image does"


def test_hidden_files_and_indices_in_an_archive_are_left_aside_as_in_a_folder(
    tmp_path: Path,
) -> None:
    written = series(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("ct/._slice0", b"\0\5\x16\7" + bytes(60))
        archive.writestr("ct/DICOMDIR", b"x")
        for number, file in enumerate(written.files):
            archive.writestr(f"ct/slice{number}", file.read_bytes())
    rows = {row.path.rpartition("!")[2]: row.status for row in inspect(tmp_path / "a.zip")}
    assert rows == {"ct": "ok", "ct/._slice0": "skipped", "ct/DICOMDIR": "skipped"}


def test_an_empty_archive_has_a_row(tmp_path: Path) -> None:
    zipfile.ZipFile(tmp_path / "a.zip", "w").close()
    (row,) = inspect(tmp_path)
    assert (row.kind, row.status, row.codes) == ("archive", "skipped", ("no-series",))


def test_two_reconstructions_under_one_uid_tell_of_each_other(tmp_path: Path) -> None:
    series(tmp_path / "a", SeriesInstanceUID="1.2.3", StudyInstanceUID="1.2", PatientID="x")
    soft = {"ConvolutionKernel": "SOFT", "StudyInstanceUID": "1.2", "PatientID": "x"}
    for file in series(tmp_path / "b", SeriesInstanceUID="1.2.3", **soft).files:
        file.rename(tmp_path / "a" / "ct" / f"soft{file.name}")
    rows = inspect(tmp_path)
    assert [row.codes for row in rows] == [("several-series",)] * 2
    assert "kernel SOFT" in rows[0].message


def test_a_mask_in_an_archive_is_held_against_a_ct_outside_of_it(tmp_path: Path) -> None:
    written = series(tmp_path)
    seg = write_seg(tmp_path / "seg", {"nodule": MASK}, written)
    with zipfile.ZipFile(tmp_path / "masks.zip", "w") as archive:
        archive.write(seg, "seg")
    seg.unlink()
    rows = below(tmp_path, inspect(tmp_path))
    assert {path: row.status for path, row in rows.items()} == {"ct": "ok", "masks.zip!seg": "ok"}


def test_an_office_document_is_no_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "studies.xlsx", "w") as archive:
        archive.writestr("[Content_Types].xml", "<x/>")
    (row,) = inspect(tmp_path)
    assert (row.kind, row.status, row.codes) == ("file", "skipped", ("not-dicom",))


def test_copies_of_a_series_in_two_folders_are_two_rows(tmp_path: Path) -> None:
    written = series(tmp_path)
    shutil.copytree(written.folder, tmp_path / "backup" / "deep")
    rows = below(tmp_path, inspect(tmp_path))
    assert {path: row.codes for path, row in rows.items()} == {"ct": (), "backup/deep": ()}


def test_a_series_spread_over_folders_is_one_row(tmp_path: Path) -> None:
    written = series(tmp_path)
    for number, file in enumerate(written.files):
        folder = tmp_path / "ct" / f"IMG{number}"
        folder.mkdir()
        file.rename(folder / "1")
    (row,) = inspect(tmp_path)
    assert (row.path, row.status, row.slices) == (str(tmp_path / "ct"), "ok", 8)


def test_an_image_repeated_in_a_folder_beside_is_a_repeat_and_no_copy(tmp_path: Path) -> None:
    written = series(tmp_path)
    for number, file in enumerate(written.files):
        (tmp_path / f"IMG{number}").mkdir()
        shutil.copy(file, tmp_path / f"IMG{number}" / "1")
    (tmp_path / "again").mkdir()
    shutil.copy(written.files[0], tmp_path / "again" / "1")
    shutil.rmtree(written.folder)
    (row,) = inspect(tmp_path)
    assert "duplicate-position" in row.codes


def test_a_mask_belongs_to_the_ct_of_its_own_folder(tmp_path: Path) -> None:
    elsewhere = geometry(GRID.size, GRID.spacing_mm, origin=(100.0, 100.0, 100.0))
    for name, grid in (("a", GRID), ("b", elsewhere)):
        write_image(tmp_path / name / "ct.nii.gz", hu(), grid)
        write_image(tmp_path / name / "mask.nii.gz", MASK, grid)
    cropped = geometry((16, 14, 7), GRID.spacing_mm, origin=GRID.origin_mm)
    write_image(tmp_path / "b" / "of_a.nii.gz", MASK[:7], cropped)
    rows = below(tmp_path, inspect(tmp_path))
    found = {path: row.codes for path, row in rows.items() if row.kind == "mask"}
    assert found == {
        "a/mask.nii.gz": (),
        "b/mask.nii.gz": (),
        "b/of_a.nii.gz": ("mask-geometry",),
    }


def test_a_seg_of_another_series_is_refused_though_it_would_fit(tmp_path: Path) -> None:
    written = series(tmp_path)
    write_seg(tmp_path / "seg", {"nodule": MASK}, written)
    for file in written.files:
        edit(file, SeriesInstanceUID="1.2.3", FrameOfReferenceUID="1.2.4")
    rows = below(tmp_path, inspect(tmp_path))
    assert (rows["ct"].status, rows["seg"].status) == ("ok", "refused")
    assert rows["seg"].codes == ("mask-other-series",)
    assert written.series_uid in rows["seg"].message


def test_a_seg_of_the_same_frame_of_reference_is_warned_of(tmp_path: Path) -> None:
    written = series(tmp_path)
    write_seg(tmp_path / "seg", {"nodule": MASK}, written)
    for file in written.files:
        edit(file, SeriesInstanceUID="1.2.3")
    rows = below(tmp_path, inspect(tmp_path))
    assert (rows["seg"].status, rows["seg"].codes) == ("warning", ("mask-other-series",))


def test_a_mask_on_a_refused_ct_is_told_not_to_be_checked(tmp_path: Path) -> None:
    written = series(tmp_path)
    write_seg(tmp_path / "seg", {"nodule": MASK}, written)
    written.files[4].unlink()
    row = below(tmp_path, inspect(tmp_path))["seg"]
    assert (row.status, row.codes) == ("warning", ("mask-other-series",))
    assert "missing-slice" in row.message


def test_the_limits_of_the_site_hold(tmp_path: Path) -> None:
    series(tmp_path)
    (row,) = inspect(tmp_path, limits=PreparationConfig(max_slice_thickness_mm=1.0))
    assert row.codes == ("thick-slices",)
    (row,) = inspect(tmp_path, limits=PreparationConfig(max_volume_voxels=1000))
    assert (row.status, row.codes) == ("refused", ("too-large",))


def test_files_of_detached_values_belong_to_their_header(tmp_path: Path) -> None:
    write_image(tmp_path / "ct.mhd", hu(), GRID)
    rows = below(tmp_path, inspect(tmp_path))
    assert rows["ct.mhd"].status == "ok"
    assert rows["ct.raw"].message == "holds the values of ct.mhd"


def test_several_series_in_one_folder_are_chosen_by_what_the_mask_was_drawn_on(
    tmp_path: Path,
) -> None:
    first = write_series(tmp_path / "all", hu(1), GRID, ConvolutionKernel="B30f")
    second = write_series(tmp_path / "all" / "2", hu(2), GRID, ConvolutionKernel="B70f")
    for wanted in (first, second):
        examined = examine_ct(tmp_path / "all", prefer=[wanted.series_uid])
        assert examined.require().series_uid == wanted.series_uid
        assert examined.row.codes == ("several-series",)
        assert examine_ct(tmp_path / "all", wanted.series_uid).row.codes == ()


@pytest.mark.parametrize("build", [sheared, magnetic_resonance])
def test_a_refused_ct_can_not_be_required(tmp_path: Path, build: Callable[[Path], None]) -> None:
    build(tmp_path)
    examined = examine_ct(tmp_path / "ct")
    assert examined.reading is None
    with pytest.raises(SiteDataError) as caught:
        examined.require()
    assert caught.value.code == examined.row.codes[0]


def test_progress_is_told_to_the_end(tmp_path: Path) -> None:
    mixed_export(tmp_path)
    told: list[tuple[int, int, str]] = []
    inspect(tmp_path, progress=lambda *words: told.append(words))
    assert (11, 11, "headers") in told
    assert (8, 8, "slices") in told


def test_rows_come_in_the_order_of_their_paths_and_the_same_each_time(tmp_path: Path) -> None:
    masks_that_fit(tmp_path)
    rows = inspect(tmp_path)
    assert [row.path for row in rows] == sorted(row.path for row in rows)
    assert [row.as_json() for row in inspect(tmp_path)] == [row.as_json() for row in rows]
