"""Predictors of the follow-up: the network, and the baselines that always stand beside it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nognet.fit.device import autocast
from nognet.network import Batch, MTNoGNet, warp
from nognet.network.layers import DAYS_PER_YEAR
from nognet.network.nodule import growth_field, nodule_shape
from nognet.network.warp import spatial_size
from nognet.types import RoiPair


@dataclass(frozen=True)
class FollowUp:
    """A predicted follow-up: image and mask probability ``(B, 1, D, H, W)``, field in voxels."""

    image: Tensor
    mask: Tensor
    displacement_vox: Tensor


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
    network: MTNoGNet, device: torch.device, precision: Literal["fp32", "bf16"] = "fp32"
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
        )

    return predict
