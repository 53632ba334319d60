"""Geometry maps there and back; values check themselves and aren't changed."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.transform import Rotation

from nognet.types import (
    GROWING_RATIO,
    SHRINKING_RATIO,
    SPLITS,
    STRATA,
    Geometry,
    Matrix3,
    RoiPair,
    Volume,
    stratum_of,
)

_lengths = st.floats(0.1, 10)
_places = st.floats(-1000, 1000)
_points = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 5), st.just(3)), elements=st.floats(-500, 500)
)


def _matrix(rows: np.ndarray) -> Matrix3:
    a, b, c = (tuple(float(x) for x in row) for row in rows)
    return (a, b, c)  # type: ignore[return-value]  # three numbers each, which mypy can't count


@st.composite
def _geometries(draw: st.DrawFn) -> Geometry:
    angles = draw(st.tuples(*[st.floats(-math.pi, math.pi)] * 3))
    rotation = Rotation.from_euler("xyz", angles).as_matrix()
    if draw(st.booleans()):
        rotation = rotation @ np.diag([1.0, 1.0, -1.0])  # a stack from head to feet
    return Geometry(
        size=draw(st.tuples(*[st.integers(1, 600)] * 3)),
        spacing_mm=draw(st.tuples(*[_lengths] * 3)),
        origin_mm=draw(st.tuples(*[_places] * 3)),
        direction=_matrix(rotation),
    )


@given(geometry=_geometries(), index=_points)
def test_index_to_world_and_back_is_the_identity(geometry: Geometry, index: np.ndarray) -> None:
    back = geometry.world_to_index(geometry.index_to_world(index))
    np.testing.assert_allclose(back, index, atol=1e-7)


@given(geometry=_geometries(), world=_points)
def test_world_to_index_and_back_is_the_identity(geometry: Geometry, world: np.ndarray) -> None:
    back = geometry.index_to_world(geometry.world_to_index(world))
    np.testing.assert_allclose(back, world, atol=1e-7)


@given(geometry=_geometries(), index=_points)
def test_world_positions_are_those_of_itk(geometry: Geometry, index: np.ndarray) -> None:
    image = sitk.Image([1, 1, 1], sitk.sitkUInt8)
    image.SetSpacing(geometry.spacing_mm)
    image.SetOrigin(geometry.origin_mm)
    image.SetDirection([value for row in geometry.direction for value in row])
    itk = [image.TransformContinuousIndexToPhysicalPoint(point.tolist()) for point in index]
    np.testing.assert_allclose(geometry.index_to_world(index), itk, atol=1e-6)


@given(geometry=_geometries())
def test_steps_between_neighbours_are_the_spacing(geometry: Geometry) -> None:
    origin = geometry.index_to_world(np.zeros(3))
    np.testing.assert_allclose(origin, geometry.origin_mm, atol=1e-9)
    steps = np.linalg.norm(geometry.index_to_world(np.eye(3)) - origin, axis=1)
    np.testing.assert_allclose(steps, geometry.spacing_mm, rtol=1e-6)
    assert geometry.voxel_volume_mm3 == pytest.approx(math.prod(geometry.spacing_mm))


def test_mapping_leaves_its_input_as_it_was() -> None:
    geometry = Geometry(size=(4, 5, 6), spacing_mm=(1.0, 2.0, 3.0), origin_mm=(7.0, 8.0, 9.0))
    for dtype in (np.float32, np.float64):
        points = np.arange(6, dtype=dtype).reshape(2, 3)
        before = points.copy()
        geometry.index_to_world(points)
        geometry.world_to_index(points)
        np.testing.assert_array_equal(points, before)


def test_points_may_have_any_leading_shape_and_be_whole_numbers() -> None:
    geometry = Geometry(size=(2, 2, 2), spacing_mm=(0.5, 1.0, 2.0))
    assert geometry.index_to_world(np.zeros((3, 4, 3))).shape == (3, 4, 3)
    np.testing.assert_array_equal(geometry.index_to_world(np.array([1, 1, 1])), [0.5, 1.0, 2.0])


def test_the_columns_of_direction_are_the_axes() -> None:
    # x of the grid runs along +y of the patient, y along -x.
    direction: Matrix3 = ((0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
    geometry = Geometry(size=(9, 9, 9), spacing_mm=(2.0, 3.0, 4.0), direction=direction)
    np.testing.assert_allclose(geometry.index_to_world(np.array([1.0, 0, 0])), [0, 2, 0])
    np.testing.assert_allclose(geometry.index_to_world(np.array([0, 1.0, 0])), [-3, 0, 0])


def test_a_volume_holds_its_array_in_z_y_x_order() -> None:
    geometry = Geometry(size=(4, 3, 2), spacing_mm=(1.0, 1.0, 1.0))
    assert Volume(np.zeros((2, 3, 4)), geometry).array.shape == (2, 3, 4)
    for wrong in ((4, 3, 2), (2, 3), (2, 3, 4, 1)):
        with pytest.raises(ValueError, match=r"size \(4, 3, 2\) \(x, y, z\)"):
            Volume(np.zeros(wrong), geometry)


@given(baseline=st.floats(1, 1e5), ratio=st.floats(0.1, 10))
def test_every_pair_is_in_exactly_one_stratum(baseline: float, ratio: float) -> None:
    follow_up = baseline * ratio
    found = stratum_of(baseline, follow_up)
    exact = follow_up / baseline
    assert (found == "growing") == (exact >= GROWING_RATIO)
    assert (found == "shrinking") == (exact <= SHRINKING_RATIO)
    assert found in STRATA


def _pair(baseline_mm3: float, follow_up_mm3: float, days: float) -> RoiPair:
    image, mask = np.zeros((2, 2, 2), np.float32), np.zeros((2, 2, 2), np.uint8)
    return RoiPair("0a", "0b", image, mask, image, mask, days, baseline_mm3, follow_up_mm3)


def test_growth_of_a_pair_is_per_year_whatever_its_interval() -> None:
    assert _pair(100, 200, 365.25).log_growth_per_year == pytest.approx(math.log(2))
    assert _pair(100, 200, 365.25 / 2).log_growth_per_year == pytest.approx(2 * math.log(2))
    assert _pair(100, 50, 365.25).log_growth_per_year == pytest.approx(-math.log(2))
    assert _pair(100, 125, 30).stratum == "growing"


def test_values_are_frozen() -> None:
    geometry = Geometry(size=(1, 1, 1), spacing_mm=(1.0, 1.0, 1.0))
    for value, field in ((geometry, "size"), (_pair(1, 1, 1), "pair_id")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field, None)


def test_the_splits_are_the_three_in_order() -> None:
    assert SPLITS == ("train", "validation", "test")
