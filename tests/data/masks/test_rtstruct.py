from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import generate_uid
from skimage.measure import points_in_poly

from nognet.data.ct.image import read_ct_with_findings
from nognet.data.masks.reading import MaskSource, read_mask_with_findings
from nognet.data.masks.rtstruct import rasterise
from nognet.errors import GeometryError, NognetError
from nognet.types import Geometry
from tests.builders.ct_files import (
    WrittenSeries,
    ball,
    geometry,
    middle,
    outline,
    rotation,
    write_rtstruct,
    write_seg,
    write_series,
)

GRID = geometry((24, 20, 3), (0.9, 1.1, 2.0), origin=(4, 5, 6), axes=rotation((10, 20, 30)))


def on_slice(polygon: np.ndarray, grid: Geometry = GRID, k: int = 1) -> np.ndarray:
    return grid.index_to_world(np.column_stack([polygon, np.full(len(polygon), float(k))]))


def naive_even_odd(polygon: np.ndarray, x: float, y: float) -> bool:
    """Count the edges that a ray to the left crosses, one by one."""
    inside = False
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if (y0 < y) != (y1 < y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
            inside = not inside
    return inside


polygons = st.lists(
    st.tuples(st.floats(-0.9, 23.4), st.floats(-0.9, 19.4)), min_size=3, max_size=12
).map(np.array)


@settings(deadline=None, max_examples=60)
@given(polygons)
def test_any_polygon_even_one_that_crosses_itself_equals_the_naive_loop(
    polygon: np.ndarray,
) -> None:
    polygon = np.round(polygon, 3) + 0.00043  # no vertex on a pixel centre: ties are another test
    found = rasterise([on_slice(polygon)], GRID)
    wanted = np.array([[naive_even_odd(polygon, x, y) for x in range(24)] for y in range(20)])
    np.testing.assert_array_equal(found[1], wanted)
    assert not found[[0, 2]].any()


def test_a_star_equals_scikit_image() -> None:
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radius = np.where(np.arange(40) % 2, 4.0, 9.0)
    star = np.column_stack([12.03 + radius * np.cos(angle), 9.97 + radius * np.sin(angle)])
    y, x = np.mgrid[:20, :24]
    wanted = points_in_poly(np.column_stack([x.ravel(), y.ravel()]), star).reshape(20, 24)
    np.testing.assert_array_equal(rasterise([on_slice(star)], GRID)[1], wanted)


def square(low: float, high: float) -> np.ndarray:
    return np.array([[low, low], [high, low], [high, high], [low, high]])


def test_a_contour_within_a_contour_is_a_hole() -> None:
    found = rasterise([on_slice(square(2.5, 12.5)), on_slice(square(5.5, 8.5))], GRID)
    assert found[1].sum() == 100 - 9
    assert found[1, 7, 7] == 0


def test_two_contours_of_one_slice_are_both_filled() -> None:
    found = rasterise([on_slice(square(1.5, 4.5)), on_slice(square(8.5, 12.5))], GRID)
    assert found[1].sum() == 9 + 16


@given(st.integers(1, 8), st.integers(9, 17))
def test_squares_with_corners_on_pixel_centres_share_no_pixel_with_their_neighbours(
    low: int, high: int
) -> None:
    wide = geometry((48, 20, 3), GRID.spacing_mm, axes=np.array(GRID.direction))
    shift = np.array([high - low, 0])
    left = rasterise([on_slice(square(low, high), wide)], wide)
    right = rasterise([on_slice(square(low, high) + shift, wide)], wide)
    assert left.sum() == (high - low) ** 2
    assert not (left & right).any()


def test_the_contours_are_not_changed() -> None:
    contour = on_slice(square(2.5, 12.5))
    before = contour.copy()
    rasterise([contour], GRID)
    np.testing.assert_array_equal(contour, before)


def test_contours_between_slices_have_no_slice() -> None:
    between = GRID.index_to_world(np.column_stack([square(2, 9), np.full(4, 1.5)]))
    with pytest.raises(GeometryError, match="1 of 2 contours have no slice"):
        rasterise([on_slice(square(2, 9)), between], GRID)


def test_contours_tilted_against_the_slices_are_refused() -> None:
    tilted = GRID.index_to_world(np.array([[2.0, 2, 0], [9, 3, 0], [9, 6, 2], [2, 5, 2]]))
    with pytest.raises(GeometryError, match="not parallel"):
        rasterise([tilted], GRID)


def test_contours_may_stand_on_the_slices_where_they_follow_the_rows() -> None:
    standing = [
        GRID.index_to_world(np.array([[2.0, y, -0.4], [9, y, -0.4], [9, y, 2], [2, y, 2]]))
        for y in (4.0, 5.0, 6.0)
    ]
    found = rasterise(standing, GRID)
    assert found[:2, 4:7, 2:9].all()
    assert found.sum() == 2 * 3 * 7


def test_contours_beyond_the_image_are_refused() -> None:
    with pytest.raises(GeometryError, match="beyond the image"):
        rasterise([on_slice(square(15, 30))], GRID)


ORIENTATIONS = {
    "axial": np.eye(3),
    "oblique": rotation((25, -15, 40)),
    "coronal": rotation((90, 0, 0)),
    "sagittal": rotation((90, 0, 90)),
    "head first turned": np.diag([-1.0, -1.0, 1.0]),
    "slices from the top": np.diag([1.0, -1.0, -1.0]),
}


def phantom(grid: Geometry) -> np.ndarray:
    """A nodule with a cavity, an arm that parts from it, and a second nodule."""
    centre = middle(grid)
    shell = ball(grid, centre, 7.0) & ~ball(grid, centre, 3.0)
    arm = ball(grid, centre + np.array(grid.direction) @ [4.0, 5.0, 6.0], 3.0)
    other = ball(grid, centre + np.array(grid.direction) @ [-13.0, 2.0, 1.0], 2.5)
    return np.asarray((shell | arm | other) & 1, dtype=np.uint8)


@pytest.mark.parametrize("axes", ORIENTATIONS.values(), ids=ORIENTATIONS)
@pytest.mark.parametrize("order", ["upwards", "downwards", "clockwise"])
def test_a_phantom_written_as_mask_and_as_contours_gives_the_same_voxels(
    tmp_path: Path, axes: np.ndarray, order: str
) -> None:
    grid = geometry((52, 44, 22), (0.7, 0.8, 1.25), origin=(-111.1, 42.7, -203.3), axes=axes)
    mask = phantom(grid)
    series = write_series(tmp_path / "ct", np.where(mask, 30, -850), grid)
    contours = [c for k in range(22) for c in outline(mask[k], grid, k)]
    if order == "downwards":
        contours.reverse()
    elif order == "clockwise":
        contours = [c[::-1] for c in contours]
    path = write_rtstruct(tmp_path / "rt.dcm", {"nodule": contours}, series)
    ct = read_ct_with_findings(tmp_path / "ct")
    by_contours = read_mask_with_findings(path, MaskSource.of(ct))
    seg = write_seg(tmp_path / "seg.dcm", {"nodule": mask}, series)
    by_mask = read_mask_with_findings(seg, MaskSource.of(ct))
    assert by_contours.findings == by_mask.findings == ()
    assert int((by_contours.mask != by_mask.mask).sum()) == 0
    on_ct = ct.volume.geometry.world_to_index(grid.index_to_world(np.argwhere(mask)[:, ::-1] + 0.0))
    x, y, z = np.round(on_ct).astype(int).T
    assert by_contours.mask[z, y, x].all()
    assert by_contours.mask.sum() == mask.sum()


PLAIN = geometry((40, 36, 14), (0.7, 0.8, 1.5), origin=(-30.0, 12.0, -200.0))
BALL = ball(PLAIN, middle(PLAIN), 5.0)


def drawn(mask: np.ndarray = BALL, lift_mm: float = 0.0) -> list[np.ndarray]:
    return [c + np.array([0, 0, lift_mm]) for k in range(14) for c in outline(mask[k], PLAIN, k)]


def contour_file(folder: Path, contours: dict[str, list[np.ndarray]], **tags: str) -> Path:
    series = WrittenSeries(folder, (), generate_uid(), generate_uid())
    path = write_rtstruct(folder / "rt.dcm", contours, series)
    data = pydicom.dcmread(path)
    for roi in data.ROIContourSequence:
        for contour in roi.ContourSequence:
            for tag, value in tags.items():
                setattr(contour, tag, value)
    data.save_as(path)
    return path


def refused(path: Path, segment: str | None = None) -> NognetError:
    with pytest.raises(NognetError) as caught:
        read_mask_with_findings(path, MaskSource(PLAIN), segment)
    return caught.value


def test_contours_half_way_between_the_slices_have_none(tmp_path: Path) -> None:
    contours = drawn(lift_mm=0.75)
    error = refused(contour_file(tmp_path, {"n": contours}))
    assert error.code == "mask-incomplete"
    assert f"{len(contours)} of {len(contours)} contours have no slice" in str(error)


def test_a_ct_coarser_than_the_contours_is_refused() -> None:
    contours = drawn()
    coarse = geometry((40, 36, 7), (0.7, 0.8, 3.0), origin=PLAIN.origin_mm)
    with pytest.raises(GeometryError, match="have no slice: volume incomplete"):
        rasterise(contours, coarse)


def test_a_ct_finer_than_the_contours_is_refused() -> None:
    fine = geometry((40, 36, 70), (0.7, 0.8, 0.3), origin=PLAIN.origin_mm)
    with pytest.raises(GeometryError, match="slices between the contours have none"):
        rasterise(drawn(), fine)


def test_two_nodules_one_above_the_other_leave_no_slice_out() -> None:
    low, high = BALL.copy(), np.zeros_like(BALL)
    low[6:] = 0
    high[12:] = BALL[6:8]
    assert rasterise(drawn(low | high), PLAIN).sum() == (low | high).sum()


def test_nodules_side_by_side_on_unlike_slices_leave_no_slice_out() -> None:
    left, right = np.zeros_like(BALL), np.zeros_like(BALL)
    left[2:5, 4:10, 4:10] = 1
    right[7:10, 20:26, 20:26] = 1
    assert rasterise(drawn(left | right), PLAIN).sum() == (left | right).sum()


def test_a_nodule_drawn_on_every_other_slice_is_refused_beside_one_drawn_on_all() -> None:
    striped, whole = np.zeros_like(BALL), np.zeros_like(BALL)
    striped[2:12:2, 4:10, 4:10] = 1
    whole[1:13, 20:26, 20:26] = 1
    with pytest.raises(GeometryError, match="slices between the contours have none"):
        rasterise(drawn(striped | whole), PLAIN)


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ({"ContourGeometricType": "POINT"}, "mask-empty"),
        ({"ContourGeometricType": "OPEN_PLANAR"}, "mask-empty"),
        ({"NumberOfContourPoints": "3"}, "truncated"),
        ({"ContourData": ["1", "2", "3", "4"]}, "truncated"),
        ({"ContourData": ["1e30"] * 9}, "truncated"),
    ],
)
def test_contours_that_enclose_nothing_or_are_damaged_are_refused(
    tmp_path: Path, tags: dict[str, str], code: str
) -> None:
    assert refused(contour_file(tmp_path, {"n": drawn()}, **tags)).code == code


def test_a_declared_exclusive_or_is_read(tmp_path: Path) -> None:
    shell = BALL & ~ball(PLAIN, middle(PLAIN), 2.0) & 1
    path = contour_file(tmp_path, {"n": drawn(shell)}, ContourGeometricType="CLOSEDPLANAR_XOR")
    reading = read_mask_with_findings(path, MaskSource(PLAIN))
    np.testing.assert_array_equal(reading.mask, shell)


def test_contours_that_cross_are_warned_of(tmp_path: Path) -> None:
    moved = [c + np.array([2.1, 0, 0]) for c in drawn()]
    reading = read_mask_with_findings(contour_file(tmp_path, {"n": drawn() + moved}),
                                      MaskSource(PLAIN))  # fmt: skip
    assert [(f.code, f.severity) for f in reading.findings] == [("mask-geometry", "warning")]
    assert reading.mask.sum() == (BALL | np.roll(BALL, 3, axis=2)).sum()


def test_names_given_twice_are_chosen_by_number(tmp_path: Path) -> None:
    path = contour_file(tmp_path, {"a": drawn(), "b": drawn(BALL)})
    data = pydicom.dcmread(path)
    data.StructureSetROISequence[1].ROIName = "a"
    data.save_as(path)
    assert refused(path, "a").code == "mask-segment"
    reading = read_mask_with_findings(path, MaskSource(PLAIN), "2")
    np.testing.assert_array_equal(reading.mask, BALL)


def test_decimals_of_sixteen_characters_are_exact_enough(tmp_path: Path) -> None:
    grid = geometry(
        (40, 36, 14), (0.7031250001, 0.7031250001, 1.2500000003),
        origin=(-1234.56789012, 987.654321, -2345.678901), axes=rotation((13, 7, -21)),
    )  # fmt: skip
    mask = ball(grid, middle(grid), 5.0)
    contours = [c for k in range(14) for c in outline(mask[k], grid, k)]
    path = contour_file(tmp_path, {"n": contours})
    for value in pydicom.dcmread(path).ROIContourSequence[0].ContourSequence[0].ContourData:
        assert len(str(value)) <= 16
    reading = read_mask_with_findings(path, MaskSource(grid))
    np.testing.assert_array_equal(reading.mask, mask)
