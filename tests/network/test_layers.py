from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from nognet.network.layers import depth_to_space, dilate, space_to_depth, time_factor


@given(factor=st.sampled_from([1, 2, 4]), channels=st.integers(1, 3))
@settings(max_examples=12, deadline=None)
def test_folding_voxels_into_channels_is_undone(factor: int, channels: int) -> None:
    x = torch.rand((2, channels, 8, 4, 12), generator=torch.Generator().manual_seed(1))
    folded = space_to_depth(x, factor)
    assert folded.shape == (2, channels * factor**3, 8 // factor, 4 // factor, 12 // factor)
    assert torch.equal(depth_to_space(folded, factor), x)


def test_space_to_depth_keeps_the_neighbours_of_a_block_together() -> None:
    x = torch.arange(64.0).reshape(1, 1, 4, 4, 4)
    block = space_to_depth(x, 2)[0, :, 0, 0, 0]
    assert block.tolist() == x[0, 0, :2, :2, :2].flatten().tolist()


@pytest.mark.parametrize("radius", [1, 2])
def test_dilation_axis_by_axis_equals_the_cube(radius: int) -> None:
    mask = (
        torch.rand((2, 1, 9, 10, 11), generator=torch.Generator().manual_seed(0)) > 0.95
    ).float()
    expected = F.max_pool3d(mask, 2 * radius + 1, 1, radius)
    assert torch.equal(dilate(mask, radius), expected)


def test_time_acts_not_at_all_at_0_days_and_fully_after_years() -> None:
    factor = time_factor(torch.tensor([0.0, 30.0, 365.0, 3650.0]))
    assert factor[0].item() == 0.0
    assert (factor.diff() > 0).all()
    assert factor[-1].item() == pytest.approx(1.0, abs=1e-6)
