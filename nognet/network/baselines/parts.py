"""What the peers are built from: one U-Net, small-started heads, first weights from a generator."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nognet.config import LossConfig
from nognet.network.first_weights import MODULATION_STD, Network, built
from nognet.network.layers import AdaptiveNorm, ConvBlock, depth_to_space, upsample
from nognet.network.warp import upsample_displacement

FOLD = 2
TIME_FEATURES = 6
EMBEDDING_WIDTH = 64

_HEAD_STD = 1e-5  # as VoxelMorph starts its field


class UNet(nn.Module):
    """Three scales down and up; every block sees the interval.

    Each block's norm is modulated by it, as in MT-NoGNet's encoder and whatever a paper does, so
    that no peer loses by how it is told the time.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        embedding = EMBEDDING_WIDTH
        self.at_half = ConvBlock(inputs, width, embedding)
        self.at_quarter = ConvBlock(width, 2 * width, embedding, stride=2)
        self.at_eighth = ConvBlock(2 * width, 4 * width, embedding, stride=2)
        self.up_quarter = ConvBlock(6 * width, 2 * width, embedding)
        self.up_half = ConvBlock(3 * width, width, embedding)

    def forward(self, folded: Tensor, embedding: Tensor) -> Tensor:
        """Map ``(B, inputs, d, h, w)``, edges multiples of 4, to ``(B, width, d, h, w)``."""
        half = self.at_half(folded, embedding)
        quarter = self.at_quarter(half, embedding)
        eighth = self.at_eighth(quarter, embedding)
        quarter = self.up_quarter(torch.cat([upsample(eighth), quarter], dim=1), embedding)
        features: Tensor = self.up_half(torch.cat([upsample(quarter), half], dim=1), embedding)
        return features


class DisplacementHead(nn.Module):
    """A displacement field, predicted at half resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.outer = nn.Conv3d(channels, 3, 3, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, C, D/2, H/2, W/2)`` to voxels ``(B, 3, D, H, W)`` float32."""
        return upsample_displacement(self.outer(features).float())


class VolumeHead(nn.Module):
    """One value a voxel at full resolution, unfolded from channels: a residual, or logits."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.outer = nn.Conv3d(channels, FOLD**3, 3, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, C, D/2, H/2, W/2)`` to ``(B, 1, D, H, W)`` float32."""
        return depth_to_space(self.outer(features).float(), FOLD)


def started_small(make: Callable[[], Network], generator: torch.Generator) -> Network:
    """Make a network that at first moves and paints next to nothing."""
    return built(make, generator, _initialise)


def _initialise(module: nn.Module, generator: torch.Generator) -> None:
    if isinstance(module, AdaptiveNorm):
        module.modulation.weight.normal_(0.0, MODULATION_STD, generator=generator)
    elif isinstance(module, DisplacementHead | VolumeHead):
        module.outer.weight.normal_(0.0, _HEAD_STD, generator=generator)


def only(**weights: float) -> LossConfig:
    """Give a loss of the named terms; every other term weighs 0."""
    return LossConfig.model_validate(dict.fromkeys(LossConfig.model_fields, 0.0) | weights)
