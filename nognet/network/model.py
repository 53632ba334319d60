"""MT-NoGNet: one shared encoder, a deformation and a texture decoder that attend to each other.

After Zhao et al., "Multi-task learning for predicting pulmonary nodule growth and follow-up volume"
(Frontiers in Oncology 2026, doi 10.3389/fonc.2026.1677521), whose abstract names the parts; their
form is ours, see docs/decisions. Departures from the identity are all scaled by the interval: at 0
days the prediction is the baseline, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nognet.config import NetworkConfig
from nognet.network.batch import Prior
from nognet.network.layers import (
    DAYS_PER_YEAR,
    ConvBlock,
    CrossTaskAttention,
    IntervalEmbedding,
    SpatialModulation,
    depth_to_space,
    dilate,
    space_to_depth,
    time_factor,
    upsample,
)
from nognet.network.nodule import (
    DESCRIPTOR_COUNT,
    NoduleShape,
    growth_field,
    nodule_descriptors,
    nodule_shape,
)
from nognet.network.prediction import DeepPrediction, Prediction
from nognet.network.warp import spatial_size, upsample_displacement, warp

_DIFFERENCE_GAIN = 10.0  # brings differences of some 30 HU to the order of the other inputs
_SHARE_GAIN = 5.0  # lets the share of smoothing move faster than the free detail


@dataclass(frozen=True)
class Features:
    """Encoder features; with width w: `half` (B, w, D/2, ...), `quarter` 2w, `eighth` 4w.

    `finest` is at the resolution of the refinement: the full block's, or `half` itself.
    """

    finest: Tensor
    half: Tensor
    quarter: Tensor
    eighth: Tensor


class Encoder(nn.Module):
    """Shared encoder, conditioned on the interval.

    With the full stem a block at full resolution comes first; with space-to-depth 2 x 2 x 2 voxels
    are folded into channels instead.
    """

    def __init__(self, config: NetworkConfig, fold: int) -> None:
        super().__init__()
        width, embedding = config.width, config.embedding_width
        self.fold = fold
        self.stem = ConvBlock(2 * fold**3, width, embedding, depth=fold)
        self.at_half = ConvBlock(width, width, embedding, stride=2) if fold == 1 else None
        self.at_quarter = ConvBlock(width, 2 * width, embedding, stride=2)
        self.at_eighth = ConvBlock(2 * width, 4 * width, embedding, stride=2)

    def forward(self, image: Tensor, mask: Tensor, embedding: Tensor) -> Features:
        """Encode two ``(B, 1, D, H, W)`` under the interval embedding ``(B, E)``."""
        folded = space_to_depth(torch.cat([image - 0.5, mask], dim=1), self.fold)
        finest = self.stem(folded, embedding)
        half = finest if self.at_half is None else self.at_half(finest, embedding)
        quarter = self.at_quarter(half, embedding)
        return Features(finest, half, quarter, self.at_eighth(quarter, embedding))


class GrowthHead(nn.Module):
    """Growth rate (log volume ratio a year) from the nodule's shape and from learned features.

    The shape leads: with few pairs it is learned at once, while features of the encoder, which
    start with a small share, take longer.
    """

    feature_share = 0.25
    gain = 3.0

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.bound = config.max_log_growth_per_year
        self.features = nn.Linear((2 + 4) * config.width, 16)
        self.inner = nn.Linear(16 + DESCRIPTOR_COUNT, 64)
        self.outer = nn.Linear(64, 1)

    def forward(self, features: Features, image: Tensor, mask: Tensor) -> Tensor:
        """Predict the rate ``(B,)``, within the configured bound."""
        region = F.avg_pool3d(dilate(mask, 1), 4)
        weight = region / region.flatten(1).sum(1).clamp_min(1e-3)[:, None, None, None, None]
        local = (features.quarter.float() * weight).flatten(2).sum(2)
        pooled = torch.cat([local, features.eighth.float().flatten(2).mean(2)], dim=1)
        learned = self.feature_share * F.silu(self.features(pooled))
        hidden = F.silu(self.inner(torch.cat([nodule_descriptors(image, mask), learned], dim=1)))
        rate: Tensor = self.gain * self.outer(hidden)[:, 0]
        return self.bound * torch.tanh(rate / self.bound)


@dataclass(frozen=True)
class TaskState:
    """What the two decoders hold at one scale.

    Attributes:
        deformation: Features ``(B, C, d, h, w)``.
        texture: Features of the same shape.
        displacement_vox: Local field ``(B, 3, d, h, w)`` in voxels of this scale, at full time
            factor.
        residual: Texture ``(B, 1, d, h, w)``, at full time factor.
    """

    deformation: Tensor
    texture: Tensor
    displacement_vox: Tensor
    residual: Tensor


class CrossTask(nn.Module):
    """Attention both ways: deformation looks at texture, then texture at the new deformation."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.deformation = CrossTaskAttention(channels, heads)
        self.texture = CrossTaskAttention(channels, heads)

    def forward(self, deformation: Tensor, texture: Tensor) -> tuple[Tensor, Tensor]:
        """Exchange between two ``(B, C, d, h, w)``."""
        deformation = self.deformation(deformation, texture)
        return deformation, self.texture(texture, deformation)


class DualStage(nn.Module):
    """One scale of both decoders: take in the skip, modulate texture by deformation, exchange."""

    def __init__(self, config: NetworkConfig, coarse: int, channels: int, *, attend: bool) -> None:
        super().__init__()
        embedding = config.embedding_width
        self.deformation_in = nn.Conv3d(coarse, channels, 1)
        self.texture_in = nn.Conv3d(coarse, channels, 1)
        self.deformation = ConvBlock(2 * channels, channels, embedding, depth=1)
        self.texture = ConvBlock(2 * channels, channels, embedding, depth=1)
        self.modulation = SpatialModulation(channels, channels) if config.adaptive_norm == "spatial" else None
        self.exchange = CrossTask(channels, config.attention_heads) if attend else None
        self.displacement = nn.Conv3d(channels, 3, 3, 1, 1)
        self.residual = nn.Conv3d(channels, 1, 3, 1, 1)

    def forward(self, coarse: TaskState, skip: Tensor, embedding: Tensor) -> TaskState:
        """Refine the coarser state with the encoder's features of this scale."""
        deformation = self._join(self.deformation_in(coarse.deformation), skip)
        deformation = self.deformation(deformation, embedding)
        texture = self._join(self.texture_in(coarse.texture), skip)
        texture = self.texture(texture, embedding)
        if self.modulation is not None:
            texture = self.modulation(texture, deformation)
        if self.exchange is not None:
            deformation, texture = self.exchange(deformation, texture)
        return TaskState(
            deformation=deformation,
            texture=texture,
            displacement_vox=upsample_displacement(coarse.displacement_vox)
            + self.displacement(deformation).float(),
            residual=upsample(coarse.residual) + self.residual(texture).float(),
        )

    @staticmethod
    def _join(coarse: Tensor, skip: Tensor) -> Tensor:
        return torch.cat([upsample(coarse), skip], dim=1)


class Bottleneck(nn.Module):
    """Both decoders' start at 1/8 scale."""

    def __init__(self, config: NetworkConfig, channels: int) -> None:
        super().__init__()
        self.deformation = nn.Conv3d(channels, channels, 1)
        self.texture = nn.Conv3d(channels, channels, 1)
        heads = config.attention_heads
        self.exchange = CrossTask(channels, heads) if config.attention else None

    def forward(self, eighth: Tensor) -> TaskState:
        """Part the shared features ``(B, C, d, h, w)`` into the two tasks."""
        deformation, texture = self.deformation(eighth), self.texture(eighth)
        if self.exchange is not None:
            deformation, texture = self.exchange(deformation, texture)
        zeros = eighth.new_zeros((eighth.shape[0], 4, *eighth.shape[2:]), dtype=torch.float32)
        return TaskState(deformation, texture, zeros[:, :3], zeros[:, 3:])


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


class MTNoGNet(nn.Module):
    """The network. `nognet.network.build_network` makes one and initialises it from a generator."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        fold = 2 if config.stem == "space_to_depth" else 1
        self.interval = IntervalEmbedding(config.time_features, config.embedding_width)
        self.encoder = Encoder(config, fold)
        self.growth = GrowthHead(config)
        self.bottleneck = Bottleneck(config, 4 * width)
        self.at_quarter = DualStage(config, 4 * width, 2 * width, attend=config.attention)
        self.at_half = DualStage(config, 2 * width, width, attend=False)
        self.refinement = Refinement(config, fold)

    def forward(
        self, image: Tensor, mask: Tensor, interval_days: Tensor, prior: Prior | None = None
    ) -> Prediction:
        """Predict the follow-up.

        Args:
            image: Baseline ROI in [0, 1], ``(B, 1, D, H, W)``; edges are multiples of 16.
            mask: Baseline nodule in {0, 1}, ``(B, 1, D, H, W)``.
            interval_days: Days to the follow-up, >= 0, ``(B,)``.
        """
        embedding = self.interval(interval_days)
        features = self.encoder(image, mask, embedding)
        rate = self.growth(features, image, mask)
        log_growth = rate * (interval_days / DAYS_PER_YEAR)
        quarter = self.at_quarter(self.bottleneck(features.eighth), features.quarter, embedding)
        half = self.at_half(quarter, features.half, embedding)

        act = time_factor(interval_days)[:, None, None, None, None]
        shape = nodule_shape(mask)
        displacement = growth_field(shape, log_growth, spatial_size(mask))
        displacement = displacement + act * upsample_displacement(half.displacement_vox)
        warped = warp(torch.cat([image, mask], dim=1), displacement)
        detail = self.refinement(half.texture, features.finest, warped)
        residual = act * (upsample(half.residual) + detail)
        unchanged = (interval_days == 0)[:, None, None, None, None]
        both = torch.cat([image, mask], dim=1)
        return Prediction(
            image=torch.where(unchanged, image, warped[:, :1] + residual),
            mask=torch.where(unchanged, mask, warped[:, 1:]),
            displacement_vox=displacement,
            residual=residual,
            log_growth=log_growth,
            deep=(
                _coarse_prediction(2, both, half, (act, shape, log_growth)),
                _coarse_prediction(4, both, quarter, (act, shape, log_growth)),
            ),
        )


def _coarse_prediction(
    scale: int, both: Tensor, state: TaskState, motion: tuple[Tensor, NoduleShape, Tensor]
) -> DeepPrediction:
    """Predict at 1/`scale`: average-pooled baseline, that scale's field and residual."""
    act, shape, log_growth = motion
    pooled = F.avg_pool3d(both, scale)
    coarse_shape = NoduleShape(
        centroid_vox=(shape.centroid_vox - (scale - 1) / 2) / scale,
        radius_vox=shape.radius_vox / scale,
    )
    field = growth_field(coarse_shape, log_growth, spatial_size(pooled))
    warped = warp(pooled, field + act * state.displacement_vox)
    return DeepPrediction(
        scale=scale, image=warped[:, :1] + act * state.residual, mask=warped[:, 1:]
    )
