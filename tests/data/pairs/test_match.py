from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nognet.data.pairs.match import Match, distances_mm, match_nodules
from nognet.data.pairs.register import Registration
from nognet.data.pairs.roi import crop_mask, nodule_centre_mm
from nognet.types import Volume
from tests.builders.ct_files import ball, geometry, rotation

Point = tuple[float, float, float]
FIELD = st.tuples(*[st.floats(-60.0, 60.0)] * 3)
ANGLES = st.tuples(*[st.floats(-15.0, 15.0)] * 3)


def anyone(baseline: int, follow_up: int) -> bool:
    del baseline, follow_up
    return True


def nodule_at(centre: Point | np.ndarray, radius_mm: float = 3.0) -> Volume:
    x, y, z = (float(c) - 5.3 for c in centre)
    grid = geometry((15, 15, 12), (0.8, 0.8, 1.0), origin=(x, y, z))
    return crop_mask(ball(grid, np.asarray(centre, dtype=float), radius_mm), grid)


def rigid(degrees: Point = (0.0, 0.0, 0.0), shift_mm: Point = (0.0, 0.0, 0.0)) -> Registration:
    matrix = rotation(degrees)
    values = tuple(float(v) for v in matrix.ravel())
    return Registration(values, shift_mm, 0.9, 0.0, 0.0, 0.0, kind="rigid")


def moved(points: np.ndarray, by: Registration) -> np.ndarray:
    return np.asarray(points @ np.array(by.matrix).reshape(3, 3).T + np.array(by.translation_mm))


def apart(points: list[Point]) -> float:
    away = np.linalg.norm(np.array(points)[:, None] - np.array(points)[None], axis=-1)
    return float(away[~np.eye(len(points), dtype=bool)].min(initial=np.inf))


@settings(max_examples=30, deadline=None)
@given(
    points=st.lists(FIELD, min_size=1, max_size=5),
    degrees=ANGLES,
    shift=FIELD,
    order=st.randoms(use_true_random=False),
    error=st.tuples(*[st.floats(-2.0, 2.0)] * 3),
)
def test_nodules_find_themselves_whatever_order_they_are_listed_in(
    points: list[Point], degrees: Point, shift: Point, order: Random, error: Point
) -> None:
    assume(apart(points) >= 12.0)  # errors of registration of up to 3.5 mm
    true = rigid(degrees, shift)
    swapped = list(range(len(points)))
    order.shuffle(swapped)
    later = moved(np.array(points), true) + np.array(error)
    baseline = [nodule_at(p) for p in points]
    follow_up = [nodule_at(later[i]) for i in swapped]
    found = match_nodules(baseline, follow_up, [true] * len(points), allowed=anyone)
    assert [(m.baseline, swapped[m.follow_up]) for m in found] == [
        (i, i) for i in range(len(points))
    ]
    assert all(m.distance_mm <= np.linalg.norm(error) + 0.8 for m in found)


@settings(max_examples=20, deadline=None)
@given(points=st.lists(FIELD, min_size=2, max_size=4), reach=st.floats(1.0, 200.0))
def test_a_match_is_one_to_one_allowed_and_no_nearer_free_pair_was_passed_over(
    points: list[Point], reach: float
) -> None:
    half = len(points) // 2 + 1
    baseline = [nodule_at(p) for p in points[:half]]
    follow_up = [nodule_at(p) for p in points[half - 1 :]]
    maps = [rigid()] * len(baseline)
    distance = distances_mm(baseline, follow_up, maps)
    found = match_nodules(
        baseline, follow_up, maps, allowed=lambda i, j: bool(distance[i, j] < reach)
    )
    for side in ("baseline", "follow_up"):
        chosen = [getattr(m, side) for m in found]
        assert len(set(chosen)) == len(chosen)
    assert all(m.distance_mm == distance[m.baseline, m.follow_up] < reach for m in found)
    for i, j in np.argwhere(distance < reach):
        blocking = [m for m in found if m.baseline == i or m.follow_up == j]
        assert min(m.distance_mm for m in blocking) <= distance[i, j]


def test_two_nodules_12_mm_apart_keep_apart_where_the_patient_moved_by_as_much() -> None:
    here = np.array([[10.0, 0.0, 0.0], [22.0, 0.0, 0.0]])
    map_ = rigid(shift_mm=(12.0, 0.0, 0.0))  # by positions alone, one lands on the other
    baseline = [nodule_at(p) for p in here]
    follow_up = [nodule_at(p) for p in moved(here, map_)[::-1]]
    found = match_nodules(baseline, follow_up, [map_] * 2, allowed=anyone)
    assert [(m.baseline, m.follow_up) for m in found] == [(0, 1), (1, 0)]
    unregistered = match_nodules(baseline, follow_up, [rigid()] * 2, allowed=anyone)
    assert unregistered[0].follow_up != found[0].follow_up


def test_each_nodule_is_mapped_by_its_own_registration() -> None:
    baseline = [nodule_at((0.0, 0.0, 0.0)), nodule_at((0.0, 0.0, 60.0))]
    maps = [rigid(shift_mm=(0.0, 0.0, 2.0)), rigid(shift_mm=(0.0, 0.0, 20.0))]
    follow_up = [nodule_at((0.0, 0.0, 80.0)), nodule_at((0.0, 0.0, 2.0))]
    distance = distances_mm(baseline, follow_up, maps)
    np.testing.assert_allclose(distance, [[78.0, 0.0], [0.0, 78.0]], atol=0.2)


def test_a_vanished_and_a_new_nodule_stay_without_a_match() -> None:
    baseline = [nodule_at((0.0, 0.0, 0.0)), nodule_at((30.0, 0.0, 0.0))]
    follow_up = [nodule_at((0.0, -40.0, 0.0)), nodule_at((1.0, 0.0, 0.0))]
    maps = [rigid()] * 2
    near = distances_mm(baseline, follow_up, maps) <= 15.0
    found = match_nodules(baseline, follow_up, maps, allowed=lambda i, j: bool(near[i, j]))
    assert [(m.baseline, m.follow_up) for m in found] == [(0, 1)]


def test_a_forbidden_pair_gives_way_to_the_next() -> None:
    baseline = [nodule_at((0.0, 0.0, 0.0))]
    follow_up = [nodule_at((1.0, 0.0, 0.0)), nodule_at((5.0, 0.0, 0.0))]
    found = match_nodules(baseline, follow_up, [rigid()], allowed=lambda _, j: j != 0)
    assert [(m.baseline, m.follow_up) for m in found] == [(0, 1)]
    assert found[0].distance_mm == pytest.approx(5.0, abs=0.2)


def test_of_equal_distances_the_one_listed_first_wins() -> None:
    side = nodule_at((0.0, 0.0, 0.0))
    found = match_nodules([side, side], [side, side], [rigid()] * 2, allowed=anyone)
    assert found == (Match(0, 0, 0.0), Match(1, 1, 0.0))


def test_without_nodules_there_are_no_matches() -> None:
    side = nodule_at((0.0, 0.0, 0.0))
    assert match_nodules([], [side], [], allowed=anyone) == ()
    assert match_nodules([side], [], [rigid()], allowed=anyone) == ()
    assert distances_mm([side], [], [rigid()]).shape == (1, 0)


def test_a_registration_that_is_missing_is_an_error() -> None:
    side = nodule_at((0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="2 nodules at the baseline need as many maps: 1"):
        match_nodules([side, side], [side], [rigid()], allowed=anyone)


def test_a_registration_is_measured_again_for_the_nodule_that_was_matched() -> None:
    found = rigid(shift_mm=(5.0, 0.0, 0.0))
    here, there = nodule_at((0.0, 0.0, 0.0)), nodule_at((5.0, 4.0, 0.0))
    again = found.between(here, there)
    assert again.nodule_displacement_mm == pytest.approx(4.0, abs=0.2)
    assert again.matrix == found.matrix
    np.testing.assert_allclose(nodule_centre_mm(here), 0.0, atol=0.2)
