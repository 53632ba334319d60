"""U-Net synthesis: follow-up image and mask straight from the features, nothing is warped.

The common direct baseline of the field (Ronneberger et al. 2015, in 3D). The image is the baseline
and a residual; the mask's logits start from the baseline mask, so that both start near copy.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nognet.network.baselines.parts import (
    EMBEDDING_WIDTH,
    FOLD,
    TIME_FEATURES,
    UNet,
    VolumeHead,
    only,
    started_small,
)
from nognet.network.batch import Prior
from nognet.network.layers import IntervalEmbedding, space_to_depth
from nognet.network.prediction import Prediction

LOSS = only(image_l1=1.0, image_mse=20.0, dice=1.0)
"""L1, MSE and Dice, weighed as in MT-NoGNet's loss."""

_SURE = 8.0  # logit well inside the mask, and minus it far outside; softer at the mask's surface


class SynthesisUNet(nn.Module):
    """The network; `build_unet` makes one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.interval = IntervalEmbedding(TIME_FEATURES, EMBEDDING_WIDTH)
        self.trunk = UNet(2 * FOLD**3, width)
        self.residual = VolumeHead(width)
        self.logits = VolumeHead(width)

    def forward(
        self,
        image: Tensor,
        mask: Tensor,
        interval_days: Tensor,
        prior: Prior | None = None,  # noqa: ARG002  every network is called the same way
    ) -> Prediction:
        """Predict the follow-up voxel by voxel.

        Args:
            image: Baseline ROI in [0, 1], ``(B, 1, D, H, W)``; edges are multiples of 8.
            mask: Baseline nodule in {0, 1}, the same shape.
            interval_days: Days to the follow-up, ``(B,)``.
            prior: Not looked at.
        """
        folded = space_to_depth(torch.cat([image - 0.5, mask], dim=1), FOLD)
        features = self.trunk(folded, self.interval(interval_days))
        residual = self.residual(features)
        return Prediction(
            image=image.float() + residual,
            mask=torch.sigmoid(mask_logits(mask) + self.logits(features)),
            displacement_vox=residual.new_zeros((image.shape[0], 3, *image.shape[2:])),
            residual=residual,
        )


def mask_logits(mask: Tensor) -> Tensor:
    """Logits whose sign is the mask's and which are small at its surface, ``(B, 1, D, H, W)``.

    There the gradient of the sigmoid is alive, so that the surface can move.
    """
    smooth = F.avg_pool3d(mask.float(), 3, 1, 1, count_include_pad=False)
    return _SURE * (mask.float() + smooth - 1.0)


def build_unet(width: int, generator: torch.Generator) -> SynthesisUNet:
    """Build a synthesis U-Net with its first weights drawn from `generator`."""
    return started_small(lambda: SynthesisUNet(width), generator)
