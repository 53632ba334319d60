"""Building blocks. No BatchNorm, no `nn.MultiheadAttention`, no parameter outside a leaf module.

That keeps gradients of single samples well defined, which differential privacy needs.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DAYS_PER_YEAR = 365.25


def group_norm(channels: int, *, affine: bool = True) -> nn.GroupNorm:
    """GroupNorm with groups of 4 channels."""
    return nn.GroupNorm(max(1, channels // 4), channels, affine=affine)


def space_to_depth(x: Tensor, factor: int) -> Tensor:
    """Fold blocks of voxels into channels: ``(B, C, D, H, W) -> (B, C f^3, D/f, H/f, W/f)``."""
    if factor == 1:
        return x
    b, c, d, h, w = x.shape
    f = factor
    blocks = x.reshape(b, c, d // f, f, h // f, f, w // f, f)
    return blocks.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(b, c * f**3, d // f, h // f, w // f)


def depth_to_space(x: Tensor, factor: int) -> Tensor:
    """Undo `space_to_depth`: ``(B, C f^3, D, H, W) -> (B, C, D f, H f, W f)``."""
    if factor == 1:
        return x
    b, c, d, h, w = x.shape
    f = factor
    blocks = x.reshape(b, c // f**3, f, f, f, d, h, w)
    return blocks.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(b, c // f**3, d * f, h * f, w * f)


def upsample(x: Tensor) -> Tensor:
    """Double the resolution by repetition."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def time_factor(interval_days: Tensor) -> Tensor:
    """How far the learned fields may act: exactly 0 at 0 days, near 1 from a year on, ``(B,)``."""
    return -torch.expm1(-interval_days / (0.25 * DAYS_PER_YEAR))


class IntervalEmbedding(nn.Module):
    """Embed the interval: years themselves and sines and cosines of them (cf. NoFoNet).

    With `extra` further numbers a sample, such as the years since an earlier scan.
    """

    def __init__(self, frequencies: int, width: int, *, extra: int = 0) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.inner = nn.Linear(2 * frequencies + 1 + extra, width)
        self.outer = nn.Linear(width, width)

    def forward(self, interval_days: Tensor, *extra: Tensor) -> Tensor:
        """Map ``(B,)`` days (and ``(B,)`` extra numbers) to ``(B, width)``."""
        years = (interval_days / DAYS_PER_YEAR)[:, None]
        octaves = torch.arange(self.frequencies, dtype=torch.float32, device=years.device)
        angles = years * torch.exp2(octaves) * (math.pi / 8)
        features = torch.cat(
            [years, angles.sin(), angles.cos(), *(number[:, None] for number in extra)], dim=1
        )
        embedded: Tensor = self.outer(F.silu(self.inner(features)))
        return embedded


class AdaptiveNorm(nn.Module):
    """Normalise without affine, then scale and shift by the interval (AdaIN family)."""

    def __init__(self, channels: int, embedding_width: int) -> None:
        super().__init__()
        self.norm = group_norm(channels, affine=False)
        self.modulation = nn.Linear(embedding_width, 2 * channels)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Modulate ``(B, C, D, H, W)`` by ``(B, E)``."""
        scale, shift = self.modulation(embedding)[:, :, None, None, None].chunk(2, dim=1)
        modulated: Tensor = self.norm(x) * (1 + scale) + shift
        return modulated


class SpatialModulation(nn.Module):
    """Scale and shift, voxel by voxel, by features of the deformation (SPADE family)."""

    def __init__(self, channels: int, condition_channels: int) -> None:
        super().__init__()
        self.modulation = nn.Conv3d(condition_channels, 2 * channels, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Modulate ``(B, C, D, H, W)`` by ``(B, K, D, H, W)``."""
        scale, shift = self.modulation(condition).chunk(2, dim=1)
        modulated: Tensor = x * (1 + scale) + shift
        return modulated


class ConvBlock(nn.Module):
    """Convolution, norm modulated by the interval, SiLU; then a residual convolution."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        embedding_width: int,
        *,
        stride: int = 1,
        depth: int = 2,
        adaptive: bool = True,
    ) -> None:
        super().__init__()
        self.first = nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm = AdaptiveNorm(outputs, embedding_width) if adaptive else None
        self.plain_norm = None if adaptive else group_norm(outputs)
        self.second = nn.Conv3d(outputs, outputs, 3, 1, 1, bias=False) if depth == 2 else None
        self.second_norm = group_norm(outputs) if depth == 2 else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map ``(B, inputs, D, H, W)`` to ``(B, outputs, D/stride, H/stride, W/stride)``."""
        h = self.first(x)
        if self.norm is not None:
            h = self.norm(h, embedding)
        elif self.plain_norm is not None:
            h = self.plain_norm(h)
        h = F.silu(h)
        if self.second is None or self.second_norm is None:
            return h
        refined: Tensor = F.silu(self.second_norm(self.second(h)))
        return h + refined


class CrossTaskAttention(nn.Module):
    """One task's features attend to the other's, over tokens pooled to at most 6 along an axis."""

    tokens_per_axis = 6

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_norm, self.key_norm = group_norm(channels), group_norm(channels)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)

    def forward(self, x: Tensor, other: Tensor) -> tuple[Tensor, Tensor | None]:
        """Add to ``x`` (B, C, d, h, w) what it finds in ``other`` of the same shape.

        Returns:
            The sum, and outside training where each token looked ``(B, Q, K)`` (mean over heads).
        """
        pool = math.ceil(max(x.shape[2:]) / self.tokens_per_axis)
        own = F.avg_pool3d(self.query_norm(x), pool)
        theirs = F.avg_pool3d(self.key_norm(other), pool).flatten(2).transpose(1, 2)
        queries = self._split(self.query(own.flatten(2).transpose(1, 2)))
        keys, values = self._split(self.key(theirs)), self._split(self.value(theirs))
        attended = F.scaled_dot_product_attention(queries, keys, values)
        update = self.output(attended.transpose(1, 2).flatten(2)).transpose(1, 2)
        size = x.shape[2:]
        added = x + F.interpolate(update.reshape(own.shape), size=size, mode="nearest")
        return added, None if self.training else _looked(queries, keys)

    def _split(self, tokens: Tensor) -> Tensor:
        b, n, c = tokens.shape
        return tokens.reshape(b, n, self.heads, c // self.heads).transpose(1, 2)


@torch.no_grad()
def _looked(queries: Tensor, keys: Tensor) -> Tensor:
    """Mean over heads of the weights ``(B, Q, K)`` of ``(B, h, Q, c)`` and ``(B, h, K, c)``."""
    scores = queries.float() @ keys.float().transpose(2, 3) / math.sqrt(queries.shape[-1])
    return scores.softmax(-1).mean(1)


def dilate(mask: Tensor, radius: int) -> Tensor:
    """Dilate by a cube of edge ``2 radius + 1``, axis by axis: ``(B, C, D, H, W)``."""
    for axis in (2, 3, 4):
        mask = _dilate_along(mask, axis, radius)
    return mask


def dilate_by_faces(mask: Tensor) -> Tensor:
    """Dilate by the voxels that share a face: ``(B, C, D, H, W)``."""
    along = [_dilate_along(mask, axis, 1) for axis in (2, 3, 4)]
    return torch.maximum(torch.maximum(along[0], along[1]), along[2])


def _dilate_along(mask: Tensor, axis: int, radius: int) -> Tensor:
    """Take the maximum over a window along one axis by shifted copies.

    `max_pool3d` gives the same ten times slower: it keeps track of indices. Masks have no gradient.
    """
    grown = mask.detach().clone()
    length = mask.shape[axis]
    for step in range(1, radius + 1):
        rest = length - step
        for to, of in ((step, 0), (0, step)):
            part = grown.narrow(axis, to, rest)
            part.copy_(torch.maximum(part, mask.detach().narrow(axis, of, rest)))
    return grown
