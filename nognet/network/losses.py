"""The loss: every term a mean over samples, so that the gradient of one sample is well defined.

Terms after NoFoNet eqs. 3-8, with a term on the growth rate that is ours. `loss_terms` gives each
term for each sample; `total_loss` weighs and sums them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nognet.config import LossConfig
from nognet.network.layers import dilate
from nognet.network.prediction import Prediction

_RATE_BETA = 0.2  # smooth L1 turns from quadratic to linear at this log volume ratio


@dataclass(frozen=True)
class Batch:
    """A batch of pairs as tensors.

    Attributes:
        image: Baseline ``(B, 1, D, H, W)`` in [0, 1].
        mask: Baseline nodule, the same shape, in {0, 1}.
        target_image: Follow-up, as `image`.
        target_mask: Follow-up nodule, as `mask`.
        interval_days: ``(B,)``.
        log_growth: Natural logarithm of the true volume ratio on the native grid, ``(B,)``.
    """

    image: Tensor
    mask: Tensor
    target_image: Tensor
    target_mask: Tensor
    interval_days: Tensor
    log_growth: Tensor

    def to(self, device: torch.device) -> Batch:
        """Copy to a device."""
        return Batch(
            self.image.to(device),
            self.mask.to(device),
            self.target_image.to(device),
            self.target_mask.to(device),
            self.interval_days.to(device),
            self.log_growth.to(device),
        )


def total_loss(prediction: Prediction, batch: Batch, weights: LossConfig) -> Tensor:
    """Weighted sum of the terms, one value a sample: ``(B,)``."""
    terms = loss_terms(prediction, batch)
    return torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum(0)


def loss_terms(prediction: Prediction, batch: Batch) -> dict[str, Tensor]:
    """Every term of the loss by its name in `LossConfig`, each ``(B,)``."""
    error = prediction.image - batch.target_image
    focus = region_of_interest(batch.mask, batch.target_mask)
    return {
        "image_l1": _mean(error.abs()),
        "image_mse": _mean(error.square()),
        "region_l1": _mean_in(error.abs(), focus),
        "dice": soft_dice_loss(prediction.mask, batch.target_mask),
        "growth_rate": F.smooth_l1_loss(
            prediction.log_growth, batch.log_growth, reduction="none", beta=_RATE_BETA
        ),
        "smoothness": smoothness(prediction.displacement_vox),
        "residual": _mean(prediction.residual.abs()),
        "deep_supervision": _deep_supervision(prediction, batch),
    }


def region_of_interest(mask: Tensor, target_mask: Tensor) -> Tensor:
    """Union of both nodules and its rim of 2 voxels (regional focus)."""
    return dilate(torch.maximum(mask, target_mask), 2)


def soft_dice_loss(mask: Tensor, target_mask: Tensor) -> Tensor:
    """1 - (2 sum(a b) + 1) / (sum(a) + sum(b) + 1), one value a sample; 0 for two empty masks."""
    overlap = (mask * target_mask).flatten(1).sum(1)
    total = mask.flatten(1).sum(1) + target_mask.flatten(1).sum(1)
    return 1.0 - (2.0 * overlap + 1.0) / (total + 1.0)


def smoothness(displacement_vox: Tensor) -> Tensor:
    """Mean squared forward difference of the field, summed over the three axes, ``(B,)``."""
    return torch.stack([_mean(displacement_vox.diff(dim=k).square()) for k in (2, 3, 4)]).sum(0)


def _deep_supervision(prediction: Prediction, batch: Batch) -> Tensor:
    """L1 of the image and Dice of the mask at each coarser scale, averaged over the scales."""
    terms = []
    for deep in prediction.deep:
        target_image = F.avg_pool3d(batch.target_image, deep.scale)
        target_mask = F.avg_pool3d(batch.target_mask, deep.scale)
        terms.append(
            _mean((deep.image - target_image).abs()) + soft_dice_loss(deep.mask, target_mask)
        )
    return torch.stack(terms).mean(0)


def _mean(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1)


def _mean_in(values: Tensor, region: Tensor) -> Tensor:
    """Mean over a region, ``(B,)``; 0 over an empty one."""
    return (values * region).flatten(1).sum(1) / region.flatten(1).sum(1).clamp_min(1.0)
