from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nognet.data.masks.components import Parts, split
from nognet.data.pairs.roi import nodule_points_mm, nodule_volume_mm3
from nognet.types import Geometry, Volume
from tests.builders.ct_files import ball, geometry, middle, rotation

GRID = geometry((40, 36, 20), (0.7, 0.8, 1.5), origin=(5, 6, 7), axes=rotation((10, 20, 30)))


def parts_of(mask: np.ndarray, grid: Geometry = GRID, gap: float = 3.0, least: float = 14) -> Parts:
    return split(Volume(mask.astype(np.uint8), grid), gap_mm=gap, min_volume_mm3=least)


def naive_groups(mask: np.ndarray, spacing_zyx: np.ndarray, gap: float) -> list[frozenset[int]]:
    """Join 26-connected parts by the least distance of their voxels' boxes, pair by pair."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    points = [np.argwhere(labels == i + 1) for i in range(count)]
    group = list(range(count))
    for i in range(count):
        for j in range(i):
            steps = np.abs(points[i][:, None] - points[j][None])
            apart = np.linalg.norm(np.maximum(steps - 1, 0) * spacing_zyx, axis=-1).min()
            if apart <= gap:
                group = [group[j] if g == group[i] else g for g in group]
    flat = [np.ravel_multi_index(p.T, mask.shape) for p in points]
    found = {g: np.concatenate([f for f, h in zip(flat, group, strict=True) if h == g])
             for g in set(group)}  # fmt: skip
    return sorted((frozenset(v.tolist()) for v in found.values()), key=sorted)


def voxels_on(part: Volume, grid: Geometry) -> frozenset[int]:
    x, y, z = np.round(grid.world_to_index(nodule_points_mm(part))).astype(int).T
    return frozenset(np.ravel_multi_index((z, y, x), grid.size[::-1]).tolist())


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(0, 39), st.integers(0, 35), st.integers(0, 19), st.floats(0, 4)),
        min_size=1,
        max_size=7,
    ),
    st.sampled_from([0.0, 1.0, 3.0, 5.0]),
)
def test_random_balls_are_split_as_the_naive_loop_splits_them(
    balls: list[tuple[int, int, int, float]], gap: float
) -> None:
    mask = np.zeros(GRID.size[::-1], dtype=np.uint8)
    for x, y, z, radius in balls:
        mask |= ball(GRID, GRID.index_to_world(np.array([x, y, z], dtype=float)), radius + 1e-6)
    found = parts_of(mask, gap=gap, least=0)
    wanted = naive_groups(mask, np.array(GRID.spacing_mm[::-1]), gap)
    assert sorted((voxels_on(v, GRID) for v in found.nodules), key=sorted) == wanted
    volumes = [nodule_volume_mm3(v) for v in found.nodules]
    assert volumes == sorted(volumes, reverse=True)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0, 60))
def test_no_voxel_is_lost_or_counted_twice(seed: int, least: float) -> None:
    rng = np.random.default_rng(seed)
    mask = (rng.random(GRID.size[::-1]) > 0.995).astype(np.uint8)
    mask[8:12, 10:16, 10:16] = 1
    found = parts_of(mask, gap=1.0, least=least)
    there = sum(nodule_volume_mm3(v) for v in found.nodules) + sum(found.specks_mm3)
    assert there == pytest.approx(mask.sum() * GRID.voxel_volume_mm3)
    assert all(volume < least for volume in found.specks_mm3)


def test_the_gap_is_measured_from_surface_to_surface_in_millimetres() -> None:
    grid = geometry((30, 10, 10), (0.5, 1.0, 2.0))
    mask = np.zeros((10, 10, 30), dtype=np.uint8)
    mask[4:6, 4:6, 2:5] = mask[4:6, 4:6, 11:14] = 1  # six empty voxels of 0.5 mm between
    assert len(parts_of(mask, grid, gap=3.0, least=0).nodules) == 1
    assert len(parts_of(mask, grid, gap=2.9, least=0).nodules) == 2


def test_voxels_that_share_a_corner_are_one_part_even_without_any_gap() -> None:
    mask = np.zeros(GRID.size[::-1], dtype=np.uint8)
    mask[5, 5, 5] = mask[6, 6, 6] = 1
    assert len(parts_of(mask, gap=0.0, least=0).nodules) == 1


def test_specks_are_left_aside_but_a_small_nodule_alone_is_kept() -> None:
    nodule = ball(GRID, middle(GRID), 4.0)
    speck = np.zeros_like(nodule)
    speck[1, 1, 1:4] = 1
    both = parts_of(nodule | speck)
    assert len(both.nodules) == 1
    assert nodule_volume_mm3(both.nodules[0]) == pytest.approx(nodule.sum() * GRID.voxel_volume_mm3)
    assert both.specks_mm3 == pytest.approx((3 * GRID.voxel_volume_mm3,))
    alone = parts_of(speck)
    assert len(alone.nodules) == 1
    assert alone.specks_mm3 == ()


def test_every_part_comes_cropped_with_a_rim() -> None:
    mask = np.zeros(GRID.size[::-1], dtype=np.uint8)
    mask[0:3, 0:3, 0:3] = mask[-4:, -4:, -4:] = 1
    found = parts_of(mask)
    assert [v.array.shape for v in found.nodules] == [(6, 6, 6), (5, 5, 5)]
    for part in found.nodules:
        assert part.array[1:-1, 1:-1, 1:-1].all()
        assert part.array.sum() == part.array[1:-1, 1:-1, 1:-1].size


def test_equal_parts_come_in_the_order_of_the_array() -> None:
    mask = np.zeros(GRID.size[::-1], dtype=np.uint8)
    for start in (14, 2, 8):
        mask[start : start + 2, 10:16, 10:16] = 1
    places = [p.geometry.origin_mm for p in parts_of(mask, gap=0.5).nodules]
    index = [GRID.world_to_index(np.array(p))[2] for p in places]
    assert np.round(index).tolist() == [1, 7, 13]


def test_a_mask_on_every_other_slice_is_seen_and_two_nodules_apart_are_not() -> None:
    nodule = ball(GRID, middle(GRID), 6.0)
    striped = nodule.copy()
    striped[::2] = 0
    found = parts_of(striped)
    assert found.gaps >= 2
    assert found.missing_fraction > 0.5
    apart = np.roll(ball(GRID, middle(GRID), 3.0), -6, axis=0) | np.roll(
        ball(GRID, middle(GRID), 3.0), 6, axis=0
    )
    assert parts_of(apart).gaps == 0


def test_a_stray_voxel_above_a_nodule_is_hardly_missing_anything() -> None:
    mask = ball(GRID, middle(GRID), 6.0)
    top = int(np.flatnonzero(mask.any(axis=(1, 2)))[-1])
    mask[top + 2, 18, 20] = 1
    assert parts_of(mask).missing_fraction < 0.01


def test_the_mask_is_not_changed() -> None:
    mask = ball(GRID, middle(GRID), 4.0)
    before = mask.copy()
    parts_of(mask)
    np.testing.assert_array_equal(mask, before)
