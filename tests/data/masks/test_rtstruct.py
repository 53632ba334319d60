from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import points_in_poly

from nognet.data.masks.rtstruct import rasterise
from nognet.errors import GeometryError
from nognet.types import Geometry
from tests.builders.ct_files import geometry, rotation

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
