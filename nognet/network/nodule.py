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

DESCRIPTOR_COUNT = 11
# centre and scale of the descriptors over a phantom cohort of 96 pairs
_STANDARD = (
    (-0.10, 0.05, -0.27, 0.21, -0.01, -0.29, 0.56, 0.55, 0.10, 0.026, 1.035),
    (0.19, 0.30, 0.21, 0.35, 0.30, 0.30, 0.84, 0.16, 0.155, 0.034, 0.072),
)
_SOFT_TISSUE = 0.42  # -430 HU in the window -1024..400
_REACH = 2.0  # the growth field falls off at this multiple of the larger radius


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
    beyond it the field falls off smoothly (``exp(-(d / reach)^6)``: 0.98 at the edge), so that the
    surroundings give way. For volume ratios above 0.28 the radial map is strictly increasing: the
    field does not fold.

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
    fall_off = torch.exp(-distance_in_reach.pow(3))
    return offset * _expand(torch.expm1(-log_growth / 3.0)) * fall_off


def nodule_descriptors(image: Tensor, mask: Tensor) -> Tensor:
    """Describe size, density and surface of the nodule by eleven numbers of order 1.

    Radius; mean and spread of density; density of core, rim and surroundings; steepness of the
    edge; surface over that of a ball of equal volume, by dilation and by voxel faces (lobulation,
    spiculation); share of soft tissue just outside (rays, vessels); spread within the core.

    Args:
        image: ``(B, 1, D, H, W)`` in [0, 1].
        mask: ``(B, 1, D, H, W)`` in {0, 1}.

    Returns:
        ``(B, 11)``, each about standard normal over a phantom cohort.
    """
    dilated = dilate(mask, 1)
    eroded = 1.0 - dilate(1.0 - mask, 1)
    rim, ring = mask - eroded, dilated - mask
    surroundings = dilate(dilated, 2) - dilated
    volume = mask.flatten(1).sum(1)
    ball_radius = (volume * (3.0 / (4.0 * math.pi))).pow(1.0 / 3.0)
    ball_surface = (4.0 * math.pi * ball_radius.square()).clamp_min(1.0)
    faces = torch.stack([mask.diff(dim=k).abs().flatten(1).sum(1) for k in (2, 3, 4)]).sum(0)
    rim_mean, ring_mean = _mean_over(image, rim), _mean_over(image, ring)
    columns = [
        ball_radius / 5.0 - 1.0,
        2.0 * _mean_over(image, mask) - 1.0,
        8.0 * _spread_over(image, mask) - 1.0,
        2.0 * _mean_over(image, eroded) - 1.0,
        2.0 * rim_mean - 1.0,
        4.0 * _mean_over(image, surroundings) - 1.0,
        6.0 * (rim_mean - ring_mean) - 1.0,
        ring.flatten(1).sum(1) / ball_surface - 1.5,
        _mean_over(torch.sigmoid((image - _SOFT_TISSUE) / 0.02), ring),
        _spread_over(image, eroded),
        faces / (1.5 * ball_surface),
    ]
    centre, scale = (torch.tensor(values, device=image.device) for values in _STANDARD)
    return (torch.stack(columns, dim=1) - centre) / scale


def _mean_over(values: Tensor, region: Tensor) -> Tensor:
    """Mean of `values` weighted by `region`, ``(B,)``; 0 over an empty region."""
    total = (values * region).flatten(1).sum(1)
    return total / region.flatten(1).sum(1).clamp_min(1.0)


def _spread_over(values: Tensor, region: Tensor) -> Tensor:
    """Standard deviation over a region, ``(B,)``; the root is kept off 0, where it has no slope."""
    deviation = values - _expand(_mean_over(values, region))
    return (_mean_over(deviation.square(), region) + 1e-8).sqrt()


def _expand(per_sample: Tensor) -> Tensor:
    """``(B,)`` to ``(B, 1, 1, 1, 1)``."""
    return per_sample[:, None, None, None, None]
