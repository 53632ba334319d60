"""The loss: every term a mean over samples, so that the gradient of one sample is well defined.

Terms after NoFoNet eqs. 3-8, with a term on the growth rate that is ours. `loss_terms` gives each
term for each sample; `total_loss` weighs and sums them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nognet.config import LossConfig
from nognet.network.batch import Batch
from nognet.network.layers import dilate
from nognet.network.prediction import Prediction

_SPREAD_FLOOR = 1e-3
_RATE_BETA = 0.2  # smooth L1 turns from quadratic to linear at this log volume ratio


def total_loss(prediction: Prediction, batch: Batch, weights: LossConfig) -> Tensor:
    """Weighted sum of the terms, one value a sample: ``(B,)``."""
    terms = loss_terms(prediction, batch)
    return torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum(0)


def loss_terms(prediction: Prediction, batch: Batch) -> dict[str, Tensor]:
    """Every term of the loss by its name in `LossConfig`, each ``(B,)``.

    A term for which the network has no head is 0.
    """
    error = prediction.image - batch.target_image
    focus = region_of_interest(batch.mask, batch.target_mask)
    return {
        "image_l1": _mean(error.abs()),
        "image_mse": _mean(error.square()),
        "ncc": 1.0 - correlation(prediction.image, batch.target_image),
        "region_l1": _mean_in(error.abs(), focus),
        "dice": soft_dice_loss(prediction.mask, batch.target_mask),
        "growth_rate": growth_rate_loss(prediction.log_growth, batch.log_growth),
        "growth_spread": growth_spread_loss(prediction, batch.log_growth),
        "segmentation": segmentation_loss(prediction.baseline_mask, batch.mask),
        "smoothness": smoothness(prediction.displacement_vox),
        "residual": _mean(prediction.residual.abs()),
        "deep_supervision": _deep_supervision(prediction, batch),
    }


def correlation(image: Tensor, target: Tensor) -> Tensor:
    """Pearson correlation of two images over the whole ROI, ``(B,)``; 0 for a constant image."""
    first, second = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (image, target))
    scale = (first.square().sum(1) * second.square().sum(1) + 1e-12).sqrt()
    return (first * second).sum(1) / scale


def growth_rate_loss(log_growth: Tensor | None, truth: Tensor) -> Tensor:
    """Smooth L1 of the log volume ratio, ``(B,)``."""
    if log_growth is None:
        return torch.zeros_like(truth)
    return F.smooth_l1_loss(log_growth, truth, reduction="none", beta=_RATE_BETA)


def growth_spread_loss(prediction: Prediction, truth: Tensor) -> Tensor:
    """Laplace likelihood ``|error| / b + ln b`` of the predicted spread b, ``(B,)``.

    The error is held fixed: the spread learns how far the prediction is off, and doesn't move it.
    """
    if prediction.log_growth is None or prediction.log_growth_spread is None:
        return torch.zeros_like(truth)
    spread = prediction.log_growth_spread.clamp_min(_SPREAD_FLOOR)
    error = (prediction.log_growth - truth).detach().abs()
    return error / spread + spread.log()


def segmentation_loss(predicted: Tensor | None, mask: Tensor) -> Tensor:
    """Soft Dice of the baseline's own segmentation, ``(B,)``; 0 where there is no mask to learn."""
    if predicted is None:
        return mask.new_zeros(mask.shape[0])
    return soft_dice_loss(predicted, mask) * (mask.flatten(1).amax(1) > 0)


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
    if not prediction.deep:
        return torch.zeros_like(batch.interval_days)
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
