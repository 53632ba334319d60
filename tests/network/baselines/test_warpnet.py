from __future__ import annotations

import torch

from nognet.network.baselines.warpnet import build_warpnet
from nognet.network.warp import warp


def _inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    image = torch.rand((2, 1, 32, 32, 32), generator=torch.Generator().manual_seed(0))
    mask = torch.zeros_like(image)
    mask[:, :, 12:20, 12:20, 13:19] = 1.0
    return image, mask, torch.tensor([100.0, 800.0])


def test_untrained_it_is_near_copy() -> None:
    image, mask, days = _inputs()
    found = build_warpnet(8, torch.Generator().manual_seed(1))(image, mask, days)
    torch.testing.assert_close(found.image, image, atol=0.02, rtol=0)
    torch.testing.assert_close(found.mask, mask, atol=0.02, rtol=0)
    assert 0 < found.displacement_vox.abs().max() < 0.02


def test_image_and_mask_are_the_baseline_s_warped_by_its_field_and_nothing_else() -> None:
    image, mask, days = _inputs()
    network = build_warpnet(8, torch.Generator().manual_seed(1))
    with torch.no_grad():
        network.displacement.outer.bias.copy_(torch.tensor([0.5, -1.0, 0.0]))
        found = network(image, mask, days)
    assert found.displacement_vox.abs().amax() > 1.5  # voxels of the ROI, twice the coarse ones
    assert torch.equal(found.image, warp(image, found.displacement_vox))
    assert torch.equal(found.mask, warp(mask, found.displacement_vox))
    assert torch.count_nonzero(found.residual) == 0
