from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from nognet.config import RoiConfig
from nognet.data.pairs.register import Registration
from nognet.data.pairs.roi import (
    covered_fraction,
    crop,
    crop_mask,
    cut_image,
    cut_mask,
    inside_fraction,
    nodule_centre_mm,
    nodule_points_mm,
    nodule_volume_mm3,
    roi_grid,
)
from nognet.types import Volume
from tests.builders.ct_files import ball, geometry, middle, rotation, world_of

ROI = RoiConfig(size_vox=32)
STAY = Registration.identity().transform()


def test_the_image_equals_linear_interpolation_by_scipy() -> None:
    grid = geometry((40, 44, 20), (1.1, 1.0, 2.2), origin=(5, -7, 9), axes=rotation((8, -12, 20)))
    hu = np.random.default_rng(0).uniform(-1024, 400, grid.size[::-1]).astype(np.float32)
    target = roi_grid(middle(grid), 32)
    index = grid.world_to_index(world_of(target))[..., ::-1]
    wanted = map_coordinates(hu, np.moveaxis(index, -1, 0), order=1, cval=np.nan)
    found = cut_image(Volume(hu, grid), target, STAY, ROI)
    inside = np.isfinite(wanted)
    assert inside.mean() > 0.5
    np.testing.assert_allclose(found[inside], (wanted[inside] + 1024) / 1424, atol=2e-4)
    assert found.dtype == np.float32


def test_outside_the_field_of_view_is_air() -> None:
    grid = geometry((20, 20, 20), (1.0, 1.0, 1.0))
    target = roi_grid(np.array([0.0, 9.5, 9.5]), 32)
    found = cut_image(Volume(np.full((20, 20, 20), 400, np.int16), grid), target, STAY, ROI)
    assert (found[:, :, :15] == 0).all()
    assert found[16, 16, 20] == 1
    assert covered_fraction(grid, target, STAY) < 0.5


def test_the_follow_up_is_resampled_once_by_the_whole_transform() -> None:
    grid = geometry((40, 40, 40), (1.0, 1.0, 1.0))
    ramp = (world_of(grid) @ np.array([3.0, 5.0, -7.0])).astype(np.float32)
    move = sitk.AffineTransform([0.0, -1, 0, 1, 0, 0, 0, 0, 1], [39.3, 0.0, 0.6])
    target = roi_grid(np.array([19.5] * 3), 32)
    found = cut_image(Volume(ramp, grid), target, move, ROI)
    x, y, z = np.moveaxis(world_of(target), -1, 0)
    wanted = 3 * (39.3 - y) + 5 * x - 7 * (z + 0.6)
    inner = (slice(2, -2),) * 3
    np.testing.assert_allclose(found[inner], ((wanted + 1024) / 1424)[inner], atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    degrees=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing=st.tuples(st.floats(0.5, 1.0), st.floats(0.5, 1.0), st.floats(0.6, 2.5)),
    radius=st.floats(3.0, 9.0),
)
def test_volumes_and_centres_survive_the_cut(
    degrees: tuple[float, float, float], spacing: tuple[float, float, float], radius: float
) -> None:
    n = [int(24 / s) + 2 for s in spacing]
    grid = geometry((n[0], n[1], n[2]), spacing, origin=(1, 2, 3), axes=rotation(degrees))
    nodule = crop_mask(ball(grid, middle(grid), radius), grid)
    target = roi_grid(nodule_centre_mm(nodule), 32)
    mask, inside = cut_mask(nodule, target, STAY)
    assert inside == 1.0
    assert mask.sum() == pytest.approx(nodule_volume_mm3(nodule), rel=0.02, abs=2)
    points = target.index_to_world(np.argwhere(mask)[:, ::-1].astype(float))
    assert np.linalg.norm(points.mean(axis=0) - nodule_centre_mm(nodule)) < 0.3


def test_a_cut_nodule_says_how_much_is_inside() -> None:
    grid = geometry((60, 60, 60), (1.0, 1.0, 1.0))
    nodule = crop_mask(ball(grid, middle(grid), 8.0), grid)
    target = roi_grid(middle(grid) + np.array([16.0, 0, 0]), 32)
    assert inside_fraction(nodule, target, STAY) == pytest.approx(0.5, abs=0.03)
    mask, inside = cut_mask(nodule, target, STAY)
    assert mask.sum() == pytest.approx(inside * nodule_volume_mm3(nodule), rel=0.02)


def test_crops_keep_every_voxel_where_it_was_and_change_no_input() -> None:
    grid = geometry((30, 25, 20), (0.7, 0.8, 2.0), origin=(1, 2, 3), axes=rotation((10, 20, 30)))
    mask = ball(grid, grid.index_to_world(np.array([2.0, 3.0, 4.0])), 3.0)
    before = mask.copy()
    points = nodule_points_mm(crop_mask(mask, grid))
    np.testing.assert_array_equal(mask, before)
    np.testing.assert_allclose(points, world_of(grid)[mask > 0], atol=1e-9)
    volume = Volume(np.arange(15000).reshape(20, 25, 30), grid)
    part = crop(volume, middle(grid), 4.0)
    assert part.array.size < volume.array.size
    index = grid.world_to_index(part.geometry.index_to_world(np.array([1.0, 2.0, 1.0])))
    x, y, z = np.round(index).astype(int)
    np.testing.assert_allclose(index, np.round(index), atol=1e-9)
    assert part.array[1, 2, 1] == volume.array[z, y, x]
