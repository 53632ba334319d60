"""What a registration looks at: a nodule's surroundings on a grid of their own, nodules blinded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nognet.data.pairs.roi import crop, nodule_centre_mm, nodule_points_mm
from nognet.data.sitk_bridge import resample, to_sitk
from nognet.types import Geometry, Volume

FINE_MM = 2.0
BLIND_MARGIN_MM = 4.0
"""Rim around each nodule that the metric does not see either."""
AIR_HU = -1000.0
PADDING_HU = -1024.0
"""What was never measured is written as this, and nothing lies below it (see `ct.hounsfield`)."""
DENSE_HU = 200.0
LUNG_HU = (-960.0, -500.0)
"""Lung with its small vessels; below lies the air around the patient, above all that is dense."""
RIM_MM = 6.0
"""So far around lung tissue belongs to it: vessels and pleura are the edges to hold on to."""
MIN_LUNG_SHARE = 0.05
SMOOTHING_VOX = 0.5

LARGEST_REACH_MM = 40.0
"""What reaches further is no nodule but a lung, given by mistake: regions stay bounded."""


@dataclass(frozen=True)
class CtWithNodule:
    """A CT in HU and a nodule's mask, cropped around the nodule.

    Attributes:
        ct: The whole CT.
        nodule: Mask in {0, 1} on a part of the CT's grid (see `roi.crop_mask`).
        others: Masks of the patient's other nodules on that CT; a registration is blind to them
            as well.
    """

    ct: Volume
    nodule: Volume
    others: tuple[Volume, ...] = ()

    @property
    def centre_mm(self) -> NDArray[np.float64]:
        """Centroid of the nodule."""
        return nodule_centre_mm(self.nodule)

    @property
    def reach_mm(self) -> float:
        """Half the edge of the smallest cube around the centroid that holds the nodule."""
        points = nodule_points_mm(self.nodule)
        return float(np.abs(points - points.mean(axis=0)).max())


@dataclass(frozen=True)
class Surroundings:
    """A cube of a CT.

    Attributes:
        image: HU scaled from air to dense tissue to [0, 1]; 0 where nothing is known.
        visible: 1 where the CT is known and shows no nodule.
    """

    image: sitk.Image
    visible: sitk.Image


def surroundings(
    side: CtWithNodule, centre_mm: NDArray[np.float64], half_mm: float
) -> Surroundings:
    """Cut a cube of 2 mm voxels out of a CT and mark where no nodule lies.

    Args:
        side: The CT and its nodules.
        centre_mm: Centre of the cube.
        half_mm: Half of its edge.
    """
    grid = cube(centre_mm, int(2 * half_mm / FINE_MM) + 1, FINE_MM)
    identity = sitk.Transform(3, sitk.sitkIdentity)
    near = shrunk(crop(side.ct, centre_mm, half_mm + 3 * FINE_MM), FINE_MM)
    values = resample(_without_padding(near), grid, identity, fill=np.nan)
    visible = np.isfinite(values) & ~_blinded((side.nodule, *_small(side.others)), grid)
    image = np.nan_to_num(scaled(values))
    return Surroundings(to_sitk(image, grid), to_sitk(visible.astype(np.uint8), grid))


def is_lung(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Mark lung by its density in a scaled image."""
    low, high = ((hu - AIR_HU) / (DENSE_HU - AIR_HU) for hu in LUNG_HU)
    inside: NDArray[np.bool_] = (values > low) & (values < high)
    return inside


def lung_of(region: Surroundings) -> Surroundings:
    """Narrow what is visible to lung and a rim of 6 mm; where there is next to none, keep all."""
    lung = is_lung(sitk.GetArrayViewFromImage(region.image))
    visible = sitk.GetArrayFromImage(region.visible)
    if (lung & (visible > 0)).mean() < MIN_LUNG_SHARE:
        return region
    radius = [round(RIM_MM / FINE_MM)] * 3
    grown = sitk.BinaryDilate(sitk.GetImageFromArray(lung.astype(np.uint8)), radius, sitk.sitkBall)
    return _narrowed(region, visible * sitk.GetArrayViewFromImage(grown))


def ball_of(region: Surroundings, radius_mm: float) -> Surroundings:
    """Narrow what is visible to a ball around the middle."""
    visible = sitk.GetArrayFromImage(region.visible)
    middle = (np.array(visible.shape).reshape(3, 1, 1, 1) - 1) / 2
    away = np.linalg.norm((np.indices(visible.shape) - middle) * FINE_MM, axis=0)
    return _narrowed(region, visible * (away <= radius_mm))


def smoothed(region: Surroundings) -> Surroundings:
    """Smooth a little, only by what is visible, so that noise does not steer a fit.

    Interpolation between voxels smooths noise and on voxels does not: where two grids lie alike, a
    fit leaves the truth for where it interpolates more (0.55 mm off in a test, smoothed 0.17).
    """
    sigma = SMOOTHING_VOX * FINE_MM
    visible = sitk.Cast(region.visible, sitk.sitkFloat32)
    total = sitk.SmoothingRecursiveGaussian(region.image * visible, sigma)
    share = sitk.Clamp(sitk.SmoothingRecursiveGaussian(visible, sigma), lowerBound=0.05)
    return Surroundings(total / share, region.visible)


def _narrowed(region: Surroundings, visible: NDArray[np.uint8]) -> Surroundings:
    mask = sitk.GetImageFromArray(visible.astype(np.uint8, copy=False))
    mask.CopyInformation(region.visible)
    return Surroundings(region.image, mask)


def _small(masks: Sequence[Volume]) -> list[Volume]:
    """Leave out masks that are no nodule's: blind to a whole lung, nothing could be registered."""
    return [
        mask
        for mask in masks
        if max(np.multiply(mask.geometry.size, mask.geometry.spacing_mm)) <= 2 * LARGEST_REACH_MM
    ]


def _blinded(nodules: tuple[Volume, ...], grid: Geometry) -> NDArray[np.bool_]:
    """Mark nodules and a rim of 4 mm around them, also of nodules that lie beyond the grid."""
    radius = max(1, round(BLIND_MARGIN_MM / grid.spacing_mm[0]))
    points = np.concatenate([nodule_points_mm(nodule) for nodule in nodules])
    index = np.round(grid.world_to_index(points)).astype(int) + radius
    size = np.array(grid.size) + 2 * radius
    x, y, z = index[np.all((index >= 0) & (index < size), axis=1)].T
    marked = np.zeros(size[::-1], dtype=np.uint8)
    marked[z, y, x] = 1
    grown = sitk.BinaryDilate(sitk.GetImageFromArray(marked), [radius] * 3, sitk.sitkBall)
    inner = (slice(radius, -radius),) * 3
    result: NDArray[np.bool_] = sitk.GetArrayViewFromImage(grown)[inner].astype(bool)
    return result


def cube(centre_mm: NDArray[np.float64], n: int, spacing_mm: float) -> Geometry:
    """Lay a world-aligned grid of `n` voxels an axis around a point."""
    x, y, z = (float(c) - (n - 1) / 2 * spacing_mm for c in centre_mm)
    return Geometry((n, n, n), (spacing_mm,) * 3, (x, y, z))


def shrunk(volume: Volume, spacing_mm: float) -> sitk.Image:
    """Average blocks of voxels so that resampling at `spacing_mm` does not alias."""
    size, spacing = volume.geometry.size, volume.geometry.spacing_mm
    factors = [
        max(1, min(n, int(spacing_mm / s + 0.25))) for n, s in zip(size, spacing, strict=True)
    ]
    image = to_sitk(volume.array, volume.geometry)
    return sitk.BinShrink(image, factors) if max(factors) > 1 else image


def padding_of(image: sitk.Image) -> sitk.Image | None:
    """Mark what lies outside a field of view and was written as the lowest HU; None if nothing is.

    It comes in areas, with sharp edges that are none of the patient's. A noisy airway has single
    voxels of that value, hardly ever a whole block of averaged ones and all blocks around it.

    Args:
        image: HU, shrunken by `shrunk`.

    Returns:
        1 in padding and in the one voxel around it that may be averaged with it.
    """
    lowest = sitk.GetArrayViewFromImage(image) <= PADDING_HU + 0.5
    if not lowest.any():
        return None
    core = ~_box_dilated(~lowest, (0, 1, 1))
    area: sitk.Image = sitk.GetImageFromArray(_box_dilated(core, (1, 2, 2)).astype(np.uint8))
    area.CopyInformation(image)
    return area


def _box_dilated(mask: NDArray[np.bool_], radii: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Dilate by a box, axis by axis: shifted copies take a tenth of ITK's time on small volumes."""
    for axis, radius in enumerate(radii):
        grown = mask.copy()
        for shift in range(1, min(radius, mask.shape[axis] - 1) + 1):
            ahead = [slice(None)] * 3
            behind = [slice(None)] * 3
            ahead[axis], behind[axis] = slice(shift, None), slice(None, -shift)
            grown[tuple(ahead)] |= mask[tuple(behind)]
            grown[tuple(behind)] |= mask[tuple(ahead)]
        mask = grown
    return mask


def _without_padding(image: sitk.Image) -> sitk.Image:
    """Make padding NaN."""
    padding = padding_of(image)
    if padding is None:
        return image
    hu = sitk.GetArrayFromImage(image).astype(np.float32)
    hu[sitk.GetArrayViewFromImage(padding) > 0] = np.nan
    known = sitk.GetImageFromArray(hu)
    known.CopyInformation(image)
    return known


def scaled(hu: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale air to dense tissue to [0, 1]; NaN stays NaN."""
    result: NDArray[np.float32] = np.clip((hu - AIR_HU) / (DENSE_HU - AIR_HU), 0, 1)
    return result.astype(np.float32, copy=False)
