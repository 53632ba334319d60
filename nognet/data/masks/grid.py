"""Bring a mask onto the grid of its image, by where its voxels lie in the patient."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nognet.data.findings import Finding
from nognet.data.pairs.roi import crop_mask
from nognet.data.sitk_bridge import resample, to_sitk
from nognet.errors import GeometryError, SiteDataError
from nognet.types import Geometry, Volume

LATTICE_TOLERANCE_VOX = 0.05
"""Voxel centres of a mask this close to those of the image are taken for the same points."""
ORTHOGONAL_TOLERANCE = 1e-3
THRESHOLD_RANGE = (0.2, 0.8)
"""How full a voxel has to be at least and at most to be kept when a mask is resampled."""
MAX_VOLUME_CHANGE = 0.25
"""A mask that loses or gains a larger part of its volume on the image's grid is refused."""
_POINTS_ALONG_VOXEL = 8
_POINTS_AT_MOST = 100_000_000


@dataclass(frozen=True)
class Block:
    """A mask on the grid of an image, kept only where it is not empty.

    Attributes:
        array: ``(d, h, w)`` uint8 in {0, 1}, not empty.
        start: Index x, y, z on the grid of its first voxel.
    """

    array: NDArray[np.uint8]
    start: tuple[int, int, int]

    def full(self, grid: Geometry) -> NDArray[np.uint8]:
        """Lay the block on the whole grid: ``(D, H, W)`` uint8."""
        whole = np.zeros(grid.size[::-1], dtype=np.uint8)
        (x, y, z), (d, h, w) = self.start, self.array.shape
        whole[z : z + d, y : y + h, x : x + w] = self.array
        return whole

    def volume(self, grid: Geometry) -> Volume:
        """Give the block its own place in the patient."""
        x, y, z = grid.index_to_world(np.array(self.start, dtype=np.float64)).tolist()
        depth, height, width = self.array.shape
        here = Geometry((width, height, depth), grid.spacing_mm, (x, y, z), grid.direction)
        return Volume(self.array, here)


def block_of(index_xyz: NDArray[np.int64]) -> Block:
    """Make the block that holds the voxels of whole indices ``(N, 3)``; at least one is needed."""
    low = index_xyz.min(axis=0)
    x, y, z = (index_xyz - low).T
    array = np.zeros((z.max() + 1, y.max() + 1, x.max() + 1), dtype=np.uint8)
    array[z, y, x] = 1
    return Block(array, (int(low[0]), int(low[1]), int(low[2])))


def place_on(
    mask: NDArray[np.uint8], geometry: Geometry, reference: Geometry
) -> tuple[Block, tuple[Finding, ...]]:
    """Put a mask onto the reference grid, in world space.

    Voxel by voxel where the two grids share their points (the mask may be flipped, cropped or in
    another axis order), else by resampling that keeps the volume.

    Args:
        mask: ``(D, H, W)`` in {0, 1}, not empty.
        geometry: Where the mask lies.
        reference: Grid of the image.

    Raises:
        GeometryError: part of the mask lies outside the image, or its axes are not at right angles.
        SiteDataError: nothing of the mask is left on the image's grid.
    """
    check_orthogonal(geometry)
    filled = np.argwhere(mask)[:, ::-1].astype(np.float64)
    index = reference.world_to_index(geometry.index_to_world(filled))
    outside = _outside(index, reference)
    if outside.any():
        raise _not_on_image(int(outside.sum()), len(outside), geometry, reference)
    if _same_lattice(geometry, reference) and _near_integers(index):
        return block_of(np.round(index).astype(np.int64)), ()
    return _resample(mask, geometry, reference)


def check_orthogonal(geometry: Geometry) -> None:
    """Refuse a grid whose volume can't be told from its spacing.

    Raises:
        GeometryError: its axes are not at right angles, or a spacing is none.
    """
    axes = np.asarray(geometry.direction)
    values = np.concatenate([axes.ravel(), geometry.spacing_mm, geometry.origin_mm])
    skewed = not np.allclose(axes.T @ axes, np.eye(3), atol=ORTHOGONAL_TOLERANCE)
    if not np.isfinite(values).all() or min(geometry.spacing_mm) <= 0 or skewed:
        raise GeometryError(
            "the axes of the mask's grid are not at right angles, or its spacing is not a "
            "positive number; export the mask again",
            code="mask-geometry",
        )


def _outside(index: NDArray[np.float64], reference: Geometry) -> NDArray[np.bool_]:
    low, high = -0.5 - LATTICE_TOLERANCE_VOX, np.array(reference.size) - 0.5 + LATTICE_TOLERANCE_VOX
    return np.asarray(np.any((index < low) | (index > high), axis=1))


def _near_integers(index: NDArray[np.float64]) -> bool:
    return bool(np.abs(index - np.round(index)).max() <= LATTICE_TOLERANCE_VOX)


def _same_lattice(geometry: Geometry, reference: Geometry) -> bool:
    """Tell whether a step along each of the mask's axes is a step along one of the image's."""
    axes = np.asarray(geometry.direction) * np.asarray(geometry.spacing_mm)
    steps = np.linalg.inv(np.asarray(reference.direction)) @ axes
    steps /= np.asarray(reference.spacing_mm)[:, None]
    steps = np.abs(steps[:, np.asarray(geometry.size) > 1])  # one layer has no step of its own
    extent = np.asarray([n for n in geometry.size if n > 1])
    # along the whole extent of the mask the error may not grow to a noticeable part of a voxel
    off = np.abs(steps - np.round(steps)) * extent
    return bool((off < 0.1).all() and (np.round(steps).sum(axis=0) == 1).all())


def _resample(
    mask: NDArray[np.uint8], geometry: Geometry, reference: Geometry
) -> tuple[Block, tuple[Finding, ...]]:
    """Resample so that the volume stays: a plain threshold of one half shrinks small shapes."""
    tight = crop_mask(mask, geometry)
    part, start = _near(tight.geometry, reference)
    occupied = _occupancy(tight, part)
    before = float(np.count_nonzero(tight.array)) * geometry.voxel_volume_mm3
    kept = _keep_volume(occupied, before / reference.voxel_volume_mm3)
    index = np.argwhere(kept)[:, ::-1]
    after = float(len(index)) * reference.voxel_volume_mm3
    if not len(index):
        raise SiteDataError(
            f"the mask of {before:.1f} mm3 vanishes on the grid of the image; "
            "give it on the image's own grid",
            code="mask-empty",
        )
    message = (
        f"the mask lay on another grid (spacing {_rounded(geometry.spacing_mm)} mm) and was "
        f"resampled: {before:.1f} mm3 there, {after:.1f} mm3 on the image's grid"
    )
    if abs(after - before) > MAX_VOLUME_CHANGE * before:
        raise GeometryError(f"{message}; give it on the image's own grid", code="mask-geometry")
    return block_of(index + np.array(start)), (Finding("mask-resampled", "warning", message),)


def _near(mask: Geometry, reference: Geometry) -> tuple[Geometry, tuple[int, int, int]]:
    """Crop the reference grid to where a mask can lie on it; the crop and its first voxel."""
    corners = np.array(list(product(*((0.0, n - 1.0) for n in mask.size))))
    index = reference.world_to_index(mask.index_to_world(corners))
    size = np.array(reference.size)
    low = np.clip(np.floor(index.min(axis=0)).astype(int), 0, size - 1)
    high = np.clip(np.ceil(index.max(axis=0)).astype(int), low, size - 1)
    nx, ny, nz = (high - low + 1).tolist()
    x, y, z = reference.index_to_world(low.astype(np.float64)).tolist()
    part = Geometry((nx, ny, nz), reference.spacing_mm, (x, y, z), reference.direction)
    return part, (int(low[0]), int(low[1]), int(low[2]))


def _occupancy(mask: Volume, grid: Geometry) -> NDArray[np.float64]:
    """Measure which part of each voxel of a grid a mask takes: the mean over points inside it."""
    finest = min(mask.geometry.spacing_mm)
    fx, fy, fz = (min(int(np.ceil(s / finest)), _POINTS_ALONG_VOXEL) for s in grid.spacing_mm)
    while grid.size[0] * fx * grid.size[1] * fy * grid.size[2] * fz > _POINTS_AT_MOST and (
        max(fx, fy, fz) > 1
    ):
        fx, fy, fz = (max(f - 1, 1) for f in (fx, fy, fz))
    factors = np.array([fx, fy, fz])
    nx, ny, nz = (int(n) for n in np.array(grid.size) * factors)
    sx, sy, sz = (np.array(grid.spacing_mm) / factors).tolist()
    ox, oy, oz = grid.index_to_world((1 / factors - 1) / 2).tolist()
    fine = Geometry((nx, ny, nz), (sx, sy, sz), (ox, oy, oz), grid.direction)
    image = to_sitk(mask.array.astype(np.float32), mask.geometry)
    values = resample(image, fine, sitk.Transform(3, sitk.sitkIdentity), fill=0.0)
    depth, height, width = grid.size[::-1]
    blocks = values.reshape(depth, fz, height, fy, width, fx)
    return np.asarray(blocks.mean(axis=(1, 3, 5), dtype=np.float64))


def _keep_volume(occupied: NDArray[np.float64], wanted: float) -> NDArray[np.bool_]:
    """Keep about as many voxels as wanted, the fullest ones; equal ones all or none."""
    low, high = THRESHOLD_RANGE
    levels, counts = np.unique(np.round(occupied[occupied > low], 5), return_counts=True)
    if not levels.size:
        return np.zeros(occupied.shape, dtype=bool)
    above = np.cumsum(counts[::-1])[::-1]  # voxels at each level or above
    best = float(levels[int(np.abs(above - wanted).argmin())])
    return np.asarray(np.round(occupied, 5) >= min(best, high))


def _not_on_image(
    n_outside: int, n_all: int, geometry: Geometry, reference: Geometry
) -> GeometryError:
    centre = geometry.index_to_world((np.array(geometry.size) - 1) / 2)
    other = reference.index_to_world((np.array(reference.size) - 1) / 2)
    apart = float(np.linalg.norm(centre - other))
    flipped = not np.allclose(geometry.direction, reference.direction, atol=1e-3)
    hint = "; their directions differ, the mask was probably saved without its header" * flipped
    return GeometryError(
        f"{n_outside} of {n_all} voxels of the mask lie outside the image (centres of the two "
        f"grids are {apart:.1f} mm apart{hint}); export the mask again with the image's geometry",
        code="mask-geometry",
    )


def _rounded(values: tuple[float, float, float]) -> str:
    return " x ".join(f"{value:.3g}" for value in values)
