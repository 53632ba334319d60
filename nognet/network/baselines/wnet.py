"""Two-scan W-net in the manner of NGP-Net: growth between two scans, then the follow-up.

Our own, from the idea alone ("NGP-Net: a lightweight growth prediction network for pulmonary
nodules", IEEE TMI 2026, doi 10.1109/TMI.2026.3656184): a W with outputs for texture and shape.
The first U-Net reads prior scan and baseline and the days between them, and gives features of the
change; the second reads the baseline with these features and the days to come, and gives a
displacement field, a residual and the follow-up's segmentation. No mask is read, as NGP-Net reads
none: the nodule is known by lying at the ROI's centre, and the mask that is predicted isn't a
warped one. Without a prior scan the baseline stands in, at 0 days.
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
    VolumeHead,
    only,
    started_small,
)
from nognet.network.batch import Prior
from nognet.network.layers import DAYS_PER_YEAR, IntervalEmbedding, space_to_depth
from nognet.network.prediction import Prediction
from nognet.network.warp import spatial_size, voxel_positions, warp

LOSS = only(image_l1=1.0, image_mse=20.0, dice=1.0, smoothness=0.05, residual=0.05)
"""Image, mask, smoothness and residual, weighed as in MT-NoGNet's loss."""

_CHANGE_GAIN = 5.0  # brings differences of some 50 HU to the order of the other inputs
_FEW = -3.0  # the logit that an untrained network gives everywhere: almost nothing is nodule


class WNet(nn.Module):
    """The network; `build_wnet` makes one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.elapsed = IntervalEmbedding(TIME_FEATURES, EMBEDDING_WIDTH)
        self.growth = UNet(4 * FOLD**3, width)
        self.interval = IntervalEmbedding(TIME_FEATURES, EMBEDDING_WIDTH, extra=1)
        self.follow_up = UNet(2 * FOLD**3 + width, width)
        self.displacement = DisplacementHead(width)
        self.residual = VolumeHead(width)
        self.logits = VolumeHead(width)

    def forward(
        self, image: Tensor, mask: Tensor, interval_days: Tensor, prior: Prior | None = None
    ) -> Prediction:
        """Predict the follow-up from two scans.

        Args:
            image: Baseline ROI in [0, 1], ``(B, 1, D, H, W)``; edges are multiples of 8.
            mask: Not looked at.
            interval_days: Days to the follow-up, ``(B,)``.
            prior: Scans before the baseline (not their masks); None: the baseline again.
        """
        before = prior or Prior.baseline_again(image, mask)
        seen = torch.cat([image - 0.5, _distance(image)], dim=1)
        change = torch.cat([before.image - 0.5, _CHANGE_GAIN * (image - before.image)], dim=1)
        growth = self.growth(
            space_to_depth(torch.cat([seen, change], dim=1), FOLD),
            self.elapsed(before.days_before),
        )
        features = self.follow_up(
            torch.cat([space_to_depth(seen, FOLD), growth], dim=1),
            self.interval(interval_days, before.days_before / DAYS_PER_YEAR),
        )
        displacement = self.displacement(features)
        residual = self.residual(features)
        return Prediction(
            image=warp(image, displacement) + residual,
            mask=torch.sigmoid(self.logits(features) + _FEW),
            displacement_vox=displacement,
            residual=residual,
        )


def _distance(image: Tensor) -> Tensor:
    """Distance from the ROI's centre as a share of its longest edge, ``(B, 1, D, H, W)``."""
    size = spatial_size(image)
    middle = torch.tensor([(n - 1) / 2 for n in size], device=image.device)
    offset = voxel_positions(size, image.device) - middle[None, :, None, None, None]
    distance = offset.square().sum(1, keepdim=True).sqrt() / max(size)
    return distance.expand(image.shape[0], -1, -1, -1, -1)


def build_wnet(width: int, generator: torch.Generator) -> WNet:
    """Build a W-net with its first weights drawn from `generator`."""
    return started_small(lambda: WNet(width), generator)
