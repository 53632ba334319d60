"""Cut the 1 mm region of interest: one resampling from the native grid, volumes kept unbiased."""

from __future__ import annotations

from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nognet.config import RoiConfig
from nognet.data.sitk_bridge import resample, to_sitk
from nognet.types import Geometry, Vector3, Volume

AIR_HU = -1024.0
THRESHOLD_RANGE = (0.2, 0.8)
"""How far the threshold of a resampled mask may move from one half to keep the volume."""


GAUSS_OF_FWHM = 1 / 2.3548
"""Standard deviation of a Gaussian by its full width at half maximum."""
LEAST_WIDER_MM2 = 0.02
"""Voxels of 0.99 mm are as good as 1 mm."""


def crop_mask(mask: NDArray[np.uint8], geometry: Geometry) -> Volume:
    """Crop a mask ``(D, H, W)``, not empty, to its nodule with a rim of one empty voxel.

    The rim is there even where the nodule touches the image's edge; all else takes this crop.
    """
    spans = [np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    boxed = mask[tuple(slice(int(span[0]), int(span[-1]) + 1) for span in spans)]
    array = np.pad(boxed, 1)
    first = np.array([span[0] - 1 for span in spans], dtype=np.float64)[::-1]
    x, y, z = geometry.index_to_world(first).tolist()
    depth, height, width = array.shape
    size = (width, height, depth)
    return Volume(array, Geometry(size, geometry.spacing_mm, (x, y, z), geometry.direction))


def nodule_points_mm(nodule: Volume) -> NDArray[np.float64]:
    """List the voxel centres of a mask in LPS millimetres ``(N, 3)``."""
    index = np.argwhere(nodule.array)[:, ::-1].astype(np.float64)
    return nodule.geometry.index_to_world(index)


def nodule_centre_mm(nodule: Volume) -> NDArray[np.float64]:
    """Find the centroid of a mask in LPS millimetres ``(3,)``."""
    centre: NDArray[np.float64] = nodule_points_mm(nodule).mean(axis=0)
    return centre


def nodule_volume_mm3(nodule: Volume) -> float:
    """Measure a mask on its native grid."""
    return float(np.count_nonzero(nodule.array)) * nodule.geometry.voxel_volume_mm3


def roi_grid(centre_mm: NDArray[np.float64], size_vox: int) -> Geometry:
    """Lay a grid of 1 mm around a point, along the patient's axes (LPS)."""
    x, y, z = (float(c) - (size_vox - 1) / 2 for c in centre_mm)
    origin: Vector3 = (x, y, z)
    return Geometry((size_vox,) * 3, (1.0, 1.0, 1.0), origin)


def crop(volume: Volume, centre_mm: NDArray[np.float64], half_edge_mm: float) -> Volume:
    """Crop to the smallest box of voxels that holds a world-aligned cube; at least one voxel.

    Args:
        volume: Any volume; its array is not copied.
        centre_mm: Centre of the cube.
        half_edge_mm: Half of the cube's edge.
    """
    corners = np.array(np.meshgrid(*[[-1.0, 1.0]] * 3)).reshape(3, -1).T * half_edge_mm + centre_mm
    index = volume.geometry.world_to_index(corners)
    size = np.array(volume.geometry.size)
    low = np.clip(np.floor(index.min(axis=0)).astype(int), 0, size - 1)
    high = np.clip(np.ceil(index.max(axis=0)).astype(int) + 1, low + 1, size)
    x, y, z = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    ox, oy, oz = volume.geometry.index_to_world(low.astype(np.float64)).tolist()
    array = volume.array[z, y, x]
    nx, ny, nz = array.shape[::-1]
    old = volume.geometry
    return Volume(array, Geometry((nx, ny, nz), old.spacing_mm, (ox, oy, oz), old.direction))


def cut_image(
    volume: Volume, grid: Geometry, transform: sitk.Transform, roi: RoiConfig
) -> NDArray[np.float32]:
    """Resample a CT onto the ROI and scale its HU window to [0, 1].

    Args:
        volume: CT in HU on its native grid.
        grid: The ROI, in the baseline's frame.
        transform: Maps points of the baseline's frame into the volume's.
        roi: Gives the window.

    Returns:
        ``(D, H, W)`` float32 in [0, 1]; outside the CT's field of view it is air.
    """
    near = _near(volume, grid, transform)
    image = _without_aliases(to_sitk(near.array, near.geometry), grid.spacing_mm[0])
    values = resample(image, grid, transform, fill=AIR_HU)
    low, high = roi.hu_window
    scaled = (values - np.float32(low)) / np.float32(high - low)
    clipped: NDArray[np.float32] = np.clip(scaled, 0.0, 1.0)
    return clipped


def _without_aliases(image: sitk.Image, spacing_mm: float) -> sitk.Image:
    """Blur along the axes that are finer than the target, or their noise folds into it.

    A native voxel and the Gaussian together are as wide as a target voxel (full width at half
    maximum); an axis as coarse as the target stays as it is.
    """
    wider = [max(0.0, spacing_mm**2 - native**2) for native in image.GetSpacing()]
    if max(wider) < LEAST_WIDER_MM2:
        return image
    variance = [width * GAUSS_OF_FWHM**2 for width in wider]
    return sitk.DiscreteGaussian(
        sitk.Cast(image, sitk.sitkFloat32), variance, maximumKernelWidth=32, maximumError=1e-3
    )


def cut_mask(
    nodule: Volume, grid: Geometry, transform: sitk.Transform
) -> tuple[NDArray[np.uint8], float]:
    """Resample a mask onto the ROI so that its volume stays what it was on the native grid.

    The mask is resampled linearly; kept are as many voxels as the native volume asks for, those of
    highest value (a plain threshold of one half shrinks small convex shapes on thick slices).

    Args:
        nodule: Mask in {0, 1} on its native grid, cropped by `crop_mask`.
        grid: The ROI, in the baseline's frame.
        transform: Maps points of the baseline's frame into the mask's.

    Returns:
        ``(D, H, W)`` uint8 in {0, 1}, and the part of the nodule inside the ROI, in [0, 1].
    """
    inside = inside_fraction(nodule, grid, transform)
    wanted = round(inside * nodule_volume_mm3(nodule) / grid.voxel_volume_mm3)
    image = to_sitk(nodule.array.astype(np.float32), nodule.geometry)
    values = resample(image, grid, transform, fill=0.0)
    return _keep_volume(values, wanted), inside


def inside_fraction(nodule: Volume, grid: Geometry, transform: sitk.Transform) -> float:
    """Measure the part of a nodule's voxels that lies inside the ROI."""
    points = map_points(transform.GetInverse(), nodule_points_mm(nodule))
    index = grid.world_to_index(points)
    size = np.array(grid.size)
    inside = np.all((index >= -0.5) & (index <= size - 0.5), axis=1)
    return float(inside.mean())


def covered_fraction(geometry: Geometry, grid: Geometry, transform: sitk.Transform) -> float:
    """Measure the part of the ROI inside a volume's field of view, on a coarse set of points."""
    along = np.linspace(0, grid.size[0] - 1, 9)
    points = np.stack(np.meshgrid(along, along, along), axis=-1).reshape(-1, 3)
    index = geometry.world_to_index(map_points(transform, grid.index_to_world(points)))
    size = np.array(geometry.size)
    return float(np.all((index >= -0.5) & (index <= size - 0.5), axis=1).mean())


def map_points(transform: sitk.Transform, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map points ``(N, 3)`` by a rigid transform."""
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    axes = np.stack([np.array(transform.TransformPoint(tuple(e))) - origin for e in np.eye(3)])
    mapped: NDArray[np.float64] = points @ axes + origin
    return mapped


def _keep_volume(values: NDArray[np.float32], wanted: int) -> NDArray[np.uint8]:
    """Keep the `wanted` voxels of highest value, as far as the threshold's range allows.

    Of equal values (where the two grids lie alike) those nearest the centre come first.
    """
    low, high = THRESHOLD_RANGE
    flat = values.ravel()
    candidates = np.flatnonzero(flat > low)
    mask = np.zeros(flat.size, dtype=np.uint8)
    if candidates.size:
        index = np.stack(np.unravel_index(candidates, values.shape), axis=-1)
        centre = np.average(index, axis=0, weights=flat[candidates])
        away = np.round(np.linalg.norm(index - centre, axis=1), 3)
        scattered = candidates * 2_654_435_761 % 2**32  # so that no side is favoured among equals
        order = np.lexsort((scattered, away, -np.round(flat[candidates], 4)))
        count = max(wanted, int((flat >= high).sum()))
        mask[candidates[order[:count]]] = 1
    return mask.reshape(values.shape)


def _near(volume: Volume, grid: Geometry, transform: sitk.Transform) -> Volume:
    """Crop a volume to where the ROI can lie in it, so that little is copied."""
    centre = grid.index_to_world((np.array(grid.size, dtype=np.float64) - 1) / 2)
    half_diagonal = grid.size[0] * grid.spacing_mm[0] * np.sqrt(3) / 2
    margin = 2 * max(volume.geometry.spacing_mm)
    there: NDArray[Any] = map_points(transform, centre[None])[0]
    return crop(volume, there, float(half_diagonal + margin))
