"""What MT-NoGNet gives for a batch of pairs."""

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
class Prediction:
    """The follow-up as predicted, all float32.

    Attributes:
        image: Follow-up ROI, ``(B, 1, D, H, W)``.
        mask: Probability of the nodule at follow-up, ``(B, 1, D, H, W)`` in [0, 1].
        displacement_vox: Pull-back field ``(B, 3, D, H, W)``, voxels, z, y, x order.
        residual: Texture added to the warped baseline, ``(B, 1, D, H, W)``.
        log_growth: Natural logarithm of the volume ratio by the growth head, ``(B,)``.
        deep: At 1/2 and 1/4 scale.
    """

    image: Tensor
    mask: Tensor
    displacement_vox: Tensor
    residual: Tensor
    log_growth: Tensor
    deep: tuple[DeepPrediction, ...]
