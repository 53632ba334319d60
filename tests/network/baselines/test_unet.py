from __future__ import annotations

import torch

from nognet.network.baselines.unet import build_unet, mask_logits


def _inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    image = torch.rand((1, 1, 32, 32, 32), generator=torch.Generator().manual_seed(0))
    mask = torch.zeros_like(image)
    mask[:, :, 12:20, 12:20, 13:19] = 1.0
    return image, mask, torch.tensor([400.0])


def test_untrained_it_is_near_copy() -> None:
    image, mask, days = _inputs()
    found = build_unet(8, torch.Generator().manual_seed(1))(image, mask, days)
    torch.testing.assert_close(found.image, image, atol=0.02, rtol=0)
    assert torch.equal(found.mask > 0.5, mask > 0.5)


def test_nothing_is_warped_and_the_image_is_baseline_and_residual() -> None:
    image, mask, days = _inputs()
    found = build_unet(8, torch.Generator().manual_seed(1))(image, mask, days)
    assert torch.count_nonzero(found.displacement_vox) == 0
    assert torch.equal(found.image, image + found.residual)


def test_the_logits_carry_the_mask_s_sign_even_for_a_single_voxel() -> None:
    mask = torch.zeros((1, 1, 8, 8, 8))
    mask[0, 0, 4, 4, 4] = 1.0
    logits = mask_logits(mask)
    assert torch.equal(logits > 0, mask > 0)
    assert logits[0, 0, 0, 0, 0] == -8.0
    assert mask_logits(torch.ones_like(mask)).eq(8.0).all()
