from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nognet.phantom.growth import RULES, Kind
from nognet.phantom.nodule import body_at, relative_radius, signed_distance
from nognet.phantom.render import render_mask
from tests.builders.phantom_scene import (
    ball_look,
    drawn_look,
    grid,
    moved,
    nodule_plan,
    one_nodule_scene,
)

KINDS: list[Kind] = list(RULES)


def test_distance_to_a_ball_is_exact() -> None:
    body = body_at(ball_look(), nodule_plan(diameter_mm=10.0), 0.0)
    points = np.array([[0.0, 3.0, 0.0], [0.0, 0.0, 7.5], [3.0, 4.0, 0.0]])
    assert signed_distance(body, points) == pytest.approx([-2.0, 2.5, 0.0], abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_volume_agrees_with_counting_random_points(kind: Kind) -> None:
    plan = nodule_plan(kind, 9.0, rate=0.8)
    body = body_at(drawn_look(kind, 2), plan, 500.0)
    rng = np.random.default_rng(0)
    side = 2 * body.reach_mm
    points = rng.uniform(-side / 2, side / 2, (400_000, 3))
    inside = float(np.mean(signed_distance(body, points) < 0)) * side**3
    assert body.volume_mm3 == pytest.approx(plan.volume_mm3(500.0))
    assert inside == pytest.approx(body.volume_mm3, rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_sign_of_the_distance_is_that_of_the_surface(kind: Kind) -> None:
    body = body_at(drawn_look(kind, 3), nodule_plan(kind), 0.0)
    points = np.random.default_rng(1).uniform(-8, 8, (20_000, 3))
    scaled = points / body.axes_mm
    radius = np.linalg.norm(scaled, axis=1)
    beyond = radius - relative_radius(body.look, scaled / radius[:, None])
    clear = np.abs(beyond) > 1e-4
    assert ((signed_distance(body, points) < 0) == (beyond < 0))[clear].all()


@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 1000),
    diameter_mm=st.floats(6.0, 14.0),
    pixel_mm=st.floats(0.55, 0.95),
    slice_mm=st.floats(0.6, 1.0),
    place=st.tuples(*[st.floats(-1.0, 1.0)] * 3),
)
@settings(max_examples=60, deadline=None)
def test_mask_holds_the_true_volume_on_any_grid(
    kind: Kind,
    seed: int,
    diameter_mm: float,
    pixel_mm: float,
    slice_mm: float,
    place: tuple[float, float, float],
) -> None:
    plan = nodule_plan(kind, diameter_mm)
    motion = moved()
    scene = one_nodule_scene(drawn_look(kind, seed), plan, centre_mm=place, motion=motion)
    centre = motion.to_scan(np.array([place]))[0]
    geometry = grid(
        spacing_mm=(pixel_mm, pixel_mm, slice_mm),
        extent_mm=40.0,
        centre_mm=(float(centre[0]), float(centre[1]), float(centre[2])),
    )
    mask = render_mask(scene, scene.nodules[0], geometry)
    measured = float(mask.sum()) * geometry.voxel_volume_mm3
    assert measured == pytest.approx(plan.volume_mm3(0), rel=0.02)


def test_mask_is_the_inside_of_the_surface_but_for_a_hair() -> None:
    plan = nodule_plan("spiculated", 9.0)
    scene = one_nodule_scene(drawn_look("spiculated", 8), plan)
    geometry = grid()
    mask = render_mask(scene, scene.nodules[0], geometry).astype(bool)
    index = np.argwhere(np.ones_like(mask))[:, ::-1].astype(np.float64)
    distance = signed_distance(scene.nodules[0].body, geometry.index_to_world(index))
    wrong = mask.reshape(-1) != (distance < 0)
    assert np.abs(distance[wrong]).max(initial=0.0) < 0.15


def test_a_part_solid_core_condenses_as_the_nodule_grows() -> None:
    look = drawn_look("part_solid", 1)
    plan = nodule_plan("part_solid", 10.0, rate=math.log(2))
    first, later = body_at(look, plan, 0.0).look, body_at(look, plan, 365.25).look
    assert later.core_fraction > first.core_fraction > 0
    assert later.hu > first.hu


def test_growing_leaves_the_look_untouched() -> None:
    look = drawn_look("spiculated", 4)
    before = look.heights.copy(), look.axes.copy()
    body_at(look, nodule_plan("spiculated", 8.0, rate=1.0), 700.0)
    assert np.array_equal(look.heights, before[0])
    assert np.array_equal(look.axes, before[1])
