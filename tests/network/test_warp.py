from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from nognet.metrics.deformation import folded_fraction, jacobian_determinant
from nognet.network.warp import (
    compose,
    integrate_velocity,
    upsample_displacement,
    voxel_positions,
    warp,
)

SIZE = (10, 12, 14)


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_the_identity_leaves_the_image_as_it_is() -> None:
    image = _random(2, 1, *SIZE)
    still = torch.zeros(2, 3, *SIZE)
    torch.testing.assert_close(warp(image, still), image, atol=1e-5, rtol=0)


def test_warp_equals_scipy_with_the_border_repeated() -> None:
    image = _random(1, 1, *SIZE)
    field = (_random(1, 3, *SIZE, seed=1) - 0.5) * 6
    where = (voxel_positions(SIZE, torch.device("cpu")) + field)[0].numpy()
    expected = map_coordinates(image[0, 0].numpy(), where, order=1, mode="nearest")
    np.testing.assert_allclose(warp(image, field)[0, 0].numpy(), expected, atol=2e-5)


def test_displacement_pulls_back_along_z_y_x() -> None:
    image = torch.zeros(1, 1, *SIZE)
    image[0, 0, 5, 6, 7] = 1.0
    field = torch.zeros(1, 3, *SIZE)
    field[:, 0], field[:, 1], field[:, 2] = 1.0, 2.0, 3.0
    moved = warp(image, field)
    assert torch.nonzero(moved[0, 0] > 0.5).tolist() == [[4, 4, 4]]


def test_warp_leaves_its_inputs_unchanged() -> None:
    image, field = _random(1, 1, *SIZE), _random(1, 3, *SIZE, seed=1)
    before = image.clone(), field.clone()
    warp(image, field)
    assert torch.equal(image, before[0])
    assert torch.equal(field, before[1])


def test_warp_stays_in_float32_under_autocast() -> None:
    image, field = _random(1, 1, *SIZE), _random(1, 3, *SIZE, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        warped = warp(image, field)
    assert warped.dtype == torch.float32
    assert torch.equal(warped, warp(image, field))


@given(scale=st.floats(0.5, 2.0))
@settings(max_examples=20, deadline=None)
def test_the_jacobian_of_a_scaling_is_its_cube(scale: float) -> None:
    positions = voxel_positions((6, 6, 6), torch.device("cpu"))
    determinant = jacobian_determinant((scale - 1.0) * positions)
    torch.testing.assert_close(
        determinant, torch.full_like(determinant, scale**3), rtol=1e-3, atol=1e-4
    )


def test_a_mirrored_axis_is_folded_everywhere_and_the_identity_nowhere() -> None:
    positions = voxel_positions((6, 6, 6), torch.device("cpu"))
    mirror = torch.zeros_like(positions)
    mirror[:, 2] = -2.0 * positions[:, 2]
    assert folded_fraction(mirror).item() == 1.0
    assert folded_fraction(torch.zeros_like(positions)).item() == 0.0


def test_a_finer_field_is_longer_in_voxels() -> None:
    coarse = torch.full((1, 3, 4, 4, 4), 1.5)
    finer = upsample_displacement(coarse)
    assert finer.shape == (1, 3, 8, 8, 8)
    torch.testing.assert_close(finer, torch.full_like(finer, 3.0))


@pytest.mark.parametrize("shape", [(4, 4, 4), (5, 7, 9)])
def test_positions_are_indices_in_z_y_x_order(shape: tuple[int, int, int]) -> None:
    positions = voxel_positions(shape, torch.device("cpu"))[0]
    index = tuple(n - 1 for n in shape)
    assert positions[:, index[0], index[1], index[2]].tolist() == list(index)


def test_integration_of_a_constant_velocity_is_a_shift() -> None:
    velocity = torch.full((1, 3, 8, 8, 8), 0.75)
    torch.testing.assert_close(integrate_velocity(velocity, 4), velocity, atol=1e-6, rtol=0)


def test_integration_of_a_linear_velocity_is_the_exponential() -> None:
    position = torch.arange(33, dtype=torch.float32) - 16
    velocity = torch.zeros(1, 3, 33, 33, 33)
    velocity[0, 0] = (-0.4 * position)[:, None, None]
    field = integrate_velocity(velocity, 8)[0, 0, 4:29, 16, 16]
    exact = (math.exp(-0.4) - 1) * position[4:29]
    torch.testing.assert_close(field, exact, atol=0.02, rtol=0)


def test_integrating_back_undoes_it() -> None:
    generator = torch.Generator().manual_seed(0)
    rough = torch.randn((1, 3, 6, 6, 6), generator=generator)
    velocity = torch.nn.functional.interpolate(
        rough, size=(24, 24, 24), mode="trilinear", align_corners=True
    )
    there, back = integrate_velocity(velocity, 7), integrate_velocity(-velocity, 7)
    rest = compose(there, back)[..., 6:-6, 6:-6, 6:-6]
    assert rest.abs().max() < 0.1 * there.abs().max()
