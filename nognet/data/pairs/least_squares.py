"""The last step of a registration: least squares of HU, by Gauss and Newton, rigid or affine.

Two CTs of one patient show the same HU, up to a gain and an offset (breath, dose), so that near the
solution the squared difference has a sharp minimum and a handful of Gauss-Newton steps reach it.
Mutual information by gradient descent, which starts this off, stops further away and
stretches by one or two percent where nothing is stretched (docs/decisions/0006).

    minimise over T, a, b  sum_p (m(T p) - a f(p) - b)^2,   p where both are seen, without nodules
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nognet.data.pairs.roi import map_points
from nognet.data.pairs.surroundings import Surroundings
from nognet.data.sitk_bridge import geometry_of
from nognet.types import Geometry

Array = NDArray[np.float32]
Matrix = NDArray[np.float64]

STAGES = ((2, 30), (1, 8))
"""Every how many-th voxel an axis is looked at, and the most steps: a few voxels, then all."""
STILL_MM = 0.02
"""A step that moves the region's edge by less ends the search."""
MIN_SAMPLES = 500


@dataclass(frozen=True)
class LinearMap:
    """A map about a centre: ``T(p) = matrix @ (p - centre) + centre + shift``.

    Attributes:
        matrix: ``(3, 3)``.
        shift_mm: ``(3,)``.
        centre_mm: ``(3,)``.
    """

    matrix: Matrix
    shift_mm: Matrix
    centre_mm: Matrix

    @classmethod
    def of(cls, transform: sitk.Transform, centre_mm: Matrix) -> LinearMap:
        """Read a linear transform."""
        ends = map_points(transform, np.concatenate([np.zeros((1, 3)), np.eye(3)]))
        shift = map_points(transform, centre_mm[None])[0] - centre_mm
        return cls((ends[1:] - ends[0]).T, shift, centre_mm)

    def transform(self) -> sitk.AffineTransform:
        """Give it as SimpleITK's."""
        offset = self.centre_mm + self.shift_mm - self.matrix @ self.centre_mm
        return sitk.AffineTransform(self.matrix.ravel().tolist(), offset.tolist())

    def moved_rigidly(self, step: Matrix) -> LinearMap:
        """Turn by the vector ``step[:3]`` (radians) and shift by ``step[3:]``."""
        matrix = _rotation(step[:3]) @ self.matrix
        return LinearMap(matrix, self.shift_mm + step[3:], self.centre_mm)

    def moved_linearly(self, step: Matrix) -> LinearMap:
        """Add ``step`` ``(12,)``: the rows of a ``(3, 4)`` change of matrix and shift."""
        change = step.reshape(3, 4)
        return LinearMap(self.matrix + change[:, :3], self.shift_mm + change[:, 3], self.centre_mm)


def fit_rigid(
    fixed: Surroundings, moving: Surroundings, start: LinearMap, *, fine: bool = True
) -> LinearMap:
    """Fit rotation and shift; gives the start back where there is too little to hold on to.

    Args:
        fixed: The baseline's surroundings.
        moving: The follow-up's.
        start: Not more than some millimetres off.
        fine: To the last, on all voxels; else an eighth of them has to do.
    """

    def slopes(gradient: Array, arm: Array, at: LinearMap) -> Array:
        turned = arm @ at.matrix.T.astype(np.float32)
        return np.concatenate([np.cross(turned, gradient), gradient], axis=1)

    stages = STAGES if fine else STAGES[:1]
    return _fit(fixed, moving, start, _Model(slopes, LinearMap.moved_rigidly), stages)


def fit_affine(fixed: Surroundings, moving: Surroundings, start: LinearMap) -> LinearMap:
    """Fit all twelve parameters; gives the start back where there is too little to hold on to."""

    def slopes(gradient: Array, arm: Array, at: LinearMap) -> Array:
        del at
        ones = np.ones((len(arm), 1), dtype=np.float32)
        levers = np.concatenate([arm, ones], axis=1)
        result: Array = (gradient[:, :, None] * levers[:, None, :]).reshape(len(arm), 12)
        return result

    return _fit(fixed, moving, start, _Model(slopes, LinearMap.moved_linearly), STAGES)


@dataclass(frozen=True)
class _Model:
    """What may change: ``(N, K)`` derivatives of the values, and the map after a step ``(K,)``."""

    slopes: Callable[[Array, Array, LinearMap], Array]
    moved: Callable[[LinearMap, Matrix], LinearMap]


def _fit(
    fixed: Surroundings,
    moving: Surroundings,
    start: LinearMap,
    model: _Model,
    stages: Sequence[tuple[int, int]],
) -> LinearMap:
    """Step until still, stage by stage."""
    searched = _with_gradient(moving)
    best = start
    for stride, steps in stages:
        samples = _Samples.of(fixed, start.centre_mm, stride)
        for _ in range(steps):
            system = _normal_equations(samples, searched, best, model.slopes)
            if system is None:
                return start
            step: Matrix = np.linalg.solve(*system).astype(np.float64)
            new = model.moved(best, step)
            travel = _travel_mm(best, new, samples.radius_mm)
            best = new
            if travel < STILL_MM:
                break
            if travel > samples.radius_mm:
                return start
    return best


@dataclass(frozen=True)
class _Samples:
    """Where the baseline is looked at.

    Attributes:
        grid: The fixed image's grid, or every n-th voxel of it.
        values: ``(N,)`` of the visible voxels.
        visible: ``(D * H * W,)`` marks them.
        arm_mm: ``(D * H * W, 3)`` from the centre, x, y, z.
        radius_mm: Half of the region's edge.
    """

    grid: Geometry
    values: Array
    visible: NDArray[np.bool_]
    arm_mm: Array
    radius_mm: float

    @classmethod
    def of(cls, fixed: Surroundings, centre_mm: Matrix, stride: int) -> _Samples:
        full = geometry_of(fixed.image)
        part = (slice(None, None, stride),) * 3
        values = sitk.GetArrayViewFromImage(fixed.image)[part]
        visible = sitk.GetArrayViewFromImage(fixed.visible)[part].ravel() > 0
        spacing = full.spacing_mm[0] * stride
        depth, height, width = values.shape
        grid = Geometry((width, height, depth), (spacing,) * 3, full.origin_mm)
        z, y, x = np.indices(values.shape).reshape(3, -1)
        arm = grid.index_to_world(np.stack([x, y, z], axis=1)) - centre_mm
        return cls(
            grid,
            values.ravel().astype(np.float32),
            visible,
            arm.astype(np.float32),
            depth * spacing / 2,
        )


def _with_gradient(moving: Surroundings) -> sitk.Image:
    """Stack value, gradient by x, y, z in 1 / mm, and visibility as one vector image."""
    values = sitk.GetArrayViewFromImage(moving.image)
    by_z, by_y, by_x = np.gradient(values, geometry_of(moving.image).spacing_mm[0])
    seen = sitk.GetArrayViewFromImage(moving.visible)
    stacked = np.stack([values, by_x, by_y, by_z, seen], axis=-1).astype(np.float32)
    image = sitk.GetImageFromArray(stacked, isVector=True)
    image.CopyInformation(moving.image)
    return image


def _normal_equations(
    samples: _Samples,
    searched: sitk.Image,
    at: LinearMap,
    slopes: Callable[[Array, Array, LinearMap], Array],
) -> tuple[Matrix, Matrix] | None:
    """Set up ``(K, K)`` and ``(K,)`` of a step; None where too little is seen by both."""
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize(samples.grid.size)
    resampler.SetOutputSpacing(samples.grid.spacing_mm)
    resampler.SetOutputOrigin(samples.grid.origin_mm)
    resampler.SetTransform(at.transform())
    resampler.SetInterpolator(sitk.sitkLinear)
    found = sitk.GetArrayFromImage(resampler.Execute(searched)).reshape(-1, 5)
    both = samples.visible & (found[:, 4] > 0.99)
    if both.sum() < MIN_SAMPLES:
        return None
    a, b = samples.values[both], found[both, 0]
    a, b = a - a.mean(), b - b.mean()
    if a.std() == 0 or b.std() == 0:
        return None
    gain = float(a @ b) / float(a @ a)
    rows = slopes(found[both, 1:4], samples.arm_mm[both], at)
    rows -= rows.mean(axis=0)  # the offset b is solved for along with the rest
    matrix = (rows.T @ rows).astype(np.float64)
    matrix += np.diag(1e-6 * np.diag(matrix) + 1e-12)
    return matrix, (rows.T @ (gain * a - b)).astype(np.float64)


def _travel_mm(before: LinearMap, after: LinearMap, radius_mm: float) -> float:
    turn = np.linalg.norm(after.matrix - before.matrix) * radius_mm
    return float(turn + np.linalg.norm(after.shift_mm - before.shift_mm))


def _rotation(vector: Matrix) -> Matrix:
    """Rotate about a vector by its length in radians (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    result: Matrix = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return result
