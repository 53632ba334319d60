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

    The residual is made of free detail and, voxel by voxel, of shares of the differences to images
    smoothed once and twice. These are there because noise at follow-up is new: where nothing but
    noise is, the best prediction is smoother than the baseline; at vessels and edges it is not.
    """

    passes = 2

    def __init__(self, config: NetworkConfig, fold: int) -> None:
        super().__init__()
        self.fold = fold
        channels = config.width if fold == 2 else 2 * config.width
        seen = channels + (2 + self.passes) * fold**3
        self.inner = nn.Conv3d(seen, config.width, 3, 1, 1)
        self.outer = nn.Conv3d(config.width, (1 + self.passes) * fold**3, 3, 1, 1)

    def forward(self, texture: Tensor, finest: Tensor, warped: Tensor) -> Tensor:
        """Residual ``(B, 1, D, H, W)`` from the texture at 1/2 scale and the warped pair."""
        features = texture if self.fold == 2 else torch.cat([upsample(texture), finest], dim=1)
        differences = self._differences(warped[:, :1])
        shown = torch.cat([warped, _DIFFERENCE_GAIN * differences], dim=1)
        seen = torch.cat([features, space_to_depth(shown, self.fold)], dim=1)
        bases: Tensor = depth_to_space(self.outer(F.silu(self.inner(seen))).float(), self.fold)
        shares = torch.tanh(_SHARE_GAIN * bases[:, 1:])
        return bases[:, :1] + (shares * differences).sum(1, keepdim=True)

    def _differences(self, image: Tensor) -> Tensor:
        """What smoothing by a cube of 3 voxels, 1 .. `passes` times, would change."""
        smooth, differences = image, []
        for _ in range(self.passes):
            smooth = F.avg_pool3d(smooth, 3, 1, 1, count_include_pad=False)
            differences.append(smooth - image)
        return torch.cat(differences, dim=1)
