"""How well do two CTs agree under a transform, outside the nodules?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nognet.data.pairs.surroundings import FINE_MM, Surroundings, is_lung
from nognet.data.sitk_bridge import geometry_of, resample

MIN_VOXELS = 100
MIN_SPREAD = 1e-4
"""A tenth of an HU: what varies less is a constant and rounding, which may correlate."""
COARSER_MM = 8.0
"""Sigma of what is taken off as common to any two chests: wall, spine, the lung as a whole."""


@dataclass(frozen=True)
class Agreement:
    """Agreement of two CTs where both are known and neither has a nodule.

    Attributes:
        ncc: Normalised cross-correlation of the detail in the lungs, in [-1, 1]; -1 where next to
            nothing is seen by both. Detail is what is left without everything coarser than 8 mm:
            over all there is, a chest correlates by 0.9 and more with another patient's.
        lung_overlap: Dice of the two lungs, in [0, 1]; 0 where neither shows lung.
    """

    ncc: float
    lung_overlap: float


def agreement(transform: sitk.Transform, fixed: Surroundings, moving: Surroundings) -> Agreement:
    """Hold the moving CT, brought into the fixed frame, against the fixed one."""
    grid = geometry_of(fixed.image)
    first = sitk.GetArrayViewFromImage(fixed.image)
    second = resample(moving.image, grid, transform, fill=0.0)
    visible = resample(moving.visible, grid, transform, fill=0.0) > 0.99
    both = visible & (sitk.GetArrayViewFromImage(fixed.visible) > 0)
    lungs = is_lung(first) & both, is_lung(second) & both
    marked = int(lungs[0].sum()) + int(lungs[1].sum())
    common = int((lungs[0] & lungs[1]).sum())
    either = lungs[0] | lungs[1]
    if either.sum() < MIN_VOXELS:  # no lung around: all that there is has to do
        either = both
    share = _blurred(both.astype(np.float32))
    a, b = (_detail(values, both, share)[either] for values in (first, second))
    if either.sum() < MIN_VOXELS or min(a.std(), b.std()) < MIN_SPREAD:
        return Agreement(-1.0, 0.0)
    return Agreement(float(np.corrcoef(a, b)[0, 1]), 2 * common / marked if marked else 0.0)


def _detail(
    values: NDArray[np.float32], known: NDArray[np.bool_], share: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Take the mean of the known neighbourhood off."""
    around = _blurred(values * known) / np.maximum(share, np.float32(0.01))
    return np.asarray(values - around, dtype=np.float32)


def _blurred(values: NDArray[np.float32]) -> NDArray[np.float32]:
    image = sitk.GetImageFromArray(values.astype(np.float32, copy=False))
    smooth: NDArray[np.float32] = sitk.GetArrayFromImage(
        sitk.SmoothingRecursiveGaussian(image, COARSER_MM / FINE_MM)
    )
    return smooth
