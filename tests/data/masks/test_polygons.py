from __future__ import annotations

import matplotlib.path
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.draw import polygon2mask

from nognet.data.masks.polygons import Polygon, fill_slice

WIDTH, HEIGHT = 31, 27


def filled(*polygons: np.ndarray, exclusive: bool = False) -> np.ndarray:
    return fill_slice([Polygon(p, exclusive) for p in polygons], WIDTH, HEIGHT)[0]


def square(low: float, high: float, shift: float = 0.0) -> np.ndarray:
    corners = np.array([[low, low], [high, low], [high, high], [low, high]])
    return corners + np.array([shift, 0.0])


@st.composite
def stars(draw: st.DrawFn) -> np.ndarray:
    """Star-shaped polygons with no vertex on the lattice."""
    count = draw(st.integers(5, 40))
    radii = draw(st.lists(st.floats(1, 12), min_size=count, max_size=count))
    x, y = draw(st.floats(10, 20)), draw(st.floats(9, 17))
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False) + draw(st.floats(0, 1))
    xy = np.column_stack([x + radii * np.cos(angle), y + radii * np.sin(angle)])
    return np.asarray(np.floor(xy * 100) / 100 + 0.0037123)


@settings(deadline=None, max_examples=80)
@given(stars())
def test_a_star_equals_scikit_image_and_matplotlib(star: np.ndarray) -> None:
    found = filled(star)
    by_skimage = polygon2mask((HEIGHT, WIDTH), star[:, ::-1])
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    centres = np.column_stack([x.ravel(), y.ravel()])
    by_matplotlib = matplotlib.path.Path(star).contains_points(centres).reshape(HEIGHT, WIDTH)
    np.testing.assert_array_equal(found, by_matplotlib)
    np.testing.assert_array_equal(found, by_skimage)


@settings(deadline=None, max_examples=30)
@given(stars(), st.integers(0, 39))
def test_neither_direction_nor_start_nor_repeated_points_matter(
    star: np.ndarray, start: int
) -> None:
    wanted = filled(star)
    np.testing.assert_array_equal(filled(star[::-1]), wanted)
    np.testing.assert_array_equal(filled(np.roll(star, start, axis=0)), wanted)
    np.testing.assert_array_equal(filled(np.repeat(star, 2, axis=0)), wanted)
    np.testing.assert_array_equal(filled(np.append(star, star[:1], axis=0)), wanted)


@settings(deadline=None, max_examples=30)
@given(stars(), stars())
def test_exclusive_contours_are_the_exclusive_or_of_each(
    first: np.ndarray, second: np.ndarray
) -> None:
    both = filled(first, second, exclusive=True)
    np.testing.assert_array_equal(both, filled(first) ^ filled(second))


def test_a_hole_is_the_same_drawn_as_a_keyhole_as_a_contour_and_exclusively() -> None:
    outer, inner = square(2.5, 22.5), square(8.5, 12.5)
    keyhole = np.concatenate([outer, outer[:1], inner[::-1], inner[-1:], outer[:1]])
    wanted = filled(outer) & ~filled(inner) & 1
    assert wanted.sum() == 400 - 16
    np.testing.assert_array_equal(filled(keyhole), wanted)
    np.testing.assert_array_equal(filled(outer, inner), wanted)
    np.testing.assert_array_equal(filled(outer, inner, exclusive=True), wanted)


def test_an_island_in_a_hole_is_filled() -> None:
    found = filled(square(1.5, 22.5), square(4.5, 18.5), square(8.5, 12.5))
    assert found.sum() == 21**2 - 14**2 + 4**2
    assert found[10, 10] == 1


def test_a_hole_drawn_a_little_over_the_edge_stays_a_hole() -> None:
    found, crosses = fill_slice(
        [Polygon(square(2.5, 22.5)), Polygon(square(2.5, 12.5, shift=-0.9))], WIDTH, HEIGHT
    )
    assert found[7, 7] == 0
    assert not crosses or found.sum() < 400


def test_contours_that_cross_are_taken_together_and_told() -> None:
    found, crosses = fill_slice(
        [Polygon(square(2.5, 10.5)), Polygon(square(2.5, 10.5, shift=5))], WIDTH, HEIGHT
    )
    assert crosses
    assert found.sum() == 8 * 13
    assert not fill_slice([Polygon(square(2.5, 10.5))], WIDTH, HEIGHT)[1]


def test_a_contour_given_twice_counts_once() -> None:
    once = filled(square(2.5, 10.5))
    np.testing.assert_array_equal(filled(square(2.5, 10.5), square(2.5, 10.5)[::-1]), once)


def test_structures_that_touch_share_no_pixel_and_leave_none_out() -> None:
    """Every vertex lies on a pixel centre, where the half-open rule decides."""
    left = np.array([[3, 3], [12, 3], [15, 11], [9, 20], [3, 20]], dtype=float)
    right = np.array([[12, 3], [24, 3], [24, 20], [9, 20], [15, 11]], dtype=float)
    both = np.array([[3, 3], [24, 3], [24, 20], [3, 20]], dtype=float)
    assert not (filled(left) & filled(right)).any()
    np.testing.assert_array_equal(filled(left) | filled(right), filled(both))


@pytest.mark.parametrize("beyond", [-0.5, 0.4])
def test_what_reaches_over_the_edge_of_the_image_is_cut(beyond: float) -> None:
    found = filled(square(beyond - 0.5, 40.0))
    np.testing.assert_array_equal(found, np.pad(np.ones((HEIGHT, WIDTH), np.uint8), 0))
