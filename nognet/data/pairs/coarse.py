"""The coarse search: where in the whole follow-up are the baseline's surroundings of a nodule?

By masked normalised cross-correlation over FFT, at every shift at once, so that a patient who lay
some centimetres elsewhere is found.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nognet.data.pairs.surroundings import AIR_HU, DENSE_HU, cube, padding_of, scaled, shrunk
from nognet.data.sitk_bridge import resample
from nognet.types import Geometry, Volume

COARSE_MM = 6.0
TEMPLATE_RADIUS_MM = 60.0
APART_VOX = 3
"""Maxima closer than this many voxels are one."""
MIN_OVERLAP = 0.5
"""A position counts when so much of the template lies in the field of view."""


def coarse_offsets_mm(
    fixed: Volume, moving: Volume, centre_mm: NDArray[np.float64], count: int
) -> Iterator[NDArray[np.float64]]:
    """Find shifts ``(3,)`` that bring the fixed surroundings of a point onto the moving CT.

    The best one comes first. A patient who is turned may have the true one further behind: ribs
    and the chest wall look alike at many places.
    """
    half = min(TEMPLATE_RADIUS_MM, _extent_mm(fixed) / 2)
    n = int(2 * half / COARSE_MM) + 1
    grid = cube(centre_mm, n, COARSE_MM)
    template = _sampled(fixed, grid)
    whole = _cover(moving.geometry, COARSE_MM)
    searched = _sampled(moving, whole)
    score = _template_ncc(searched, template)
    left = score.copy()
    for _ in range(count):
        peak = np.array(np.unravel_index(int(left.argmax()), left.shape))
        # score[k] belongs to the template's first voxel at searched voxel k - (n - 1)
        found = whole.index_to_world(_between_voxels_xyz(score, peak) - (n - 1))
        yield found - np.asarray(grid.origin_mm)
        around = tuple(slice(max(0, int(p) - APART_VOX), int(p) + APART_VOX + 1) for p in peak)
        left[around] = -1.0


def _between_voxels_xyz(score: NDArray[np.float64], peak: NDArray[np.intp]) -> NDArray[np.float64]:
    """Place a maximum between voxels by a parabola along each axis."""
    between = peak.astype(np.float64)
    for axis in range(3):
        step = np.eye(3, dtype=int)[axis]
        if not 0 < peak[axis] < score.shape[axis] - 1:
            continue
        before, at, after = (score[tuple(peak + i * step)] for i in (-1, 0, 1))
        curvature = before - 2 * at + after
        if curvature < 0:
            between[axis] += 0.5 * (before - after) / curvature
    return between[::-1]


def _sampled(volume: Volume, grid: Geometry) -> NDArray[np.float32]:
    """Sample a blurred volume on a coarse grid, scaled to [0, 1]; NaN where it is not known."""
    image: sitk.Image = sitk.Cast(shrunk(volume, COARSE_MM), sitk.sitkFloat32)
    padding = padding_of(image)
    image = _blurred(sitk.Clamp(image, lowerBound=AIR_HU, upperBound=DENSE_HU) - AIR_HU)
    identity = sitk.Transform(3, sitk.sitkIdentity)
    values = resample(image, grid, identity, fill=np.nan)
    if padding is not None:  # what was blurred over the edge counts only by the known part
        share = sitk.Cast(padding == 0, sitk.sitkFloat32)
        known = resample(_blurred(share), grid, identity, fill=np.nan)
        inside = resample(share, grid, identity, fill=np.nan)
        values = np.where(inside > 0.5, values / np.maximum(known, np.float32(0.1)), np.nan)
    return scaled(np.asarray(values + AIR_HU, dtype=np.float32))


def _blurred(image: sitk.Image) -> sitk.Image:
    """Blur for the coarse search, so that it hardly depends on where voxels lie."""
    if min(image.GetSize()) < 4:  # the recursive filter needs four voxels an axis
        return image
    blurred: sitk.Image = sitk.SmoothingRecursiveGaussian(image, COARSE_MM)
    return blurred


def _template_ncc(image: NDArray[np.float32], template: NDArray[np.float32]) -> NDArray[np.float64]:
    """Correlate a template with an image at every position, only where both are known.

    Masked normalised cross-correlation (Padfield 2012, eq. 37), so that neither the end of a field
    of view nor padding is taken for anatomy.

    Args:
        image: ``(D, H, W)``, NaN where not known.
        template: ``(d, h, w)``, NaN where not known.

    Returns:
        ``(D + d - 1, H + h - 1, W + w - 1)``; -1 where less than half of the template is known.
    """
    sizes = [a + b - 1 for a, b in zip(image.shape, template.shape, strict=True)]
    shape = [_fast(n) for n in sizes]
    full = tuple(slice(0, n) for n in sizes)

    def spectra(values: NDArray[np.float32]) -> list[NDArray[np.complex128]]:
        known = np.isfinite(values).astype(np.float64)
        filled = np.nan_to_num(values).astype(np.float64)
        return [np.fft.rfftn(v, shape, axes=(0, 1, 2)) for v in (known, filled, filled**2)]

    def back(product: NDArray[np.complex128]) -> NDArray[np.float64]:
        result: NDArray[np.float64] = np.fft.irfftn(product, shape, axes=(0, 1, 2))[full]
        return result

    known_i, first_i, second_i = spectra(image)
    known_t, first_t, second_t = spectra(template[::-1, ::-1, ::-1])
    overlap = np.maximum(back(known_i * known_t), 1.0)
    sum_i, sum_t = back(first_i * known_t), back(known_i * first_t)
    covariance = back(first_i * first_t) - sum_i * sum_t / overlap
    spread_i = np.maximum(back(second_i * known_t) - sum_i**2 / overlap, 0.0)
    spread_t = np.maximum(back(known_i * second_t) - sum_t**2 / overlap, 0.0)
    spread = np.sqrt(spread_i * spread_t)
    usable = (overlap >= MIN_OVERLAP * overlap.max()) & (spread > 1e-3 * spread.max())
    return np.where(usable, covariance / np.where(usable, spread, 1.0), -1.0)


def _cover(geometry: Geometry, spacing_mm: float) -> Geometry:
    """Lay a world-aligned grid over all of a volume."""
    ends = np.array(np.meshgrid(*[[0.0, n - 1.0] for n in geometry.size])).reshape(3, -1).T
    world = geometry.index_to_world(ends)
    low, high = world.min(axis=0), world.max(axis=0)
    nx, ny, nz = (int(n) for n in np.ceil((high - low) / spacing_mm) + 1)
    x, y, z = low.tolist()
    return Geometry((nx, ny, nz), (spacing_mm,) * 3, (x, y, z))


def _extent_mm(volume: Volume) -> float:
    return float(max(np.multiply(volume.geometry.size, volume.geometry.spacing_mm)))


def _fast(n: int) -> int:
    """Find the next length that an FFT is quick at (factors 2, 3, 5)."""
    while True:
        rest = n
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return n
        n += 1
