"""Volumes on the 1 mm ROI grid, their errors, and predicted growth."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nognet.errors import SiteDataError
from nognet.metrics.checks import binary_mask, checked_masks

VOXEL_VOLUME_MM3 = 1.0
LOG_VOLUME_FLOOR_MM3 = 1.0


def volume_mm3(mask: Tensor) -> Tensor:
    """Sum a mask or its probabilities ``(B, 1, D, H, W)`` on the 1 mm grid: ``(B,)`` mm3."""
    return mask.to(torch.float64).sum(dim=(1, 2, 3, 4)) * VOXEL_VOLUME_MM3


def volume_error(predicted_mask: Tensor, true_mask: Tensor) -> Tensor:
    """Compute the relative error of the follow-up volume, ``|V_hat - V| / V``.

    Args:
        predicted_mask: Probabilities ``(B, 1, D, H, W)`` in [0, 1]; V_hat is their sum.
        true_mask: True follow-up mask, {0, 1}, of the same shape.

    Returns:
        ``(B,)`` float64; NaN (undefined) where the true mask is empty.

    Raises:
        ValueError: wrong shape or range.
        TrainingError: a value is not finite.
    """
    predicted, true = (volume_mm3(mask) for mask in checked_masks(predicted_mask, true_mask))
    return _defined((predicted - true).abs() / true, true)


def log_volume_error(predicted_mask: Tensor, true_mask: Tensor) -> Tensor:
    """Compute the error of the logarithm of the follow-up volume, ``|ln(V_hat / V)|``.

    V_hat is floored at 1 mm3, so that an empty prediction has a large and finite error.

    Args:
        predicted_mask: Probabilities ``(B, 1, D, H, W)`` in [0, 1]; V_hat is their sum.
        true_mask: True follow-up mask, {0, 1}, of the same shape.

    Returns:
        ``(B,)`` float64; NaN (undefined) where the true mask is empty.

    Raises:
        ValueError: wrong shape or range.
        TrainingError: a value is not finite.
    """
    predicted, true = (volume_mm3(mask) for mask in checked_masks(predicted_mask, true_mask))
    ratio = predicted.clamp_min(LOG_VOLUME_FLOOR_MM3) / true
    return _defined(torch.log(ratio).abs(), true)


def interval_coverage(log_error: Tensor, log_volume_radius: Tensor) -> Tensor:
    """Say whether the true volume lies in the predicted interval.

    Args:
        log_error: ``|ln(V_hat / V)|``, ``(B,)``; NaN where undefined.
        log_volume_radius: The interval is ``V_hat exp(+-radius)``, ``(B,)``.

    Returns:
        ``(B,)`` of 1 and 0; NaN where the error is, or where the interval is unbounded.
    """
    inside = (log_error <= log_volume_radius).to(log_error)
    defined = torch.isfinite(log_error) & torch.isfinite(log_volume_radius)
    return torch.where(defined, inside, torch.full_like(inside, math.nan))


def interval_width(log_volume_radius: Tensor) -> Tensor:
    """Width of the interval, as the natural logarithm of upper over lower volume: ``(B,)``.

    NaN where the interval is unbounded.
    """
    return torch.where(torch.isfinite(log_volume_radius), 2 * log_volume_radius, math.nan)


def growth_ratio(predicted_mask: Tensor, baseline_mask: Tensor) -> Tensor:
    """Compute the predicted volume ratio V_hat / V0, the score of `growth_auc`.

    Args:
        predicted_mask: Probabilities ``(B, 1, D, H, W)`` of the follow-up mask.
        baseline_mask: True baseline mask, {0, 1}, of the same shape.

    Returns:
        ``(B,)`` float64.

    Raises:
        ValueError: wrong shape or range.
        TrainingError: a value is not finite.
        SiteDataError: a baseline mask is empty.
    """
    probability, baseline = checked_masks(predicted_mask, binary_mask(baseline_mask))
    volumes = volume_mm3(baseline)
    if bool((volumes == 0).any()):
        raise SiteDataError(
            "a pair has an empty baseline mask, expected a nodule; prepare the site's data again",
            code="empty-baseline-mask",
        )
    return volume_mm3(probability) / volumes


def _defined(error: Tensor, true_volume: Tensor) -> Tensor:
    return torch.where(true_volume > 0, error, torch.full_like(error, math.nan))
