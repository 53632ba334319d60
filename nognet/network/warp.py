"""The spatial transformer and what can be measured of a displacement field.

Displacements are in voxels of the ROI grid in array order (z, y, x), pull-back:
``warped(p) = image(p + u(p))`` (NoFoNet eq. 1; VoxelMorph). Always computed in float32: a bf16 warp
errs by a sizeable part of its own effect.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


@lru_cache(maxsize=16)
def _identity_grid(size: tuple[int, int, int], device: torch.device) -> Tensor:
    """Normalised sampling grid of the identity, ``(1, D, H, W, 3)`` in x, y, z order."""
    axes = [torch.linspace(-1.0, 1.0, n, device=device) for n in size]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([x, y, z], dim=-1)[None]


@lru_cache(maxsize=16)
def voxel_positions(size: tuple[int, int, int], device: torch.device) -> Tensor:
    """Index coordinates of all voxels, ``(1, 3, D, H, W)`` in z, y, x order."""
    axes = [torch.arange(n, dtype=torch.float32, device=device) for n in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def spatial_size(tensor: Tensor) -> tuple[int, int, int]:
    """(D, H, W) of a ``(B, C, D, H, W)`` tensor."""
    depth, height, width = tensor.shape[2:]
    return depth, height, width


def warp(image: Tensor, displacement_vox: Tensor) -> Tensor:
    """Sample ``image(p + u(p))`` trilinearly; beyond the border the border's value is taken.

    Args:
        image: ``(B, C, D, H, W)``.
        displacement_vox: ``(B, 3, D, H, W)``, voxels, z, y, x order.

    Returns:
        ``(B, C, D, H, W)`` float32.
    """
    u = displacement_vox.float()
    size = spatial_size(u)
    to_unit = torch.tensor([2.0 / (n - 1) for n in size], device=u.device)
    normalised = (u * to_unit[None, :, None, None, None]).flip(1).permute(0, 2, 3, 4, 1)
    grid = _identity_grid(size, u.device) + normalised
    warped: Tensor = F.grid_sample(
        image.float(), grid, mode="bilinear", padding_mode="border", align_corners=True
    )
    return warped


def integrate_velocity(velocity_vox: Tensor, squarings: int) -> Tensor:
    """Integrate a stationary velocity field over unit time by scaling and squaring.

    ``exp(v)``: start from ``v / 2^n``, then compose n times with itself (Arsigny et al. 2006;
    Dalca et al. 2018, VoxelMorph-diff). The result is a diffeomorphism as far as the grid can show
    it; 0 stays exactly 0.

    Args:
        velocity_vox: ``(B, 3, D, H, W)``, voxels, pull-back, z, y, x order.
        squarings: n; 2^n Euler steps.

    Returns:
        The displacement ``(B, 3, D, H, W)`` float32 in voxels.
    """
    displacement = velocity_vox.float() * 0.5**squarings
    for _ in range(squarings):
        displacement = compose(displacement, displacement)
    return displacement


def compose(first_vox: Tensor, then_vox: Tensor) -> Tensor:
    """Displacement of ``p -> q + then(q)``, ``q = p + first(p)``: ``first(p) + then(q)``."""
    composed: Tensor = first_vox + warp(then_vox, first_vox)
    return composed


def upsample_displacement(displacement_vox: Tensor) -> Tensor:
    """Double the resolution of a field, and so its length in voxels: ``(B, 3, 2D, 2H, 2W)``."""
    finer = F.interpolate(displacement_vox, scale_factor=2.0, mode="trilinear", align_corners=False)
    return 2.0 * finer
