"""MT-NoGNet: one shared encoder, a deformation and a texture decoder that attend to each other.

After Zhao et al., "Multi-task learning for predicting pulmonary nodule growth and follow-up volume"
(Frontiers in Oncology 2026, doi 10.3389/fonc.2026.1677521), whose abstract names the parts; their
form is ours, see docs/decisions. Departures from the identity are all scaled by the interval: at 0
days the prediction is the baseline, bit for bit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nognet.config import NetworkConfig
from nognet.network.batch import Prior
from nognet.network.decoders import Bottleneck, DualStage, TaskState
from nognet.network.encoder import Encoder
from nognet.network.growth import GrowthHead
from nognet.network.layers import DAYS_PER_YEAR, IntervalEmbedding, time_factor, upsample
from nognet.network.nodule import NoduleShape, growth_field, nodule_shape
from nognet.network.prediction import DeepPrediction, Prediction
from nognet.network.refinement import Refinement
from nognet.network.segmentation import Segmentation, binary
from nognet.network.warp import (
    integrate_velocity,
    spatial_size,
    upsample_displacement,
    warp,
)


class MTNoGNet(nn.Module):
    """The network. `nognet.network.build_network` makes one and initialises it from a generator."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        fold = 2 if config.stem == "space_to_depth" else 1
        self.interval = IntervalEmbedding(
            config.time_features, config.embedding_width, extra=1 if config.prior_scan else 0
        )
        own = config.missing_mask == "predicted"
        self.segmentation = Segmentation(config) if own else None
        self.encoder = Encoder(config, fold)
        self.growth = GrowthHead(config)
        self.bottleneck = Bottleneck(config, 4 * width)
        self.at_quarter = DualStage(config, 4 * width, 2 * width, scale=4)
        self.at_half = DualStage(config, 2 * width, width, scale=2)
        self.refinement = Refinement(config, fold) if config.texture else None

    def forward(
        self, image: Tensor, mask: Tensor, interval_days: Tensor, prior: Prior | None = None
    ) -> Prediction:
        """Predict the follow-up.

        Args:
            image: Baseline ROI in [0, 1], ``(B, 1, D, H, W)``; edges are multiples of 16.
            mask: Baseline nodule in {0, 1}, ``(B, 1, D, H, W)``; all 0 where there is no mask.
            interval_days: Days to the follow-up, >= 0, ``(B,)``.
            prior: Scans before the baseline; None: the baseline again. Ignored by a network that
                takes none.
        """
        segmented = None if self.segmentation is None else self.segmentation(image)
        if segmented is not None:
            absent = mask.flatten(1).amax(1) == 0
            mask = torch.where(absent[:, None, None, None, None], binary(segmented), mask)
        prior = self._prior(image, mask, prior)
        embedding = self._embedding(interval_days, prior)
        features = self.encoder(image, mask, prior, embedding)
        log_growth, spread = self.growth(features, image, mask, prior, interval_days)
        quarter = self.at_quarter(self.bottleneck(features.eighth), features.quarter, embedding)
        half = self.at_half(quarter, features.half, embedding)

        act = time_factor(interval_days)[:, None, None, None, None]
        ball = _Ball(nodule_shape(mask), log_growth)
        both = torch.cat([image, mask], dim=1)
        local = upsample_displacement(self._local(half.motion_vox, act, ball, 2))
        displacement = ball.field(1, spatial_size(mask)) + local
        warped = warp(both, displacement)
        residual = act * upsample(half.residual)
        if self.refinement is not None:
            residual = residual + act * self.refinement(half.texture, features.finest, warped)
        unchanged = (interval_days == 0)[:, None, None, None, None]
        scales = ((2, half), (4, quarter)) if self.config.deep_supervision else ()
        return Prediction(
            image=torch.where(unchanged, image, warped[:, :1] + residual),
            mask=torch.where(unchanged, mask, warped[:, 1:]),
            displacement_vox=displacement,
            residual=residual,
            log_growth=log_growth,
            log_growth_spread=spread,
            baseline_mask=segmented,
            deep=tuple(self._coarse(scale, both, state, act, ball) for scale, state in scales),
            attention=half.attention,
        )

    def _prior(self, image: Tensor, mask: Tensor, prior: Prior | None) -> Prior | None:
        if not self.config.prior_scan:
            return None
        if prior is None:
            return Prior.baseline_again(image, mask)
        return prior.or_baseline_again(image, mask)

    def _embedding(self, interval_days: Tensor, prior: Prior | None) -> Tensor:
        extra = () if prior is None else (prior.days_before / DAYS_PER_YEAR,)
        embedded: Tensor = self.interval(interval_days, *extra)
        return embedded

    def _local(self, motion_vox: Tensor, act: Tensor, ball: _Ball, scale: int) -> Tensor:
        """Local displacement at 1/`scale`, in its voxels, seen from where the ball's growth leads.

        Pull-back: a voxel of the follow-up is first led back by the growth of the ball, then by the
        local field: ``u(p) = g(p) + l(p + g(p))``. Both maps are one-to-one, and so is their
        composition. A direct displacement is simply added.
        """
        if self.config.displacement == "direct":
            return act * motion_vox
        local = integrate_velocity(act * motion_vox, self.config.integration_steps)
        grown = ball.field(scale, spatial_size(local))
        return warp(local, grown)

    def _coarse(
        self, scale: int, both: Tensor, state: TaskState, act: Tensor, ball: _Ball
    ) -> DeepPrediction:
        """Predict at 1/`scale`: average-pooled baseline, that scale's field and residual."""
        pooled = F.avg_pool3d(both, scale)
        field = ball.field(scale, spatial_size(pooled))
        warped = warp(pooled, field + self._local(state.motion_vox, act, ball, scale))
        return DeepPrediction(scale, warped[:, :1] + act * state.residual, warped[:, 1:])


class _Ball:
    """The nodule as a ball that grows: its field at any scale."""

    def __init__(self, shape: NoduleShape, log_growth: Tensor) -> None:
        self.shape, self.log_growth = shape, log_growth

    def field(self, scale: int, size: tuple[int, int, int]) -> Tensor:
        """Displacement ``(B, 3, D, H, W)`` of that size, in voxels of 1/`scale`."""
        coarse = NoduleShape(
            centroid_vox=(self.shape.centroid_vox - (scale - 1) / 2) / scale,
            radius_vox=self.shape.radius_vox / scale,
        )
        return growth_field(coarse, self.log_growth, size)
