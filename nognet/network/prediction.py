"""What a network gives for a batch of pairs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class DeepPrediction:
    """The prediction at a coarser scale, for deep supervision.

    Attributes:
        scale: Voxels of the ROI along an edge of one voxel here (2 or 4).
        image: ``(B, 1, D/scale, H/scale, W/scale)``.
        mask: The same shape, in [0, 1].
    """

    scale: int
    image: Tensor
    mask: Tensor


@dataclass(frozen=True)
class AttentionMap:
    """Where one task looked in the other's features.

    Attributes:
        task: The task that looks.
        scale: Voxels of the ROI along an edge of a voxel of the features (8 or 4).
        weights: ``(B, Q, K)``, mean over heads; each row sums to 1. Tokens are cubes of the ROI in
            z, y, x order.
    """

    task: str
    scale: int
    weights: Tensor


@dataclass(frozen=True)
class Prediction:
    """The follow-up as predicted, all float32.

    Attributes:
        image: Follow-up ROI, ``(B, 1, D, H, W)``.
        mask: Probability of the nodule at follow-up, ``(B, 1, D, H, W)`` in [0, 1].
        displacement_vox: Pull-back field ``(B, 3, D, H, W)``, voxels, z, y, x order.
        residual: Texture added to the warped baseline, ``(B, 1, D, H, W)``.
        log_growth: Natural logarithm of the volume ratio by the growth head, ``(B,)``; None where
            a network has no such head.
        log_growth_spread: How far the true one is off (mean absolute error, predicted), ``(B,)``.
        baseline_mask: Probability of the nodule at baseline ``(B, 1, D, H, W)`` by the network's
            own segmentation; None where it has none.
        deep: At 1/2 and 1/4 scale.
        attention: Cross-task attention, coarsest first; none while training.
    """

    image: Tensor
    mask: Tensor
    displacement_vox: Tensor
    residual: Tensor
    log_growth: Tensor | None = None
    log_growth_spread: Tensor | None = None
    baseline_mask: Tensor | None = None
    deep: tuple[DeepPrediction, ...] = ()
    attention: tuple[AttentionMap, ...] = ()
