from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nognet.config import PreparationConfig
from nognet.data.masks.nodules import (
    NodulesReading,
    judge_density,
    mean_hu_inside,
    read_nodules,
)
from nognet.data.masks.reading import MaskSource, read_mask_with_findings
from nognet.data.pairs.roi import crop_mask, nodule_centre_mm, nodule_volume_mm3
from nognet.errors import NognetError
from nognet.types import Volume
from tests.builders.ct_files import (
    ball,
    geometry,
    middle,
    outline,
    rotation,
    write_image,
    write_rtstruct,
    write_series,
)

GRID = geometry((60, 50, 24), (0.7, 0.8, 1.5), origin=(-9, 4, -80), axes=rotation((5, -8, 12)))
SOURCE = MaskSource(GRID)
LIMITS = PreparationConfig()


def at(x: float, y: float, z: float, radius: float) -> np.ndarray:
    return ball(GRID, GRID.index_to_world(np.array([x, y, z])), radius)


LARGE, SMALL, SPECK = at(14, 14, 8, 5.0), at(44, 36, 16, 3.0), at(50, 8, 4, 0.9)


def nodules_of(
    path: Path, segment: str | None = None, limits: PreparationConfig = LIMITS
) -> NodulesReading:
    return read_nodules(path, SOURCE, segment, limits=limits)


def code_of(path: Path, segment: str | None = None) -> str:
    with pytest.raises(NognetError) as caught:
        nodules_of(path, segment)
    return caught.value.code


def test_a_binary_mask_of_two_nodules_gives_both_the_larger_first(tmp_path: Path) -> None:
    path = write_image(tmp_path / "m.nii.gz", LARGE | SMALL, GRID)
    found = nodules_of(path)
    assert [n.label for n in found.nodules] == ["1", "2"]
    assert found.findings == ()
    for nodule, mask in zip(found.nodules, (LARGE, SMALL), strict=True):
        wanted = crop_mask(mask, GRID)
        np.testing.assert_array_equal(nodule.mask.array, wanted.array)
        np.testing.assert_allclose(
            nodule.mask.geometry.origin_mm, wanted.geometry.origin_mm, atol=1e-3
        )


@pytest.mark.parametrize("one", [1, 255, 137])
@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.int16])
def test_one_nodule_has_no_label_whatever_its_value(tmp_path: Path, one: int, kind: type) -> None:
    path = write_image(tmp_path / "m.nrrd", (LARGE * float(one)).astype(kind), GRID)
    found = nodules_of(path)
    assert [n.label for n in found.nodules] == [""]
    assert nodules_of(path, str(one)).nodules[0].mask.array.sum() == LARGE.sum()


def test_the_gap_of_the_site_decides_what_is_one_nodule(tmp_path: Path) -> None:
    two = at(14, 14, 8, 3.0) | at(26, 14, 8, 3.0)  # 8.4 mm from centre to centre
    path = write_image(tmp_path / "m.nrrd", two, GRID)
    assert len(nodules_of(path).nodules) == 1
    apart = LIMITS.model_copy(update={"nodule_gap_mm": 1.0})
    assert len(nodules_of(path, limits=apart).nodules) == 2


def test_specks_are_left_aside_with_their_number_and_volume(tmp_path: Path) -> None:
    path = write_image(tmp_path / "m.mha", LARGE | SPECK, GRID)
    found = nodules_of(path)
    assert [n.label for n in found.nodules] == [""]
    assert nodule_volume_mm3(found.nodules[0].mask) == pytest.approx(LARGE.sum() * 0.84)
    assert [(f.code, f.severity) for f in found.findings] == [("mask-specks", "warning")]
    assert f"1 part of {SPECK.sum() * 0.84:.1f} mm3 in all" in found.findings[0].message
    alone = nodules_of(write_image(tmp_path / "s.mha", SPECK, GRID))
    assert alone.findings == ()
    assert alone.nodules[0].mask.array.sum() == SPECK.sum()


def test_labels_are_nodules_and_their_parts_are_numbered(tmp_path: Path) -> None:
    labels = (LARGE * 3 + SMALL * 7 + at(50, 8, 4, 2.5) * 3).astype(np.uint8)
    path = write_image(tmp_path / "m.nii.gz", labels, GRID)
    found = nodules_of(path)
    assert [n.label for n in found.nodules] == ["3", "3.2", "7"]
    assert [f.code for f in found.findings] == ["mask-segment"]
    assert [n.label for n in nodules_of(path, "7").nodules] == [""]
    assert [n.label for n in nodules_of(path, "3").nodules] == ["3", "3.2"]
    assert code_of(path, "5") == "mask-segment"


@pytest.mark.parametrize("segment", [None, "255", "100"])
def test_a_grey_mask_is_refused_even_where_a_value_is_named(
    tmp_path: Path, segment: str | None
) -> None:
    from scipy import ndimage

    grey = np.round(ndimage.gaussian_filter(LARGE * 255.0, 1.0)).astype(np.uint8)
    path = write_image(tmp_path / "m.mha", grey, GRID)
    assert code_of(path, segment) == "mask-not-binary"
    with pytest.raises(NognetError) as caught:
        read_mask_with_findings(path, SOURCE, segment)
    assert caught.value.code == "mask-not-binary"


def test_a_mask_with_a_fourth_axis_of_one_is_read(tmp_path: Path) -> None:
    import SimpleITK as sitk

    sitk.WriteImage(
        sitk.JoinSeries(sitk.ReadImage(str(write_image(tmp_path / "m.nii", LARGE, GRID)))),
        str(tmp_path / "four.nii.gz"),
    )
    assert nodules_of(tmp_path / "four.nii.gz").nodules[0].mask.array.sum() == LARGE.sum()


def test_labels_named_by_3d_slicer_are_chosen_by_name(tmp_path: Path) -> None:
    import SimpleITK as sitk

    from nognet.data.sitk_bridge import to_sitk

    image = to_sitk((LARGE * 1 + SMALL * 2).astype(np.uint8), GRID)
    for i, name in enumerate(("lingula", "apex")):
        image.SetMetaData(f"Segment{i}_LabelValue", str(i + 1))
        image.SetMetaData(f"Segment{i}_Name", name)
    sitk.WriteImage(image, str(tmp_path / "s.seg.nrrd"))
    assert [n.label for n in nodules_of(tmp_path / "s.seg.nrrd").nodules] == ["lingula", "apex"]
    assert nodules_of(tmp_path / "s.seg.nrrd", "apex").nodules[0].mask.array.sum() == SMALL.sum()


def test_a_mask_drawn_on_every_other_slice_is_refused(tmp_path: Path) -> None:
    striped = LARGE.copy()
    striped[::2] = 0
    assert code_of(write_image(tmp_path / "m.nrrd", striped, GRID)) == "mask-incomplete"


def test_a_missing_slice_in_a_nodule_is_warned_of(tmp_path: Path) -> None:
    pierced = LARGE.copy()
    pierced[8] = 0
    found = nodules_of(write_image(tmp_path / "m.nrrd", pierced, GRID))
    assert [(f.code, f.severity) for f in found.findings] == [("mask-incomplete", "warning")]


def contours_of(mask: np.ndarray) -> list[np.ndarray]:
    return [c for k in np.flatnonzero(mask.any(axis=(1, 2))) for c in outline(mask[k], GRID, k)]


def test_structures_become_nodules_and_one_that_is_damaged_stops_no_other(tmp_path: Path) -> None:
    series = write_series(tmp_path / "ct", np.where(LARGE, 30, -850), GRID)
    above = [c + np.array(GRID.direction)[:, 2] * 400 for c in contours_of(SMALL)]
    drawn = {"first": contours_of(LARGE), "gone": above, "second": contours_of(SMALL)}
    path = write_rtstruct(tmp_path / "rt.dcm", drawn, series)
    found = nodules_of(path)
    assert [n.label for n in found.nodules] == ["first", "second"]
    codes = [(f.code, f.severity) for f in found.findings]
    assert codes == [("mask-incomplete", "warning"), ("mask-segment", "warning")]
    assert "contours have no slice: volume incomplete" in found.findings[0].message
    assert code_of(path, "gone") == "mask-incomplete"


def test_no_usable_structure_is_an_error_that_lists_them_all(tmp_path: Path) -> None:
    series = write_series(tmp_path / "ct", np.where(LARGE, 30, -850), GRID)
    above = [c + np.array(GRID.direction)[:, 2] * 400 for c in contours_of(SMALL)]
    path = write_rtstruct(tmp_path / "rt.dcm", {"a": above, "b": above, "c": []}, series)
    with pytest.raises(NognetError, match=r"none of 3 segments is usable.*'a'.*'b'.*'c'"):
        nodules_of(path)


def test_the_same_file_gives_the_same_nodules(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    mask = (rng.random(GRID.size[::-1]) > 0.97).astype(np.uint8)
    path = write_image(tmp_path / "m.nrrd", mask | LARGE, GRID)
    free = LIMITS.model_copy(update={"min_nodule_volume_mm3": 3.0, "nodule_gap_mm": 0.0})
    first, second = (nodules_of(path, limits=free) for _ in range(2))
    assert [n.label for n in first.nodules] == [n.label for n in second.nodules]
    for a, b in zip(first.nodules, second.nodules, strict=True):
        np.testing.assert_array_equal(a.mask.array, b.mask.array)
        assert a.mask.geometry == b.mask.geometry


def test_a_file_that_claims_more_than_the_site_allows_is_refused(tmp_path: Path) -> None:
    path = write_image(tmp_path / "m.nii.gz", LARGE, GRID)
    few = LIMITS.model_copy(update={"max_volume_voxels": 1000})
    with pytest.raises(NognetError) as caught:
        nodules_of(path, limits=few)
    assert caught.value.code == "too-large"


def test_the_mean_inside_tells_tissue_from_lung(tmp_path: Path) -> None:
    ct = Volume(np.where(LARGE, -20, -870).astype(np.int16), GRID)
    nodule = nodules_of(write_image(tmp_path / "m.nrrd", LARGE, GRID)).nodules[0].mask
    assert mean_hu_inside(nodule, ct) == pytest.approx(-20)
    assert judge_density(nodule, ct) == ()
    elsewhere = nodules_of(write_image(tmp_path / "o.nrrd", SMALL, GRID)).nodules[0].mask
    assert [(f.code, f.severity) for f in judge_density(elsewhere, ct)] == [
        ("mask-geometry", "warning")
    ]


@pytest.mark.parametrize(("hu", "warned"), [(-750, False), (-820, False), (-880, True)])
def test_the_thinnest_ground_glass_passes(hu: int, warned: bool) -> None:
    rng = np.random.default_rng(2)
    ct = Volume((hu + 40 * rng.standard_normal(GRID.size[::-1])).astype(np.int16), GRID)
    assert bool(judge_density(crop_mask(LARGE, GRID), ct)) is warned


def test_centre_and_volume_of_a_ball_are_right(tmp_path: Path) -> None:
    centre = middle(GRID) + np.array([0.3, 0.2, -0.4])
    path = write_image(tmp_path / "m.nrrd", ball(GRID, centre, 6.0), GRID)
    nodule = nodules_of(path).nodules[0].mask
    assert nodule_volume_mm3(nodule) == pytest.approx(4 / 3 * np.pi * 216, rel=0.02)
    assert np.linalg.norm(nodule_centre_mm(nodule) - centre) < 0.2
