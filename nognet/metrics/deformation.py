"""What can be told of a displacement field: where it folds.

Fields are in voxels of the ROI grid, array order (z, y, x), pull-back: a voxel of the follow-up is
taken from ``p + u(p)`` of the baseline.
"""

from __future__ import annotations

import torch
from torch import Tensor


def jacobian_determinant(displacement_vox: Tensor) -> Tensor:
    """Jacobian determinant of ``p + u(p)`` by forward differences, ``(B, D-1, H-1, W-1)``."""
    u = displacement_vox.float()
    core = u[:, :, :-1, :-1, :-1]
    columns = [
        u[:, :, 1:, :-1, :-1] - core,
        u[:, :, :-1, 1:, :-1] - core,
        u[:, :, :-1, :-1, 1:] - core,
    ]
    matrix = torch.stack(columns, dim=-1).permute(0, 2, 3, 4, 1, 5) + torch.eye(3, device=u.device)
    determinant: Tensor = torch.linalg.det(matrix)
    return determinant


def folded_fraction(displacement_vox: Tensor) -> Tensor:
    """Share of voxels whose Jacobian determinant is not positive, ``(B,)``."""
    return (jacobian_determinant(displacement_vox) <= 0).float().flatten(1).mean(1)
