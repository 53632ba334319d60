"""Bring the follow-up into the baseline's frame: rigid, local, blind to the nodule itself.

First a coarse search: the baseline's surroundings of the nodule are looked for in the whole
follow-up by masked normalised cross-correlation over FFT, so that a patient who lay some
centimetres elsewhere is found. Then Mattes mutual information refines rotation and translation,
with the nodules of both times masked out, or growth would be registered away. One thread and a
fixed seed give the same bits each time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nognet.config import RegistrationConfig
from nognet.data.pairs.roi import crop, map_points, nodule_centre_mm, nodule_points_mm
from nognet.data.sitk_bridge import geometry_of, resample, single_thread, to_sitk
from nognet.errors import SiteDataError
from nognet.types import Geometry, Volume

MaskedImage = tuple[sitk.Image, sitk.Image]
"""A CT scaled to [0, 1], and a mask of what of it the metric may look at."""
COARSE_MM = 6.0
FINE_MM = 2.0
TEMPLATE_RADIUS_MM = 60.0
NODULE_GROWTH_MARGIN_MM = 4.0
"""Rim around each nodule that the metric does not see either."""
AIR_HU = -1000.0
DENSE_HU = 200.0
MIN_OVERLAP = 0.5
"""A position counts in the coarse search when so much of the template lies in the field of view."""
SAMPLES = 6_000
SAMPLING_SEED = 1729
MAX_STEPS = 60


@dataclass(frozen=True)
class CtWithNodule:
    """A CT in HU and a nodule's mask, cropped around the nodule.

    Attributes:
        ct: The whole CT.
        nodule: Mask in {0, 1} on a part of the CT's grid (see `roi.crop_mask`).
    """

    ct: Volume
    nodule: Volume

    @property
    def centre_mm(self) -> NDArray[np.float64]:
        """Centroid of the nodule."""
        return nodule_centre_mm(self.nodule)


@dataclass(frozen=True)
class Registration:
    """A rigid transform and how good it is.

    Attributes:
        matrix: Rotation ``(3, 3)``, row by row.
        translation_mm: ``p_follow_up = matrix @ p_baseline + translation``.
        ncc: Normalised cross-correlation of the two CTs around the nodule, without it.
        nodule_displacement_mm: Distance of the two nodules' centres in the baseline's frame.
        shift_mm: How far the nodule's neighbourhood was moved.
        rotation_degrees: Angle of the rotation.
    """

    matrix: tuple[float, ...]
    translation_mm: tuple[float, ...]
    ncc: float
    nodule_displacement_mm: float
    shift_mm: float
    rotation_degrees: float

    @classmethod
    def identity(cls) -> Registration:
        """Give the registration of a CT with itself."""
        return cls(
            (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0), 1.0, 0.0, 0.0, 0.0
        )

    def transform(self) -> sitk.AffineTransform:
        """Give the map from the baseline's frame into the follow-up's."""
        return sitk.AffineTransform(list(self.matrix), list(self.translation_mm))


def register(
    baseline: CtWithNodule, follow_up: CtWithNodule, config: RegistrationConfig
) -> Registration:
    """Find where the baseline's surroundings of the nodule lie in the follow-up.

    Args:
        baseline: The fixed side.
        follow_up: The moving side.
        config: Region and limits; where registration is off the identity is measured.

    Raises:
        SiteDataError: the result is not to be trusted (code ``registration``).
    """
    centre = baseline.centre_mm
    with single_thread():
        fixed = _fixed_side(baseline, config.region_margin_mm)
        transform = sitk.Euler3DTransform()
        transform.SetCenter(centre.tolist())
        offset = np.zeros(3)
        if config.enabled:
            offset = coarse_offset_mm(baseline.ct, follow_up.ct, centre)
        half_mm = _half_edge(baseline, config.region_margin_mm)
        moving = _moving_side(follow_up, centre + offset, half_mm)
        if config.enabled:
            transform.SetTranslation(offset.tolist())
            transform = _refine(fixed, moving, transform)
        result = _measured(transform, baseline, follow_up, _ncc_outside(transform, fixed, moving))
    _refuse_if_poor(result, config)
    return result


def coarse_offset_mm(
    fixed: Volume, moving: Volume, centre_mm: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Find the shift ``(3,)`` that brings the fixed surroundings of a point onto the moving CT."""
    half = min(TEMPLATE_RADIUS_MM, _extent_mm(fixed) / 2)
    n = int(2 * half / COARSE_MM) + 1
    grid = _cube(centre_mm, n, COARSE_MM)
    identity = sitk.Transform(3, sitk.sitkIdentity)
    template = _scaled(resample(_blurred(fixed), grid, identity, fill=np.nan))
    whole = _cover(moving.geometry, COARSE_MM)
    searched = _scaled(resample(_blurred(moving), whole, identity, fill=np.nan))
    score = _template_ncc(searched, template)
    # score[k] belongs to the template's first voxel at searched voxel k - (n - 1)
    found = whole.index_to_world(_peak_xyz(score) - (n - 1))
    offset: NDArray[np.float64] = found - np.asarray(grid.origin_mm)
    return offset


def _peak_xyz(score: NDArray[np.float64]) -> NDArray[np.float64]:
    """Find the maximum, between voxels by a parabola along each axis."""
    peak = np.array(np.unravel_index(int(score.argmax()), score.shape))
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


def _blurred(volume: Volume) -> sitk.Image:
    """Average and blur for the coarse search, so that it hardly depends on where voxels lie."""
    image: sitk.Image = sitk.Cast(_shrunk(volume, COARSE_MM), sitk.sitkFloat32)
    image = sitk.Clamp(image, lowerBound=AIR_HU, upperBound=DENSE_HU)
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


def _refine(
    fixed: MaskedImage, moving: MaskedImage, start: sitk.Euler3DTransform
) -> sitk.Euler3DTransform:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=32)
    method.SetMetricFixedMask(fixed[1])
    method.SetMetricMovingMask(moving[1])
    method.SetMetricSamplingStrategy(method.REGULAR)
    share = min(1.0, SAMPLES / fixed[0].GetNumberOfPixels())
    method.SetMetricSamplingPercentagePerLevel([min(1.0, 8 * share), share], SAMPLING_SEED)
    method.SetInterpolator(sitk.sitkLinear)
    # gradients where they are needed, not filtered over the whole image: half the time, and closer
    method.MetricUseFixedImageGradientFilterOff()
    method.MetricUseMovingImageGradientFilterOff()
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0,
        minStep=0.01,
        numberOfIterations=MAX_STEPS,
        relaxationFactor=0.6,
        gradientMagnitudeTolerance=1e-6,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([1.0, 0.0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    found = sitk.Euler3DTransform(start)
    method.SetInitialTransform(found, inPlace=True)
    try:
        method.Execute(fixed[0], moving[0])
    except RuntimeError as err:
        raise SiteDataError(
            "registration failed: the surroundings of the nodule don't overlap at the two times; "
            "check that both CTs are of one patient and show the nodule",
            code="registration",
        ) from err
    return found


def _fixed_side(side: CtWithNodule, margin_mm: float) -> MaskedImage:
    """Resample the surroundings at 2 mm, with a mask of what the metric may look at."""
    half = _half_edge(side, margin_mm)
    grid = _cube(side.centre_mm, int(2 * half / FINE_MM) + 1, FINE_MM)
    return _on_grid(side, grid)


def _moving_side(side: CtWithNodule, centre_mm: NDArray[np.float64], half_mm: float) -> MaskedImage:
    reach = half_mm * 1.2 + 15.0
    return _on_grid(side, _cube(centre_mm, int(2 * reach / FINE_MM) + 1, FINE_MM))


def _on_grid(side: CtWithNodule, grid: Geometry) -> MaskedImage:
    identity = sitk.Transform(3, sitk.sitkIdentity)
    centre = grid.index_to_world((np.array(grid.size, dtype=np.float64) - 1) / 2)
    half = grid.size[0] * grid.spacing_mm[0] / 2 + 2 * FINE_MM
    near = crop(side.ct, centre, half)
    values = resample(_shrunk(near, FINE_MM), grid, identity, fill=np.nan)
    visible = np.isfinite(values) & ~_grown_nodule(side, grid)
    scaled = np.nan_to_num(_scaled(values))
    return to_sitk(scaled, grid), to_sitk(visible.astype(np.uint8), grid)


def _grown_nodule(side: CtWithNodule, grid: Geometry) -> NDArray[np.bool_]:
    """Mark the nodule and a rim of 4 mm around it on a grid."""
    index = np.round(grid.world_to_index(nodule_points_mm(side.nodule))).astype(int)
    size = np.array(grid.size)
    index = index[np.all((index >= 0) & (index < size), axis=1)]
    marked = np.zeros(grid.size[::-1], dtype=np.uint8)
    marked[index[:, 2], index[:, 1], index[:, 0]] = 1
    radius = max(1, round(NODULE_GROWTH_MARGIN_MM / grid.spacing_mm[0]))
    grown = sitk.BinaryDilate(sitk.GetImageFromArray(marked), [radius] * 3, sitk.sitkBall)
    result: NDArray[np.bool_] = sitk.GetArrayFromImage(grown).astype(bool)
    return result


def _measured(
    transform: sitk.Euler3DTransform,
    baseline: CtWithNodule,
    follow_up: CtWithNodule,
    ncc: float,
) -> Registration:
    matrix = np.array(transform.GetMatrix()).reshape(3, 3)
    centre = baseline.centre_mm
    at_centre = np.array(transform.TransformPoint(centre.tolist()))
    translation = at_centre - matrix @ centre
    back = map_points(transform.GetInverse(), follow_up.centre_mm[None])[0]
    angle = np.degrees(np.arccos(np.clip((np.trace(matrix) - 1) / 2, -1, 1)))
    return Registration(
        matrix=tuple(float(v) for v in matrix.ravel()),
        translation_mm=tuple(float(v) for v in translation),
        ncc=ncc,
        nodule_displacement_mm=float(np.linalg.norm(back - centre)),
        shift_mm=float(np.linalg.norm(at_centre - centre)),
        rotation_degrees=float(angle),
    )


def _ncc_outside(transform: sitk.Transform, fixed: MaskedImage, moving: MaskedImage) -> float:
    """Correlate the CTs where both are known and neither has its nodule; -1 where nothing is."""
    grid = geometry_of(fixed[0])
    values = resample(moving[0], grid, transform, fill=0.0)
    visible = resample(moving[1], grid, transform, fill=0.0) > 0.99
    both = visible & (sitk.GetArrayViewFromImage(fixed[1]) > 0)
    a, b = sitk.GetArrayViewFromImage(fixed[0])[both], values[both]
    if both.sum() < 100 or a.std() == 0 or b.std() == 0:
        return -1.0
    return float(np.corrcoef(a, b)[0, 1])


def _refuse_if_poor(result: Registration, config: RegistrationConfig) -> None:
    if result.ncc < config.min_ncc:
        raise SiteDataError(
            f"registration failed: correlation around the nodule is {result.ncc:.2f}, at least "
            f"{config.min_ncc} is needed; check that both CTs are of one patient and region",
            code="registration",
        )
    if result.shift_mm > config.max_shift_mm:
        raise SiteDataError(
            f"registration moved the nodule's surroundings by {result.shift_mm:.0f} mm, at most "
            f"{config.max_shift_mm:.0f} are allowed; check the pair, or raise "
            "preparation.registration.max_shift_mm",
            code="registration",
        )


def _half_edge(side: CtWithNodule, margin_mm: float) -> float:
    points = nodule_points_mm(side.nodule)
    return float(np.abs(points - points.mean(axis=0)).max()) + margin_mm


def _cube(centre_mm: NDArray[np.float64], n: int, spacing_mm: float) -> Geometry:
    x, y, z = (float(c) - (n - 1) / 2 * spacing_mm for c in centre_mm)
    return Geometry((n, n, n), (spacing_mm,) * 3, (x, y, z))


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


def _shrunk(volume: Volume, spacing_mm: float) -> sitk.Image:
    """Average blocks of voxels so that resampling at `spacing_mm` does not alias."""
    size, spacing = volume.geometry.size, volume.geometry.spacing_mm
    factors = [
        max(1, min(n, int(spacing_mm / s + 0.25))) for n, s in zip(size, spacing, strict=True)
    ]
    image = to_sitk(volume.array, volume.geometry)
    return sitk.BinShrink(image, factors) if max(factors) > 1 else image


def _scaled(hu: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale air to dense tissue to [0, 1]; NaN stays NaN."""
    scaled: NDArray[np.float32] = np.clip((hu - AIR_HU) / (DENSE_HU - AIR_HU), 0, 1)
    return scaled.astype(np.float32, copy=False)


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
