from __future__ import annotations

import torch

from nognet.network import Prior
from nognet.network.baselines.wnet import build_wnet
from nognet.network.warp import warp


def _inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    image = torch.rand((2, 1, 32, 32, 32), generator=torch.Generator().manual_seed(0))
    mask = torch.zeros_like(image)
    mask[:, :, 12:20, 12:20, 13:19] = 1.0
    return image, mask, torch.tensor([100.0, 800.0])


def test_it_reads_the_prior_scan_and_its_interval() -> None:
    image, mask, days = _inputs()
    network = build_wnet(8, torch.Generator().manual_seed(1))
    prior = Prior(image.flip(2), mask, torch.tensor([90.0, 90.0]))
    found = network(image, mask, days, prior)
    other_scan = Prior(image, mask, prior.days_before)
    other_days = Prior(prior.image, mask, torch.tensor([400.0, 90.0]))
    assert not torch.allclose(network(image, mask, days, other_scan).mask, found.mask, atol=1e-6)
    sooner = network(image, mask, days, other_days).displacement_vox
    assert not torch.equal(sooner[0], found.displacement_vox[0])
    torch.testing.assert_close(sooner[1], found.displacement_vox[1])


def test_a_missing_prior_is_the_baseline_again() -> None:
    image, mask, days = _inputs()
    network = build_wnet(8, torch.Generator().manual_seed(1))
    found = network(image, mask, days)
    stood_in = network(image, mask, days, Prior.baseline_again(image, mask))
    assert torch.equal(found.image, stood_in.image)
    assert torch.equal(found.mask, stood_in.mask)


def test_no_mask_is_read() -> None:
    image, mask, days = _inputs()
    network = build_wnet(8, torch.Generator().manual_seed(1))
    prior = Prior(image.flip(2), mask, torch.tensor([90.0, 90.0]))
    blind = Prior(prior.image, torch.zeros_like(mask), prior.days_before)
    found, unseen = (
        network(image, mask, days, prior),
        network(image, torch.zeros_like(mask), days, blind),
    )
    assert torch.equal(found.image, unseen.image)
    assert torch.equal(found.mask, unseen.mask)


def test_the_image_starts_near_copy_and_is_warped_baseline_and_residual() -> None:
    image, mask, days = _inputs()
    found = build_wnet(8, torch.Generator().manual_seed(1))(image, mask, days)
    torch.testing.assert_close(found.image, image, atol=0.02, rtol=0)
    assert torch.equal(found.image, warp(image, found.displacement_vox) + found.residual)
    assert found.mask.max() < 0.1
