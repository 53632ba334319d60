from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nognet.data.ct.image import read_ct, read_ct_with_findings
from nognet.data.masks.reading import MaskSource, read_mask, read_mask_with_findings
from nognet.errors import GeometryError, SiteDataError
from nognet.types import Geometry, Volume
from tests.builders.ct_files import (
    WrittenSeries,
    ball,
    geometry,
    middle,
    outline,
    rotation,
    write_image,
    write_rtstruct,
    write_seg,
    write_series,
)

AXIAL = geometry((40, 36, 14), (0.7, 0.8, 1.5), origin=(-30.0, 12.0, -200.0))
OBLIQUE = geometry((40, 36, 14), (0.7, 0.8, 1.5), origin=(5, 6, 7), axes=rotation((25, -15, 40)))


def study(folder: Path, grid: Geometry) -> tuple[WrittenSeries, Volume, np.ndarray]:
    """A CT with a lobed nodule."""
    centre = middle(grid)
    mask = ball(grid, centre, 4.0) | ball(grid, centre + np.array([3.0, 2.0, 1.0]), 3.0)
    series = write_series(folder / "ct", np.where(mask, 30, -850), grid)
    return series, read_ct(folder / "ct"), mask


def as_rtstruct(folder: Path, mask: np.ndarray, grid: Geometry, series: WrittenSeries) -> Path:
    contours = [c for k in np.flatnonzero(mask.any(axis=(1, 2)))
                for c in outline(mask[k], grid, int(k))]  # fmt: skip
    return write_rtstruct(folder / "rt.dcm", {"nodule": contours}, series)


def as_seg(folder: Path, mask: np.ndarray, _grid: Geometry, series: WrittenSeries) -> Path:
    return write_seg(folder / "seg.dcm", {"nodule": mask}, series)


def as_nifti(folder: Path, mask: np.ndarray, grid: Geometry, _series: WrittenSeries) -> Path:
    return write_image(folder / "mask.nii.gz", mask, grid)


def as_flipped_nrrd(folder: Path, mask: np.ndarray, grid: Geometry, _s: WrittenSeries) -> Path:
    """The same mask with its y axis stored the other way round."""
    axes = np.array(grid.direction)
    axes[:, 1] *= -1
    x, y, z = grid.index_to_world(np.array([0.0, grid.size[1] - 1, 0]))
    flipped = geometry(grid.size, grid.spacing_mm, origin=(x, y, z), axes=axes)
    return write_image(folder / "flipped.nrrd", mask[:, ::-1], flipped)


def as_cropped_mha(folder: Path, mask: np.ndarray, grid: Geometry, _s: WrittenSeries) -> Path:
    x, y, z = grid.index_to_world(np.array([8.0, 5.0, 1.0]))
    part = mask[1:-1, 5:, 8:]
    depth, height, width = part.shape
    cropped = Geometry((width, height, depth), grid.spacing_mm, (x, y, z), grid.direction)
    return write_image(folder / "cropped.mha", part, cropped)


@pytest.mark.parametrize("grid", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
@pytest.mark.parametrize("write", [as_rtstruct, as_seg, as_nifti, as_flipped_nrrd, as_cropped_mha])
def test_every_format_gives_the_same_mask(
    tmp_path: Path, grid: Geometry, write: Callable[..., Path]
) -> None:
    series, ct, mask = study(tmp_path, grid)
    found = read_mask(write(tmp_path, mask, grid, series), ct, None)
    np.testing.assert_array_equal(found, mask)
    assert found.dtype == np.uint8


def test_overlapping_segments_are_told_apart_by_label_and_number(tmp_path: Path) -> None:
    series, ct, mask = study(tmp_path, AXIAL)
    other = ball(AXIAL, middle(AXIAL) + np.array([2.0, 0, 0]), 4.0)
    path = write_seg(tmp_path / "seg.dcm", {"first": mask, "second": other}, series)
    np.testing.assert_array_equal(read_mask(path, ct, "second"), other)
    np.testing.assert_array_equal(read_mask(path, ct, "1"), mask)
    for wrong in (None, "third"):
        with pytest.raises(SiteDataError, match="1 'first', 2 'second'") as caught:
            read_mask(path, ct, wrong)
        assert caught.value.code == "mask-segment"


def test_labels_of_an_image_are_chosen_by_number(tmp_path: Path) -> None:
    _, ct, mask = study(tmp_path, AXIAL)
    labels = (mask * 3).astype(np.uint8)
    labels[0, 0, 0] = 7
    path = write_image(tmp_path / "labels.nrrd", labels, AXIAL)
    np.testing.assert_array_equal(read_mask(path, ct, "3"), mask)
    for segment, code in ((None, "mask-not-binary"), ("4", "mask-segment"), ("x", "mask-segment")):
        with pytest.raises(SiteDataError) as caught:
            read_mask(path, ct, segment)
        assert caught.value.code == code


def test_an_empty_mask_is_refused(tmp_path: Path) -> None:
    _, ct, mask = study(tmp_path, AXIAL)
    with pytest.raises(SiteDataError) as caught:
        read_mask(write_image(tmp_path / "m.nrrd", mask * 0, AXIAL), ct)
    assert caught.value.code == "mask-empty"


def test_a_mask_saved_without_its_header_is_refused(tmp_path: Path) -> None:
    _, ct, mask = study(tmp_path, AXIAL)
    bare = geometry(AXIAL.size, AXIAL.spacing_mm)
    with pytest.raises(GeometryError, match="lie outside the image") as caught:
        read_mask(write_image(tmp_path / "m.nrrd", mask, bare), ct)
    assert caught.value.code == "mask-geometry"


def test_a_finer_mask_is_resampled_in_world_space_with_a_warning(tmp_path: Path) -> None:
    _, ct, _ = study(tmp_path, AXIAL)
    fine = geometry((90, 90, 70), (0.31, 0.31, 0.31), origin=(-30.0, 12.0, -200.0))
    centre = middle(fine)
    path = write_image(tmp_path / "fine.nrrd", ball(fine, centre, 6.0), fine)
    reading = read_mask_with_findings(path, MaskSource(ct.geometry))
    assert [f.code for f in reading.findings] == ["mask-resampled"]
    volume = reading.mask.sum() * ct.geometry.voxel_volume_mm3
    assert volume == pytest.approx(4 / 3 * np.pi * 6.0**3, rel=0.03)


def test_contours_without_a_slice_are_counted(tmp_path: Path) -> None:
    series, _, mask = study(tmp_path, AXIAL)
    path = as_rtstruct(tmp_path, mask, AXIAL, series)
    for file in series.files[:6]:
        file.unlink()
    ct = read_ct(tmp_path / "ct")
    loops = [len(outline(layer, AXIAL, k)) for k, layer in enumerate(mask)]
    lost, n_all = sum(loops[:6]), sum(loops)
    assert lost > 0
    wanted = f"{lost} of {n_all} contours have no slice: volume incomplete"
    with pytest.raises(GeometryError, match=wanted) as caught:
        read_mask(path, ct, "nodule")
    assert caught.value.code == "mask-incomplete"


def test_contours_on_every_other_slice_are_refused(tmp_path: Path) -> None:
    series, ct, mask = study(tmp_path, AXIAL)
    mask[::2] = 0
    with pytest.raises(GeometryError, match="between the contours") as caught:
        read_mask(as_rtstruct(tmp_path, mask, AXIAL, series), ct)
    assert caught.value.code == "mask-incomplete"


@pytest.mark.parametrize("write", [as_rtstruct, as_seg])
def test_a_mask_of_another_series_is_refused(tmp_path: Path, write: Callable[..., Path]) -> None:
    series, _, mask = study(tmp_path / "a", AXIAL)
    path = write(tmp_path, mask, AXIAL, series)
    study(tmp_path / "b", AXIAL)
    other = read_ct_with_findings(tmp_path / "b" / "ct")
    with pytest.raises(GeometryError, match="was drawn on series") as caught:
        read_mask_with_findings(path, MaskSource.of(other), None)
    assert caught.value.code == "mask-other-series"


def test_a_ct_is_no_mask(tmp_path: Path) -> None:
    series, ct, _ = study(tmp_path, AXIAL)
    with pytest.raises(SiteDataError, match="is no mask"):
        read_mask(series.files[0], ct)
