from __future__ import annotations

import torch

from nognet.network.baselines.nofonet import NoFoNet, build_nofonet
from nognet.network.layers import dilate


def _inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    image = torch.rand((2, 1, 32, 32, 32), generator=torch.Generator().manual_seed(0))
    mask = torch.zeros_like(image)
    mask[:, :, 12:20, 12:20, 13:19] = 1.0
    return image, mask, torch.tensor([100.0, 800.0])


def _painting() -> NoFoNet:
    network = build_nofonet(8, torch.Generator().manual_seed(1))
    with torch.no_grad():
        network.residual.outer.bias.fill_(0.3)
    return network


def test_untrained_it_is_near_copy() -> None:
    image, mask, days = _inputs()
    found = build_nofonet(8, torch.Generator().manual_seed(1))(image, mask, days)
    torch.testing.assert_close(found.image, image, atol=0.02, rtol=0)
    torch.testing.assert_close(found.mask, mask, atol=0.02, rtol=0)


def test_it_paints_within_the_dilated_warped_mask_alone() -> None:
    image, mask, days = _inputs()
    network = _painting()
    found, moved = network(image, mask, days), network.motion(image, mask, days)
    gate = dilate(moved.mask, 2)
    assert torch.equal(found.image, moved.image + found.residual)
    assert torch.count_nonzero(found.residual[gate == 0]) == 0
    assert (found.residual[gate > 0.9] > 0.2).all()
    assert torch.equal(found.mask, moved.mask)


def test_without_a_mask_nothing_is_painted() -> None:
    image, mask, days = _inputs()
    found = _painting()(image, torch.zeros_like(mask), days)
    assert torch.count_nonzero(found.residual) == 0
