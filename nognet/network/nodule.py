"""What the mask says: where the nodule lies, what it looks like, how a growing ball would move.

These parts have no parameters. They let the network start from the identity and depart from it
only by what the image says of growth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nognet.network.layers import dilate
from nognet.network.warp import spatial_size, voxel_positions

DESCRIPTOR_COUNT = 8
_REACH = 1.8  # the growth field falls off at this multiple of the larger radius


@dataclass(frozen=True)
class NoduleShape:
    """Centroid ``(B, 3)`` in voxels (z, y, x) and equivalent-sphere radius ``(B,)`` in voxels."""

    centroid_vox: Tensor
    radius_vox: Tensor


def nodule_shape(mask: Tensor) -> NoduleShape:
    """Measure centroid and radius of masks ``(B, 1, D, H, W)``.

    An empty mask has the ROI's centre and radius 0.
    """
    size = spatial_size(mask)
    positions = voxel_positions(size, mask.device)
    volume = mask.flatten(1).sum(1)
    middle = torch.tensor([(n - 1) / 2 for n in size], device=mask.device)
    weighted = (positions * mask).flatten(2).sum(2) / volume.clamp_min(1e-6)[:, None]
    centroid = torch.where((volume > 0)[:, None], weighted, middle)
    radius = (volume * (3.0 / (4.0 * math.pi))).pow(1.0 / 3.0)
    return NoduleShape(centroid_vox=centroid, radius_vox=radius)


def growth_field(shape: NoduleShape, log_growth: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Displacement of a ball that grows by the volume ratio ``exp(log_growth)`` about its centre.

    Within the nodule the pull-back is ``u(p) = (p - c)(1 / s - 1)``, ``s = exp(log_growth / 3)``;
    beyond it the field falls off smoothly, so that the surroundings give way. For volume ratios
    above 0.15 the radial map is strictly increasing: the field does not fold.

    Args:
        shape: Of the baseline nodule.
        log_growth: Natural logarithm of the volume ratio, ``(B,)``.
        size: (D, H, W) of the field.

    Returns:
        ``(B, 3, D, H, W)`` in voxels; exactly 0 where `log_growth` is 0.
    """
    offset = voxel_positions(size, log_growth.device) - shape.centroid_vox[:, :, None, None, None]
    scale = torch.exp(log_growth / 3.0)
    reach = _REACH * (shape.radius_vox * scale.clamp_min(1.0)).clamp_min(1.0)
    distance_in_reach = offset.square().sum(1, keepdim=True) / _expand(reach.square())
    fall_off = torch.exp(-distance_in_reach.square())
    return offset * _expand(torch.expm1(-log_growth / 3.0)) * fall_off


def nodule_descriptors(image: Tensor, mask: Tensor) -> Tensor:
    """Describe size, density and surface of the nodule by eight numbers of order 1.

    Radius; mean and spread of density; density of core, rim and surroundings; steepness of the
    edge; surface over that of a ball of equal volume (lobulation, spiculation).

    Args:
        image: ``(B, 1, D, H, W)`` in [0, 1].
        mask: ``(B, 1, D, H, W)`` in [0, 1].

    Returns:
        ``(B, 8)``.
    """
    dilated = dilate(mask, 1)
    eroded = 1.0 - dilate(1.0 - mask, 1)
    surroundings = dilate(dilated, 2) - dilated
    volume = mask.flatten(1).sum(1)
    radius = (volume * (3.0 / (4.0 * math.pi))).pow(1.0 / 3.0)
    mean = _mean_over(image, mask)
    spread = _mean_over((image - _expand(mean)).square(), mask).sqrt()
    outside = _mean_over(image, surroundings)
    edge = _mean_over(image, mask - eroded) - _mean_over(image, dilated - mask)
    ball_surface = 4.0 * math.pi * radius.square()
    surface = (dilated - mask).flatten(1).sum(1) / ball_surface.clamp_min(1.0)
    columns = [
        radius / 5.0 - 1.0,
        2.0 * mean - 1.0,
        8.0 * spread - 1.0,
        2.0 * _mean_over(image, eroded) - 1.0,
        2.0 * _mean_over(image, mask - eroded) - 1.0,
        4.0 * outside - 1.0,
        6.0 * edge - 1.0,
        surface - 1.5,
    ]
    return torch.stack(columns, dim=1)


def _mean_over(values: Tensor, region: Tensor) -> Tensor:
    """Mean of `values` weighted by `region`, ``(B,)``; 0 over an empty region."""
    total = (values * region).flatten(1).sum(1)
    return total / region.flatten(1).sum(1).clamp_min(1.0)


def _expand(per_sample: Tensor) -> Tensor:
    """``(B,)`` to ``(B, 1, 1, 1, 1)``."""
    return per_sample[:, None, None, None, None]
