"""Full-detail texture on the warped baseline."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nognet.config import NetworkConfig
from nognet.network.layers import depth_to_space, space_to_depth, upsample

_DIFFERENCE_GAIN = 10.0  # brings differences of some 30 HU to the order of the other inputs
_SHARE_GAIN = 5.0  # lets the share of smoothing move faster than the free detail


class Refinement(nn.Module):
    """Full-detail texture: sees the *warped* baseline, folded as the stem folds the baseline.

    Two bases make the residual: free detail, and a share (voxel by voxel) of the difference to the
    smoothed image. The second is there because noise at follow-up is new: where nothing but noise
    is, the best prediction is smoother than the baseline; at vessels and edges it is not.
    """

    def __init__(self, config: NetworkConfig, fold: int) -> None:
        super().__init__()
        self.fold = fold
        channels = config.width if fold == 2 else 2 * config.width
        self.inner = nn.Conv3d(channels + 3 * fold**3, config.width, 3, 1, 1)
        self.outer = nn.Conv3d(config.width, 2 * fold**3, 3, 1, 1)

    def forward(self, texture: Tensor, finest: Tensor, warped: Tensor) -> Tensor:
        """Residual ``(B, 1, D, H, W)`` from the texture at 1/2 scale and the warped pair."""
        features = texture if self.fold == 2 else torch.cat([upsample(texture), finest], dim=1)
        smooth = F.avg_pool3d(warped[:, :1], 3, 1, 1, count_include_pad=False)
        difference = smooth - warped[:, :1]
        shown = torch.cat([warped, _DIFFERENCE_GAIN * difference], dim=1)
        seen = torch.cat([features, space_to_depth(shown, self.fold)], dim=1)
        bases: Tensor = self.outer(F.silu(self.inner(seen)))
        detail, share = depth_to_space(bases.float(), self.fold).chunk(2, dim=1)
        return detail + torch.tanh(_SHARE_GAIN * share) * difference
