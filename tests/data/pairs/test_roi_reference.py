"""Cut ROIs against an independent reference: scipy in world space, any native grid, any map."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import convolve1d, map_coordinates
from scipy.special import ive

from nognet.config import RoiConfig
from nognet.data.pairs.register import Registration
from nognet.data.pairs.roi import (
    covered_fraction,
    crop_mask,
    cut_image,
    cut_mask,
    nodule_centre_mm,
    nodule_volume_mm3,
    roi_grid,
)
from nognet.types import Geometry, Volume
from tests.builders.ct_files import ball, geometry, middle, rotation, world_of

STAY = Registration.identity().transform()
MATRIX = rotation((7, -5, 11)) @ np.diag([1.05, 0.98, 1 / (1.05 * 0.98)])
SHIFT = np.array([31.0, -12.5, 405.0])
WAYS = {
    "straight": (rotation((0, 0, 0)), (0.7, 0.7, 1.0)),
    "slices reversed": (np.diag([1.0, 1, -1]), (0.7, 0.7, 1.25)),
    "all axes reversed": (np.diag([-1.0, -1, -1]), (0.8, 0.6, 2.5)),
    "oblique": (rotation((12, -20, 33)), (0.6, 0.9, 2.0)),
    "sagittal": (rotation((90, 0, 90)) @ np.diag([1.0, -1, -1]), (0.7, 0.7, 1.5)),
    "oblique, one axis reversed": (rotation((-9, 4, 80)) @ np.diag([1.0, -1, 1]), (0.5, 0.5, 5.0)),
}


def native(way: str, centre_mm: np.ndarray) -> Geometry:
    """A grid of about 110 mm an axis around a point."""
    axes, spacing = WAYS[way]
    n = [int(110 / s) for s in spacing]
    at_zero = geometry((n[0], n[1], n[2]), spacing, axes=axes)
    x, y, z = (centre_mm - middle(at_zero)).tolist()
    return geometry((n[0], n[1], n[2]), spacing, origin=(x, y, z), axes=axes)


def blurred(hu: np.ndarray, grid: Geometry) -> np.ndarray:
    """Blur axes finer than 1 mm by the discrete Gaussian (Lindeberg 1990, Bessel functions)."""
    for axis, spacing in enumerate(grid.spacing_mm[::-1]):
        variance_vox = max(0.0, 1 - spacing**2) / (8 * np.log(2)) / spacing**2
        if variance_vox > 0:
            kernel = ive(np.abs(np.arange(-12, 13)), variance_vox)
            hu = convolve1d(hu, kernel, axis=axis, mode="nearest")
    return hu


@pytest.mark.parametrize("size_vox", [48, pytest.param(64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("whole_numbers", [True, False])
def test_an_affinely_mapped_image_equals_scipys(
    way: str, size_vox: int, whole_numbers: bool
) -> None:
    target = roi_grid(np.array([3.3, -7.1, 12.9]), size_vox)
    grid = native(way, MATRIX @ middle(target) + SHIFT)
    values = np.random.default_rng(1).uniform(-1024, 600, grid.size[::-1])
    hu = np.rint(values).astype(np.int16) if whole_numbers else values.astype(np.float32)
    move = sitk.AffineTransform(MATRIX.ravel().tolist(), SHIFT.tolist())
    there = world_of(target) @ MATRIX.T + SHIFT
    axes, spacing = np.array(grid.direction), np.array(grid.spacing_mm)
    index = (there - np.array(grid.origin_mm)) @ axes / spacing  # columns of axes: x, y, z
    reference = map_coordinates(
        blurred(hu.astype(float), grid), np.moveaxis(index[..., ::-1], -1, 0), order=1, cval=np.nan
    )
    roi = RoiConfig(size_vox=size_vox, hu_window=(-1000.0, 300.0))
    wanted = np.clip((reference + 1000) / 1300, 0, 1)
    found = cut_image(Volume(hu, grid), target, move, roi)
    inside = np.isfinite(wanted)
    assert inside.mean() > 0.95
    np.testing.assert_allclose(found[inside], wanted[inside], atol=3e-3)
    assert covered_fraction(grid, target, move) == pytest.approx(inside.mean(), abs=0.05)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("growth", [1.0, 2.0, 3.0])
def test_the_growth_on_the_roi_is_the_growth_on_the_native_grids(way: str, growth: float) -> None:
    target = roi_grid(np.array([3.3, -7.1, 12.9]), 48)
    place = middle(target) + np.array([0.2, 0.4, -0.3])
    before_grid = native("straight", place)
    after_grid = native(way, MATRIX @ place + SHIFT)
    radii = 5.0, 5.0 * growth ** (1 / 3)
    before = crop_mask(ball(before_grid, place, radii[0]), before_grid)
    after = crop_mask(ball(after_grid, MATRIX @ place + SHIFT, radii[1]), after_grid)
    move = sitk.AffineTransform(MATRIX.ravel().tolist(), SHIFT.tolist())
    masks = cut_mask(before, target, STAY)[0], cut_mask(after, target, move)[0]
    ratio = nodule_volume_mm3(after) / nodule_volume_mm3(before)
    assert masks[1].sum() / masks[0].sum() == pytest.approx(ratio, rel=0.02)
    index = np.argwhere(masks[1])[:, ::-1].astype(float)
    back = np.linalg.solve(MATRIX, nodule_centre_mm(after) - SHIFT)
    assert np.linalg.norm(target.index_to_world(index).mean(axis=0) - back) < 0.3


def test_noise_finer_than_the_roi_is_averaged_and_not_folded_into_it() -> None:
    rng = np.random.default_rng(0)
    seen = []
    for spacing in ((0.5, 0.5, 0.625), (0.7, 0.7, 1.0), (1.0, 1.0, 1.0)):
        n = [int(60 / s) for s in spacing]
        grid = geometry((n[0], n[1], n[2]), spacing)
        noise_hu = 40 / np.sqrt(np.prod(spacing))  # one dose: variance goes by 1 / volume
        hu = (-300 + rng.normal(0, noise_hu, grid.size[::-1])).astype(np.float32)
        off_voxels = middle(grid) + np.array([0.23, 0.31, 0.27]) * spacing
        cut = cut_image(Volume(hu, grid), roi_grid(off_voxels, 48), STAY, RoiConfig())
        seen.append(float(cut.std()) * 1424)
    assert max(seen) / min(seen) < 1.5  # by linear interpolation alone: 2.8
    assert max(seen) < 40


def test_a_nodule_larger_than_the_roi_fills_it() -> None:
    grid = native("oblique", np.zeros(3))
    mask = crop_mask(ball(grid, middle(grid), 45.0), grid)
    target = roi_grid(middle(grid), 48)
    cut, inside = cut_mask(mask, target, STAY)
    assert cut.all()
    assert inside == pytest.approx(48**3 / nodule_volume_mm3(mask), rel=0.01)


def test_of_two_nodules_that_touch_each_keeps_its_volume_and_none_is_in_both() -> None:
    grid = native("straight", np.zeros(3))
    left = ball(grid, np.array([-5.1, 0.3, 0.2]), 5.0)
    right = ball(grid, np.array([4.9, 0.3, 0.2]), 5.0) * (1 - left)
    target = roi_grid(np.zeros(3), 48)
    cuts = [cut_mask(crop_mask(mask, grid), target, STAY)[0] for mask in (left, right)]
    for cut, mask in zip(cuts, (left, right), strict=True):
        assert cut.sum() == pytest.approx(mask.sum() * grid.voxel_volume_mm3, rel=0.02)
    assert (cuts[0] & cuts[1]).sum() <= 0.01 * cuts[0].sum()
