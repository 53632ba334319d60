"""All metrics of a batch of pairs at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nognet.metrics.deformation import folded_fraction
from nognet.metrics.image import mean_in_box, mean_without_rim, psnr, psnr_nodule, ssim_map
from nognet.metrics.overlap import dsc
from nognet.metrics.volume import (
    interval_coverage,
    interval_width,
    log_volume_error,
    volume_error,
)


@torch.no_grad()
def pair_metrics(
    predicted: Tensor,
    truth: Tensor,
    predicted_mask: Tensor,
    true_mask: Tensor,
    *,
    displacement_vox: Tensor | None = None,
    log_volume_radius: Tensor | None = None,
) -> dict[str, Tensor]:
    """Compute the metrics that each pair has on its own.

    Args:
        predicted: Predicted follow-up images ``(B, 1, D, H, W)`` in [0, 1].
        truth: True follow-up images of the same shape.
        predicted_mask: Probabilities of the follow-up mask, same shape.
        true_mask: True follow-up mask, {0, 1}, same shape.
        displacement_vox: The predictor's field ``(B, 3, D, H, W)``, where it has one.
        log_volume_radius: Half width ``(B,)`` of the interval of ln V, where there is one.

    Returns:
        Metric name (`nognet.metrics.definitions.PAIR_METRIC_NAMES`, in that order) to ``(B,)``
        float64; NaN means undefined for that pair (empty true mask, no field, no interval).

    Raises:
        ValueError: wrong shape or range.
        TrainingError: a value is not finite.
    """
    log_error = log_volume_error(predicted_mask, true_mask)
    undefined = torch.full_like(log_error, math.nan)
    similarity = ssim_map(predicted, truth)
    return {
        "psnr": psnr(predicted, truth),
        "psnr_nodule": psnr_nodule(predicted, truth, predicted_mask, true_mask),
        "ssim": mean_without_rim(similarity),
        "ssim_nodule": mean_in_box(similarity, true_mask),
        "dsc": dsc(predicted_mask, true_mask),
        "volume_error": volume_error(predicted_mask, true_mask),
        "log_volume_error": log_error,
        "folded_fraction": undefined
        if displacement_vox is None
        else folded_fraction(displacement_vox).to(log_error),
        "interval_coverage": undefined
        if log_volume_radius is None
        else interval_coverage(log_error, log_volume_radius),
        "interval_width": undefined
        if log_volume_radius is None
        else interval_width(log_volume_radius).to(log_error),
    }
