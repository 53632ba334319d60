"""The baseline's own segmentation, for sites that have no mask there."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nognet.config import NetworkConfig
from nognet.network.layers import depth_to_space, group_norm, space_to_depth, upsample
from nognet.network.warp import spatial_size, voxel_positions

_FOLD = 2
_FEW = -3.0  # the logit that an untrained network gives everywhere: almost nothing is nodule


class Segmentation(nn.Module):
    """A small U-Net on the image and the distance from the ROI's centre, where the nodule lies."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        width = config.width
        self.at_half = _block(2 * _FOLD**3, width)
        self.at_quarter = _block(width, 2 * width, stride=2)
        self.at_eighth = _block(2 * width, 2 * width, stride=2)
        self.up_quarter = _block(4 * width, width)
        self.up_half = _block(2 * width, width)
        self.outer = nn.Conv3d(width, _FOLD**3, 3, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Probability of the nodule ``(B, 1, D, H, W)`` float32."""
        size = spatial_size(image)
        middle = torch.tensor([(n - 1) / 2 for n in size], device=image.device)
        offset = voxel_positions(size, image.device) - middle[None, :, None, None, None]
        distance = offset.square().sum(1, keepdim=True).sqrt() / max(size)
        shown = torch.cat([image - 0.5, distance.expand(image.shape[0], -1, -1, -1, -1)], dim=1)
        half = self.at_half(space_to_depth(shown, _FOLD))
        quarter = self.at_quarter(half)
        coarse = torch.cat([upsample(self.at_eighth(quarter)), quarter], dim=1)
        fine = torch.cat([upsample(self.up_quarter(coarse)), half], dim=1)
        logits = self.outer(self.up_half(fine)).float()
        return torch.sigmoid(depth_to_space(logits, _FOLD) + _FEW)


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False), group_norm(outputs), nn.SiLU()
    )


def binary(probability: Tensor) -> Tensor:
    """What is nodule by more than 0.5, as {0, 1}; no gradient passes."""
    return (probability.detach() > 0.5).to(torch.float32)
