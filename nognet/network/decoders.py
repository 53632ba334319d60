"""The two decoders, which exchange what they know at the coarse scales."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nognet.config import NetworkConfig
from nognet.network.layers import (
    ConvBlock,
    CrossTaskAttention,
    SpatialModulation,
    upsample,
)
from nognet.network.prediction import AttentionMap
from nognet.network.warp import upsample_displacement


@dataclass(frozen=True)
class TaskState:
    """What the two decoders hold at one scale.

    Attributes:
        deformation: Features ``(B, C, d, h, w)``.
        texture: Features of the same shape; None without a texture decoder.
        motion_vox: Local field ``(B, 3, d, h, w)`` in voxels of this scale, at full time factor:
            a velocity or a displacement, as the config says.
        residual: Texture ``(B, 1, d, h, w)``, at full time factor; zeros without a texture decoder.
        attention: Where the tasks looked in each other, this scale and coarser ones.
    """

    deformation: Tensor
    texture: Tensor | None
    motion_vox: Tensor
    residual: Tensor
    attention: tuple[AttentionMap, ...] = ()


class CrossTask(nn.Module):
    """Attention both ways: deformation looks at texture, then texture at the new deformation."""

    def __init__(self, channels: int, heads: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.deformation = CrossTaskAttention(channels, heads)
        self.texture = CrossTaskAttention(channels, heads)

    def forward(
        self, deformation: Tensor, texture: Tensor
    ) -> tuple[Tensor, Tensor, tuple[AttentionMap, ...]]:
        """Exchange between two ``(B, C, d, h, w)``; maps are kept outside training only."""
        moved, looked = self.deformation(deformation, texture)
        painted, looked_back = self.texture(texture, moved)
        named = (("deformation", looked), ("texture", looked_back))
        maps = tuple(AttentionMap(n, self.scale, w) for n, w in named if w is not None)
        return moved, painted, maps


class Bottleneck(nn.Module):
    """Both decoders' start at 1/8 scale."""

    def __init__(self, config: NetworkConfig, channels: int) -> None:
        super().__init__()
        self.deformation = nn.Conv3d(channels, channels, 1)
        self.texture = nn.Conv3d(channels, channels, 1) if config.texture else None
        exchange = config.attention and config.texture
        self.exchange = CrossTask(channels, config.attention_heads, 8) if exchange else None

    def forward(self, eighth: Tensor) -> TaskState:
        """Part the shared features ``(B, C, d, h, w)`` into the two tasks."""
        deformation = self.deformation(eighth)
        texture = None if self.texture is None else self.texture(eighth)
        maps: tuple[AttentionMap, ...] = ()
        if self.exchange is not None and texture is not None:
            deformation, texture, maps = self.exchange(deformation, texture)
        zeros = eighth.new_zeros((eighth.shape[0], 4, *eighth.shape[2:]), dtype=torch.float32)
        return TaskState(deformation, texture, zeros[:, :3], zeros[:, 3:], maps)


class TextureStage(nn.Module):
    """One scale of the texture decoder, its norms modulated as the config says."""

    def __init__(self, config: NetworkConfig, coarse: int, channels: int) -> None:
        super().__init__()
        norm = config.adaptive_norm
        self.inner = nn.Conv3d(coarse, channels, 1)
        self.block = ConvBlock(
            2 * channels, channels, config.embedding_width, depth=1, adaptive=norm != "none"
        )
        self.modulation = SpatialModulation(channels, channels) if norm == "spatial" else None
        self.residual = nn.Conv3d(channels, 1, 3, 1, 1)

    def forward(
        self, coarse: Tensor, skip: Tensor, deformation: Tensor, embedding: Tensor
    ) -> Tensor:
        """Features ``(B, C, d, h, w)`` from the coarser ones, the skip and the deformation."""
        joined = torch.cat([upsample(self.inner(coarse)), skip], dim=1)
        texture: Tensor = self.block(joined, embedding)
        return texture if self.modulation is None else self.modulation(texture, deformation)


class DualStage(nn.Module):
    """One scale of both decoders: take in the skip, modulate texture by deformation, exchange."""

    def __init__(self, config: NetworkConfig, coarse: int, channels: int, *, scale: int) -> None:
        super().__init__()
        self.inner = nn.Conv3d(coarse, channels, 1)
        self.block = ConvBlock(2 * channels, channels, config.embedding_width, depth=1)
        self.texture = TextureStage(config, coarse, channels) if config.texture else None
        exchange = config.attention and config.texture and scale >= 4
        self.exchange = CrossTask(channels, config.attention_heads, scale) if exchange else None
        self.motion = nn.Conv3d(channels, 3, 3, 1, 1)

    def forward(self, coarse: TaskState, skip: Tensor, embedding: Tensor) -> TaskState:
        """Refine the coarser state with the encoder's features of this scale."""
        joined = torch.cat([upsample(self.inner(coarse.deformation)), skip], dim=1)
        deformation = self.block(joined, embedding)
        residual, maps = upsample(coarse.residual), coarse.attention
        texture = None
        if self.texture is not None and coarse.texture is not None:
            texture = self.texture(coarse.texture, skip, deformation, embedding)
            if self.exchange is not None:
                deformation, texture, found = self.exchange(deformation, texture)
                maps = (*maps, *found)
            residual = residual + self.texture.residual(texture).float()
        motion = upsample_displacement(coarse.motion_vox) + self.motion(deformation).float()
        return TaskState(deformation, texture, motion, residual, maps)
