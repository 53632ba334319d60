"""NoFoNet-like: a warp network, then a texture network that paints on what was warped.

Our own implementation, after the description in Li et al., "Learning tumor growth via follow-up
volume prediction for lung nodules" (2020, arXiv 2006.13890). Its eq. 1:
``x1 = warped + gate * residual``, the gate being the warped mask, dilated. Ours: trained at
once, end to end; the half-resolution stem, group norm, the interval in every block.
"""

from __future__ import annotations

import torch
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
from nognet.network.baselines.warpnet import WarpNet
from nognet.network.batch import Prior
from nognet.network.layers import IntervalEmbedding, dilate, space_to_depth
from nognet.network.prediction import Prediction

LOSS = only(ncc=1.0, dice=0.5, smoothness=0.05, image_mse=20.0, residual=0.05)
"""NoFoNet eqs. 3-8. NCC is taken of the painted image, as `loss_terms` has it.

MSE, smoothness and residual weigh what they do in MT-NoGNet's loss. MSE over the whole ROI reaches
the texture network through the gate alone, and so is the paper's MSE of the nodule for it.
"""

_GATE_RADIUS_VOX = 2


class NoFoNet(nn.Module):
    """The network; `build_nofonet` makes one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.motion = WarpNet(width)
        self.interval = IntervalEmbedding(TIME_FEATURES, EMBEDDING_WIDTH)
        self.texture = UNet(2 * FOLD**3, width)
        self.residual = VolumeHead(width)

    def forward(
        self,
        image: Tensor,
        mask: Tensor,
        interval_days: Tensor,
        prior: Prior | None = None,  # noqa: ARG002  every network is called the same way
    ) -> Prediction:
        """Predict the follow-up: warp, then paint within the gate.

        Args:
            image: Baseline ROI in [0, 1], ``(B, 1, D, H, W)``; edges are multiples of 8.
            mask: Baseline nodule in {0, 1}, the same shape; without one nothing is painted.
            interval_days: Days to the follow-up, ``(B,)``.
            prior: Not looked at.
        """
        warped: Prediction = self.motion(image, mask, interval_days)
        folded = space_to_depth(torch.cat([warped.image - 0.5, warped.mask], dim=1), FOLD)
        painted = self.residual(self.texture(folded, self.interval(interval_days)))
        residual = dilate(warped.mask, _GATE_RADIUS_VOX) * painted
        return Prediction(
            image=warped.image + residual,
            mask=warped.mask,
            displacement_vox=warped.displacement_vox,
            residual=residual,
        )


def build_nofonet(width: int, generator: torch.Generator) -> NoFoNet:
    """Build a NoFoNet with its first weights drawn from `generator`."""
    return started_small(lambda: NoFoNet(width), generator)
