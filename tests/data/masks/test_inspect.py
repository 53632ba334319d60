from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nognet.data.masks.inspect import examine_mask, referenced_series
from nognet.data.masks.source import MaskSource
from nognet.types import Geometry
from tests.builders.ct_files import (
    ball,
    geometry,
    middle,
    outline,
    write_image,
    write_rtstruct,
    write_series,
)

GRID = geometry((40, 36, 14), (0.7, 0.8, 1.5), origin=(-30.0, 12.0, -200.0))
SOURCE = MaskSource(GRID)
MASK = ball(GRID, middle(GRID), 4.0)


def bare(grid: Geometry = GRID) -> Geometry:
    """The same grid as a tool writes it that drops direction and keeps the rest."""
    turned = np.diag([-1.0, -1.0, 1.0])
    x, y, z = grid.index_to_world(np.array([grid.size[0] - 1.0, grid.size[1] - 1.0, 0.0]))
    return geometry(grid.size, grid.spacing_mm, origin=(x, y, z), axes=turned)


def test_a_good_mask_is_ok_and_its_row_is_filled(tmp_path: Path) -> None:
    row = examine_mask(write_image(tmp_path / "m.nii.gz", MASK, GRID), [SOURCE])
    assert (row.status, row.codes, row.kind, row.modality) == ("ok", (), "mask", "NIFTI")
    assert (row.size, row.slices, row.orientation) == (GRID.size, 14, "axial")
    assert row.spacing_mm == pytest.approx(GRID.spacing_mm)


def test_a_grey_mask_on_another_grid_is_refused_for_both(tmp_path: Path) -> None:
    grey = (MASK * np.where(np.indices(MASK.shape)[2] % 2, 255, 120)).astype(np.uint8)
    grey[MASK > 0] = np.maximum(grey[MASK > 0], 60 + np.argwhere(MASK)[:, 1] * 3)
    lost = geometry(GRID.size, GRID.spacing_mm, axes=np.diag([-1.0, -1.0, 1.0]))
    row = examine_mask(write_image(tmp_path / "m.mha", grey, lost), [SOURCE])
    assert row.status == "refused"
    assert set(row.codes) == {"mask-not-binary", "mask-geometry"}


def test_a_flipped_mask_is_right_where_its_world_is(tmp_path: Path) -> None:
    path = write_image(tmp_path / "m.nrrd", MASK[:, ::-1, ::-1], bare())
    assert examine_mask(path, [SOURCE]).status == "ok"


def test_a_label_map_is_as_many_nodules_and_says_so(tmp_path: Path) -> None:
    labels = np.zeros_like(MASK)
    labels[2:6, 4:14, 4:14], labels[8:12, 20:30, 20:30] = 5, 9
    row = examine_mask(write_image(tmp_path / "m.nrrd", labels, GRID), [SOURCE])
    assert (row.status, row.codes) == ("ok", ())
    assert row.note.startswith("2 segments: 5 ")


def test_an_empty_mask_is_refused(tmp_path: Path) -> None:
    row = examine_mask(write_image(tmp_path / "m.nrrd", MASK * 0, GRID), [SOURCE])
    assert (row.status, row.codes) == ("refused", ("mask-empty",))


def test_a_mask_on_another_grid_is_warned_of(tmp_path: Path) -> None:
    fine = geometry((90, 90, 60), (0.3, 0.3, 0.3), origin=(-28.0, 14.0, -198.0))
    path = write_image(tmp_path / "m.nrrd", ball(fine, middle(fine), 5.0), fine)
    row = examine_mask(path, [SOURCE])
    assert (row.status, row.codes) == ("warning", ("mask-resampled",))


def test_of_several_cts_the_one_of_its_grid_is_taken(tmp_path: Path) -> None:
    path = write_image(tmp_path / "m.nrrd", MASK, GRID)
    wide = geometry((90, 90, 40), (1.0, 1.0, 2.0), origin=(-60.0, -10.0, -230.0))
    moved = geometry(GRID.size, GRID.spacing_mm, origin=(500.0, 12.0, -200.0))
    assert examine_mask(path, [MaskSource(wide), SOURCE]).status == "ok"
    assert examine_mask(path, [MaskSource(moved), SOURCE]).status == "ok"
    assert examine_mask(path, [MaskSource(wide)]).codes == ("mask-resampled",)
    # its own CT has its grid and lies elsewhere: that it happens to lie on a stranger is no help
    assert examine_mask(path, [MaskSource(wide), MaskSource(moved)]).codes == ("mask-geometry",)


def test_without_a_ct_it_can_not_be_checked(tmp_path: Path) -> None:
    row = examine_mask(write_image(tmp_path / "m.nrrd", MASK, GRID), [])
    assert (row.status, row.codes) == ("warning", ("mask-other-series",))


def test_contours_without_a_slice_are_told_of_each_structure(tmp_path: Path) -> None:
    series = write_series(tmp_path / "ct", np.where(MASK, 30, -850), GRID)
    whole = [c for k in np.flatnonzero(MASK.any(axis=(1, 2))) for c in outline(MASK[k], GRID, k)]
    low = [c - [0, 0, 6 * 1.5] for c in whole]
    path = write_rtstruct(tmp_path / "rt.dcm", {"whole": whole, "low": low}, series)
    source = MaskSource(GRID, series.series_uid, series.frame_of_reference)
    row = examine_mask(path, [source])
    assert (row.status, row.codes) == ("warning", ("mask-incomplete",))
    lost = sum(int(k) < 6 for k in np.flatnonzero(MASK.any(axis=(1, 2))))
    assert f"'low': {lost} of {len(low)} contours have no slice" in row.findings[0].message
    assert f"'whole' {MASK.sum() * 0.84:.1f} mm3" in row.note
    alone = write_rtstruct(tmp_path / "low.dcm", {"low": low}, series)
    assert examine_mask(alone, [source]).as_json()["code"] == "mask-incomplete"
    assert examine_mask(alone, [source]).status == "refused"
    assert referenced_series(path) == (series.series_uid,)


def test_contours_of_another_series_are_refused_and_still_examined(tmp_path: Path) -> None:
    series = write_series(tmp_path / "ct", np.where(MASK, 30, -850), GRID)
    low = [c - [0, 0, 9.0] for k in range(4, 10) for c in outline(MASK[k], GRID, k)]
    path = write_rtstruct(tmp_path / "rt.dcm", {"low": low}, series)
    row = examine_mask(path, [MaskSource(GRID, "", "1.2.3")])
    assert row.status == "refused"
    assert set(row.codes) == {"mask-other-series", "mask-incomplete"}


@pytest.mark.parametrize("content", [b"", b"no image", b"\0" * 128 + b"DICM" + b"\x02\0\0\0"])
@pytest.mark.parametrize("name", ["m.nii.gz", "m.nrrd", "m.mha", "m.dcm"])
def test_damaged_files_are_a_row_and_no_error(tmp_path: Path, content: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    row = examine_mask(path, [SOURCE])
    assert row.status == "refused"
    assert referenced_series(path) == ()


def test_nothing_at_the_path_is_a_row_too(tmp_path: Path) -> None:
    assert examine_mask(tmp_path / "none.nrrd", [SOURCE]).status == "refused"
    assert referenced_series(tmp_path / "none") == ()
