"""WarpNet-like: a U-Net gives a displacement field, which warps baseline image and mask.

Our own implementation, after the description in "Malignancy-aware follow-up volume prediction for
lung nodules" (2020): VoxelMorph's field, conditioned on baseline and interval. Ours: the
half-resolution stem, group norm, the interval in every block. What isn't motion, such as a change
of density, is out of its reach.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nognet.network.baselines.parts import (
    EMBEDDING_WIDTH,
    FOLD,
    TIME_FEATURES,
    DisplacementHead,
    UNet,
    only,
    started_small,
)
from nognet.network.batch import Prior
from nognet.network.layers import IntervalEmbedding, space_to_depth
from nognet.network.prediction import Prediction
from nognet.network.warp import warp

LOSS = only(ncc=1.0, dice=0.5, smoothness=0.05)
"""The warp part of NoFoNet's loss (eqs. 3-8); smoothness weighs what it does in MT-NoGNet's."""


class WarpNet(nn.Module):
    """The network; `build_warpnet` makes one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.interval = IntervalEmbedding(TIME_FEATURES, EMBEDDING_WIDTH)
        self.trunk = UNet(2 * FOLD**3, width)
        self.displacement = DisplacementHead(width)

    def forward(
        self,
        image: Tensor,
        mask: Tensor,
        interval_days: Tensor,
        prior: Prior | None = None,  # noqa: ARG002  every network is called the same way
    ) -> Prediction:
        """Predict the follow-up by warping alone.

        Args:
            image: Baseline ROI in [0, 1], ``(B, 1, D, H, W)``; edges are multiples of 8.
            mask: Baseline nodule in {0, 1}, the same shape.
            interval_days: Days to the follow-up, ``(B,)``.
            prior: Not looked at.
        """
        folded = space_to_depth(torch.cat([image - 0.5, mask], dim=1), FOLD)
        displacement = self.displacement(self.trunk(folded, self.interval(interval_days)))
        warped = warp(torch.cat([image, mask], dim=1), displacement)
        return Prediction(
            image=warped[:, :1],
            mask=warped[:, 1:],
            displacement_vox=displacement,
            residual=torch.zeros_like(warped[:, :1]),
        )


def build_warpnet(width: int, generator: torch.Generator) -> WarpNet:
    """Build a WarpNet with its first weights drawn from `generator`."""
    return started_small(lambda: WarpNet(width), generator)
