"""MONAI as an independent reference for the parts that it has too."""

from __future__ import annotations

import warnings

import pytest
import torch

from nognet.metrics.image import ssim
from nognet.network.losses import soft_dice_loss
from nognet.network.warp import warp

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of MONAI's own optional imports
    from monai.losses import DiceLoss
    from monai.metrics import SSIMMetric
    from monai.networks.blocks import Warp

pytestmark = pytest.mark.slow  # MONAI takes seconds to import


def _random(*shape: int, seed: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.filterwarnings("ignore:monai.networks.blocks.Warp")
def test_warp_equals_monais() -> None:
    image, field = _random(2, 1, 12, 14, 16, seed=0), 4 * _random(2, 3, 12, 14, 16, seed=1) - 2
    expected = Warp(mode="bilinear", padding_mode="border")(image, field)
    torch.testing.assert_close(warp(image, field), expected, atol=2e-5, rtol=0)


def test_soft_dice_equals_monais_with_one_as_smoothing() -> None:
    a, b = _random(3, 1, 8, 8, 8, seed=0), (_random(3, 1, 8, 8, 8, seed=1) > 0.5).float()
    reference = DiceLoss(smooth_nr=1.0, smooth_dr=1.0, reduction="none")(a, b).reshape(3)
    torch.testing.assert_close(soft_dice_loss(a, b), reference)


def test_ssim_equals_monais() -> None:
    a = _random(2, 1, 20, 20, 20, seed=0)
    b = (a + 0.2 * _random(2, 1, 20, 20, 20, seed=1)).clamp(0, 1)
    metric = SSIMMetric(spatial_dims=3, data_range=1.0, win_size=11, kernel_sigma=1.5)
    torch.testing.assert_close(ssim(a, b).float(), metric(a, b).reshape(2), atol=1e-5, rtol=0)
