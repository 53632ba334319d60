"""Predictors of the follow-up: the network, and the baselines that always stand beside it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nognet.config.learning import Precision
from nognet.fit.device import autocast
from nognet.network import Batch, warp
from nognet.network.layers import DAYS_PER_YEAR
from nognet.network.nodule import growth_field, nodule_shape
from nognet.network.warp import spatial_size
from nognet.types import RoiPair


@dataclass(frozen=True)
class FollowUp:
    """A predicted follow-up.

    Attributes:
        image: ``(B, 1, D, H, W)`` in [0, 1].
        mask: Probability of the nodule, the same shape.
        displacement_vox: ``(B, 3, D, H, W)``.
        log_volume_spread: How far ln V may be off, ``(B,)``, not calibrated yet; None where a
            predictor doesn't say.
    """

    image: Tensor
    mask: Tensor
    displacement_vox: Tensor
    log_volume_spread: Tensor | None = None


Predictor = Callable[[Batch], FollowUp]


def copy_baseline(batch: Batch) -> FollowUp:
    """Predict that nothing changes: ``x1 = x0``, ``m1 = m0``."""
    still = batch.image.new_zeros((batch.image.shape[0], 3, *batch.image.shape[2:]))
    return FollowUp(batch.image, batch.mask, still)


def median_growth(pairs: Sequence[RoiPair]) -> float:
    """Median of the log volume ratio a year over training pairs; 0 without pairs."""
    return statistics.median([p.log_growth_per_year for p in pairs]) if pairs else 0.0


def isotropic_growth(log_growth_per_year: float) -> Predictor:
    """Make the predictor that grows every nodule as a ball, at one rate for all."""

    def predict(batch: Batch) -> FollowUp:
        log_growth = log_growth_per_year * batch.interval_days / DAYS_PER_YEAR
        field = growth_field(nodule_shape(batch.mask), log_growth, spatial_size(batch.mask))
        both = warp(torch.cat([batch.image, batch.mask], dim=1), field)
        return FollowUp(both[:, :1], both[:, 1:], field)

    return predict


def network_predictor(
    network: nn.Module, device: torch.device, precision: Precision = "fp32"
) -> Predictor:
    """Make the predictor of a trained network; what it gives lies on the CPU."""
    network.eval()

    @torch.no_grad()
    def predict(batch: Batch) -> FollowUp:
        moved = batch.to(device)
        with autocast(device, precision):
            found = network(moved.image, moved.mask, moved.interval_days, moved.prior)
        return FollowUp(
            found.image.clamp(0.0, 1.0).cpu(),
            found.mask.clamp(0.0, 1.0).cpu(),
            found.displacement_vox.cpu(),
            None if found.log_growth_spread is None else found.log_growth_spread.cpu(),
        )

    return predict
