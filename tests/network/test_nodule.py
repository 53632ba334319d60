from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nognet.metrics.deformation import folded_fraction
from nognet.network.nodule import (
    DESCRIPTOR_COUNT,
    _edge,
    _form,
    growth_field,
    nodule_descriptors,
    nodule_shape,
)
from nognet.network.warp import voxel_positions, warp

SIZE = (32, 32, 32)


MIDDLE = (15.5, 15.5, 15.5)


def ball(radius_vox: float, centre: tuple[float, float, float] = MIDDLE) -> torch.Tensor:
    middle = torch.tensor(centre)[None, :, None, None, None]
    offset = voxel_positions(SIZE, torch.device("cpu")) - middle
    return (offset.square().sum(1, keepdim=True).sqrt() <= radius_vox).float()


def test_a_balls_centroid_and_radius_are_found() -> None:
    shape = nodule_shape(ball(6.0, (14.0, 15.0, 17.0)))
    torch.testing.assert_close(shape.centroid_vox, torch.tensor([[14.0, 15.0, 17.0]]))
    assert shape.radius_vox.item() == pytest.approx(6.0, rel=0.02)


def test_an_empty_mask_has_the_middle_and_no_radius() -> None:
    shape = nodule_shape(torch.zeros(1, 1, *SIZE))
    assert shape.centroid_vox.tolist() == [[15.5, 15.5, 15.5]]
    assert shape.radius_vox.item() == 0.0


@given(log_growth=st.floats(-0.7, 1.3))
@settings(max_examples=15, deadline=None)
def test_a_ball_grows_by_the_volume_ratio_asked_for(log_growth: float) -> None:
    mask = ball(5.0)
    field = growth_field(nodule_shape(mask), torch.tensor([log_growth]), SIZE)
    grown = warp(mask, field).sum() / mask.sum()
    assert math.log(grown) == pytest.approx(log_growth, abs=0.06)


@given(log_growth=st.floats(-9.0, 3.0), radius=st.floats(2.0, 8.0))
@settings(max_examples=40, deadline=None)
def test_no_growth_and_no_shrinkage_folds(log_growth: float, radius: float) -> None:
    field = growth_field(nodule_shape(ball(radius)), torch.tensor([log_growth]), SIZE)
    assert folded_fraction(field).item() == 0.0


def test_no_growth_is_exactly_no_displacement() -> None:
    field = growth_field(nodule_shape(ball(5.0)), torch.zeros(1), SIZE)
    assert torch.count_nonzero(field) == 0


def test_far_from_the_nodule_nothing_moves() -> None:
    field = growth_field(nodule_shape(ball(3.0)), torch.tensor([0.5]), SIZE)
    assert field[..., 0, 0, 0].abs().max() < 1e-3


def test_descriptors_tell_a_ball_from_a_star() -> None:
    round_one = ball(6.0)
    star = round_one.clone()
    star[:, :, 14:17, 14:17, 4:28] = 1.0
    star[:, :, 4:28, 14:17, 14:17] = 1.0
    described = nodule_descriptors(torch.cat([round_one, star]) * 0.6, torch.cat([round_one, star]))
    assert described.shape == (2, DESCRIPTOR_COUNT)
    assert described[1, 7] > described[0, 7] + 0.5  # surface by dilation
    assert described[1, 10] > described[0, 10] + 0.5  # surface by faces


def test_descriptors_do_not_change_when_the_nodule_is_turned() -> None:
    generator = torch.Generator().manual_seed(0)
    image, mask = torch.rand((1, 1, *SIZE), generator=generator), ball(6.0, (13.0, 15.0, 18.0))
    turned = image.permute(0, 1, 4, 2, 3).flip(3), mask.permute(0, 1, 4, 2, 3).flip(3)
    torch.testing.assert_close(
        nodule_descriptors(image, mask), nodule_descriptors(*turned), rtol=1e-3, atol=1e-3
    )


def test_descriptors_of_an_empty_mask_are_finite_and_so_is_their_slope() -> None:
    image = torch.rand((1, 1, *SIZE), generator=torch.Generator().manual_seed(0)).requires_grad_()
    described = nodule_descriptors(image, torch.zeros(1, 1, *SIZE))
    described.sum().backward()
    assert torch.isfinite(described).all()
    assert image.grad is not None
    assert torch.isfinite(image.grad).all()


def _ellipsoid(axes_vox: tuple[float, float, float]) -> torch.Tensor:
    offset = voxel_positions(SIZE, torch.device("cpu")) - 15.5
    scaled = offset / torch.tensor(axes_vox)[None, :, None, None, None]
    return (scaled.square().sum(1, keepdim=True) <= 1.0).float()


@given(
    axes=st.tuples(st.floats(5.0, 10.0), st.floats(5.0, 10.0), st.floats(5.0, 10.0)),
)
@settings(max_examples=15, deadline=None)
def test_form_has_the_closed_form_of_an_ellipsoid(axes: tuple[float, float, float]) -> None:
    volume_ratio, second_moment, _, elongation = (v.item() for v in _form(_ellipsoid(axes)))
    mean_square = sum(a * a for a in axes) / 3
    assert volume_ratio == pytest.approx(1.0, abs=0.03)
    assert second_moment == pytest.approx(mean_square / math.prod(axes) ** (2 / 3), rel=0.03)
    assert elongation == pytest.approx(2 * math.log(max(axes) / min(axes)), abs=0.08)


def test_a_blurred_edge_shows_in_the_rings_outside() -> None:
    mask = ball(6.0)
    sharp = 0.1 + 0.5 * mask
    blurred = torch.nn.functional.avg_pool3d(sharp, 5, 1, 2, count_include_pad=False)
    for crisp, soft in zip(_edge(sharp, mask), _edge(blurred, mask), strict=True):
        assert crisp.item() == pytest.approx(0.0, abs=1e-5)
        assert soft.item() > 0.03
