"""Overlap of masks: the Dice similarity coefficient."""

from __future__ import annotations

import torch
from torch import Tensor

from nognet.metrics.checks import MASK_THRESHOLD, checked_masks


def dsc(predicted_mask: Tensor, true_mask: Tensor) -> Tensor:
    """Compute Dice of the predicted mask (probability > 0.5) and the true one.

    Args:
        predicted_mask: Probabilities ``(B, 1, D, H, W)`` in [0, 1].
        true_mask: True follow-up mask, {0, 1}, of the same shape.

    Returns:
        ``(B,)`` float64; 1 where both masks are empty.

    Raises:
        ValueError: wrong shape or range.
        TrainingError: a value is not finite.
    """
    probability, true = checked_masks(predicted_mask, true_mask)
    predicted = (probability > MASK_THRESHOLD).to(true.dtype)
    axes = (1, 2, 3, 4)
    total = predicted.sum(dim=axes) + true.sum(dim=axes)
    both = (predicted * true).sum(dim=axes)
    return torch.where(total > 0, 2 * both / total.clamp_min(1), torch.ones_like(total))
