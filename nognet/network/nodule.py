"""What the mask says: where the nodule lies, what it looks like, how a growing ball would move.

These parts have no parameters. They let the network start from the identity and depart from it
only by what the image says of growth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nognet.network.layers import dilate, dilate_by_faces
from nognet.network.warp import spatial_size, voxel_positions

DESCRIPTOR_COUNT = 17
# centre and scale of the descriptors over a phantom cohort of 192 pairs
_STANDARD = (
    (4.47, 0.50, 0.098, 0.59, 0.47, 0.127, 0.28, 2.06, 0.042, 0.032, 1.56,
     1.08, 1.07, 0.123, 0.46, 0.25, 0.051),
    (0.97, 0.15, 0.032, 0.18, 0.15, 0.020, 0.13, 0.15, 0.038, 0.037, 0.091,
     0.044, 0.042, 0.035, 0.22, 0.069, 0.053),
)  # fmt: skip
_SOFT_TISSUE = 0.42  # -430 HU in the window -1024..400
# with this fall-off the radial map turns at 0.535; the rest is for the grid's coarseness
_MOST_STRETCH = 0.46
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
    surroundings give way. Shrinkage beyond a volume ratio of 0.32 is not delivered in full: the
    radial map would no longer increase, and the field would fold.

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
    stretch = torch.expm1(-log_growth / 3.0).clamp_max(_MOST_STRETCH)
    return offset * _expand(stretch) * fall_off


def nodule_descriptors(image: Tensor, mask: Tensor) -> Tensor:
    """Describe the nodule by seventeen numbers of order 1: size, density, surface, form and edge.

    None changes when the nodule is turned or mirrored.

    Args:
        image: ``(B, 1, D, H, W)`` in [0, 1].
        mask: ``(B, 1, D, H, W)`` in {0, 1}.

    Returns:
        ``(B, 17)``, each about standard normal over a phantom cohort.
    """
    columns = [*_density_and_surface(image, mask), *_form(mask), *_edge(image, mask)]
    centre, scale = (torch.tensor(values, device=image.device) for values in _STANDARD)
    return (torch.stack(columns, dim=1) - centre) / scale


def _density_and_surface(image: Tensor, mask: Tensor) -> list[Tensor]:
    """Radius; mean and spread of density; core, rim, surroundings, steepness; surface; rays.

    The surface is that over a ball's of equal volume, by dilation and by voxel faces (lobulation,
    spiculation); rays and vessels are the share of soft tissue just outside.
    """
    dilated = dilate(mask, 1)
    eroded = 1.0 - dilate(1.0 - mask, 1)
    rim, ring = mask - eroded, dilated - mask
    surroundings = dilate(dilated, 2) - dilated
    radius = nodule_shape(mask).radius_vox
    ball_surface = (4.0 * math.pi * radius.square()).clamp_min(1.0)
    faces = torch.stack([mask.diff(dim=k).abs().flatten(1).sum(1) for k in (2, 3, 4)]).sum(0)
    rim_mean, ring_mean = _mean_over(image, rim), _mean_over(image, ring)
    return [
        radius,
        _mean_over(image, mask),
        _spread_over(image, mask),
        _mean_over(image, eroded),
        rim_mean,
        _mean_over(image, surroundings),
        rim_mean - ring_mean,
        ring.flatten(1).sum(1) / ball_surface,
        _mean_over(torch.sigmoid((image - _SOFT_TISSUE) / 0.02), ring),
        _spread_over(image, eroded),
        faces / ball_surface,
    ]


def _form(mask: Tensor) -> list[Tensor]:
    """Departure from a ball and from an ellipsoid, by the moments of the mask.

    The volume of the ellipsoid of equal inertia over the volume (1 for any ellipsoid); the second
    moment over a ball's; the spread of the rim's distance from the centroid; the elongation.
    """
    volume = mask.flatten(1).sum(1).clamp_min(1.0)
    shape = nodule_shape(mask)
    radius_squared = shape.radius_vox.square().clamp_min(1.0)
    offset = voxel_positions(spatial_size(mask), mask.device)
    offset = (offset - shape.centroid_vox[:, :, None, None, None]).flatten(2)  # (B, 3, voxels)
    weighted = offset * (mask / _expand(volume)).flatten(2)
    # a voxel is a cube, not a point: its own inertia is 1/12
    inertia = weighted @ offset.transpose(1, 2) + torch.eye(3, device=mask.device) / 12.0
    axes = torch.linalg.eigvalsh(inertia.float())
    rim = mask - (1.0 - dilate_by_faces(1.0 - mask))
    distance = offset.square().sum(1).sqrt().reshape(mask.shape)
    ellipsoid = (4.0 / 3.0) * math.pi * 5.0**1.5 * axes.prod(1).sqrt()
    return [
        ellipsoid / volume,
        axes.sum(1) / (0.6 * radius_squared),
        _spread_over(distance, rim) / _mean_over(distance, rim).clamp_min(1.0),
        (axes[:, 2] / axes[:, 0]).log(),
    ]


def _edge(image: Tensor, mask: Tensor) -> list[Tensor]:
    """Blur: density one and two voxels outside, over the contrast of core and surroundings."""
    rings = [mask]
    for _ in range(5):
        rings.append(dilate_by_faces(rings[-1]))
    far = _mean_over(image, rings[5] - rings[3])
    core = _mean_over(image, 1.0 - dilate_by_faces(1.0 - mask))
    contrast = (core - far).clamp_min(0.03)
    return [
        (_mean_over(image, rings[1] - rings[0]) - far) / contrast,
        (_mean_over(image, rings[2] - rings[1]) - far) / contrast,
    ]


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
