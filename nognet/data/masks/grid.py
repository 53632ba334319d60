"""Bring a mask onto the grid of its image, by where its voxels lie in the patient."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nognet.data.findings import Finding
from nognet.data.sitk_bridge import resample, to_sitk
from nognet.errors import GeometryError, SiteDataError
from nognet.types import Geometry

LATTICE_TOLERANCE_VOX = 0.05
"""Voxel centres of a mask this close to those of the image are taken for the same points."""


def place_on(
    mask: NDArray[np.uint8], geometry: Geometry, reference: Geometry
) -> tuple[NDArray[np.uint8], tuple[Finding, ...]]:
    """Put a mask onto the reference grid, in world space.

    Voxel by voxel where the two grids share their points (the mask may be flipped, cropped or in
    another axis order), else by linear resampling at one half.

    Args:
        mask: ``(D, H, W)`` in {0, 1}, not empty.
        geometry: Where the mask lies.
        reference: Grid of the image.

    Raises:
        GeometryError: part of the mask lies outside the image, or grids of one shape lie apart.
    """
    filled = np.argwhere(mask)[:, ::-1].astype(np.float64)
    index = reference.world_to_index(geometry.index_to_world(filled))
    outside = _outside(index, reference)
    if outside.any():
        raise _not_on_image(int(outside.sum()), len(outside), geometry, reference)
    if _same_lattice(geometry, reference) and _near_integers(index):
        return scatter(index, reference), ()
    return _resample(mask, geometry, reference)


def scatter(index_xyz: NDArray[np.float64], reference: Geometry) -> NDArray[np.uint8]:
    """Set the voxels nearest to continuous indices ``(N, 3)`` on an empty reference grid."""
    placed = np.zeros(reference.size[::-1], dtype=np.uint8)
    x, y, z = np.round(index_xyz).astype(np.int64).T
    placed[z, y, x] = 1
    return placed


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
) -> tuple[NDArray[np.uint8], tuple[Finding, ...]]:
    image = to_sitk(mask.astype(np.float32), geometry)
    values = resample(image, reference, sitk.Transform(3, sitk.sitkIdentity), fill=0.0)
    placed = (values >= 0.5).astype(np.uint8)
    before = float(mask.sum()) * geometry.voxel_volume_mm3
    after = float(placed.sum()) * reference.voxel_volume_mm3
    if not placed.any():
        raise SiteDataError(
            f"the mask of {before:.1f} mm3 vanishes on the grid of the image; "
            "give it on the image's own grid",
            code="mask-empty",
        )
    message = (
        f"the mask lay on another grid (spacing {_rounded(geometry.spacing_mm)} mm) and was "
        f"resampled: {before:.1f} mm3 there, {after:.1f} mm3 on the image's grid"
    )
    return placed, (Finding("mask-resampled", "warning", message),)


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
