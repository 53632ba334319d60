"""How well do two CTs agree under a transform, outside the nodules?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from nognet.data.pairs.surroundings import Surroundings, is_lung
from nognet.data.sitk_bridge import geometry_of, resample

MIN_VOXELS = 100


@dataclass(frozen=True)
class Agreement:
    """Agreement of two CTs where both are known and neither has a nodule.

    Attributes:
        ncc: Normalised cross-correlation, in [-1, 1]; -1 where next to nothing is seen by both.
        lung_overlap: Dice of the two lungs, in [0, 1]; 0 where neither shows lung.
    """

    ncc: float
    lung_overlap: float


def agreement(transform: sitk.Transform, fixed: Surroundings, moving: Surroundings) -> Agreement:
    """Hold the moving CT, brought into the fixed frame, against the fixed one."""
    grid = geometry_of(fixed.image)
    values = resample(moving.image, grid, transform, fill=0.0)
    visible = resample(moving.visible, grid, transform, fill=0.0) > 0.99
    both = visible & (sitk.GetArrayViewFromImage(fixed.visible) > 0)
    a, b = sitk.GetArrayViewFromImage(fixed.image)[both], values[both]
    if both.sum() < MIN_VOXELS or a.std() == 0 or b.std() == 0:
        return Agreement(-1.0, 0.0)
    lungs = is_lung(a), is_lung(b)
    marked = int(lungs[0].sum()) + int(lungs[1].sum())
    common = int((lungs[0] & lungs[1]).sum())
    return Agreement(float(np.corrcoef(a, b)[0, 1]), 2 * common / marked if marked else 0.0)
