"""All metrics of a batch of pairs at once."""

from __future__ import annotations

import torch
from torch import Tensor

from nognet.metrics.image import mean_in_box, mean_without_rim, psnr, psnr_nodule, ssim_map
from nognet.metrics.overlap import dsc
from nognet.metrics.volume import log_volume_error, volume_error


@torch.no_grad()
def pair_metrics(
    predicted: Tensor, truth: Tensor, predicted_mask: Tensor, true_mask: Tensor
) -> dict[str, Tensor]:
    """Compute the seven metrics that each pair has on its own.

    Args:
        predicted: Predicted follow-up images ``(B, 1, D, H, W)`` in [0, 1].
        truth: True follow-up images of the same shape.
        predicted_mask: Probabilities of the follow-up mask, same shape.
        true_mask: True follow-up mask, {0, 1}, same shape.

    Returns:
        Metric name (`nognet.metrics.definitions.PAIR_METRIC_NAMES`, in that order) to ``(B,)``
        float64; NaN means undefined for that pair (empty true mask).

    Raises:
        ValueError: wrong shape or range.
        TrainingError: a value is not finite.
    """
    similarity = ssim_map(predicted, truth)
    return {
        "psnr": psnr(predicted, truth),
        "psnr_nodule": psnr_nodule(predicted, truth, predicted_mask, true_mask),
        "ssim": mean_without_rim(similarity),
        "ssim_nodule": mean_in_box(similarity, true_mask),
        "dsc": dsc(predicted_mask, true_mask),
        "volume_error": volume_error(predicted_mask, true_mask),
        "log_volume_error": log_volume_error(predicted_mask, true_mask),
    }
