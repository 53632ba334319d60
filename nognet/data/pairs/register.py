"""Bring the follow-up into the baseline's frame: rigid, then affine, local, blind to nodules.

First a coarse search finds the shift (`coarse`). Then mutual information refines rotation and
translation, and after that scale and shear (`refine`), with the nodules of both times masked out,
or growth would be registered away. What is applied keeps volumes: of the affine map the common
scale is taken out about the nodule's centre, so that a deeper breath is no growth. One thread and a
fixed seed give the same bits each time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nognet.config import RegistrationConfig
from nognet.data.pairs.agreement import Agreement, agreement
from nognet.data.pairs.coarse import coarse_offset_mm
from nognet.data.pairs.refine import refine_affine, refine_rigid
from nognet.data.pairs.roi import map_points, nodule_centre_mm
from nognet.data.pairs.surroundings import CtWithNodule, Surroundings, surroundings
from nognet.data.sitk_bridge import single_thread
from nognet.errors import SiteDataError
from nognet.types import Volume

__all__ = ["CtWithNodule", "Kind", "Registration", "register"]

Kind = Literal["identity", "rigid", "affine"]
Matrix = NDArray[np.float64]

MOVING_REACH = 1.2
MOVING_MARGIN_MM = 15.0
"""So much more of the follow-up is cut than of the baseline, for it may turn and stretch."""
SANE_STRETCH = (0.85, 1.18)
"""No breath stretches lung further along any axis."""
MIN_NCC_GAIN = 0.002
"""An affine map that explains no more than a rigid one isn't taken."""


@dataclass(frozen=True)
class Registration:
    """A linear map that keeps volumes, and how good it is.

    Attributes:
        matrix: ``(3, 3)``, row by row; its determinant is 1.
        translation_mm: ``p_follow_up = matrix @ p_baseline + translation``.
        ncc: Normalised cross-correlation of the two CTs around the nodule, without any nodule.
        nodule_displacement_mm: Distance of the two nodules' centres in the baseline's frame.
        shift_mm: How far the nodule's neighbourhood was moved.
        rotation_degrees: Angle of the rotation (of the affine map's polar decomposition).
        lung_overlap: Dice of the two lungs around the nodule, where both are seen.
        scale: Linear scale of the follow-up's surroundings against the baseline's (above 1: a
            deeper breath); it is no part of `matrix`.
        kind: What was found best: the identity, where registration is off, rigid or affine.
    """

    matrix: tuple[float, ...]
    translation_mm: tuple[float, ...]
    ncc: float
    nodule_displacement_mm: float
    shift_mm: float
    rotation_degrees: float
    lung_overlap: float = 1.0
    scale: float = 1.0
    kind: Kind = "identity"

    @classmethod
    def identity(cls) -> Registration:
        """Give the registration of a CT with itself."""
        return cls(
            (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0), 1.0, 0.0, 0.0, 0.0
        )

    def transform(self) -> sitk.AffineTransform:
        """Give the map from the baseline's frame into the follow-up's."""
        return sitk.AffineTransform(list(self.matrix), list(self.translation_mm))

    def displacement_mm(self, baseline: Volume, follow_up: Volume) -> float:
        """Measure how far apart two nodules' centres lie in the baseline's frame."""
        back = map_points(self.transform().GetInverse(), nodule_centre_mm(follow_up)[None])[0]
        return float(np.linalg.norm(back - nodule_centre_mm(baseline)))

    def between(self, baseline: Volume, follow_up: Volume) -> Registration:
        """Give the same map with the displacement of these two nodules."""
        return replace(self, nodule_displacement_mm=self.displacement_mm(baseline, follow_up))


def register(
    baseline: CtWithNodule, follow_up: CtWithNodule, config: RegistrationConfig
) -> Registration:
    """Find where the baseline's surroundings of the nodule lie in the follow-up.

    The map depends on the baseline's nodule, whose surroundings are looked at; which of the
    follow-up's nodules is `nodule` and which are `others` only decides what displacement is told.

    Args:
        baseline: The fixed side.
        follow_up: The moving side.
        config: Region and limits; where registration is off the identity is measured.

    Raises:
        SiteDataError: the result is not to be trusted (code ``registration``).
    """
    centre = baseline.centre_mm
    half_mm = baseline.reach_mm + config.region_margin_mm
    with single_thread():
        fixed = surroundings(baseline, centre, half_mm)
        offset = (
            coarse_offset_mm(baseline.ct, follow_up.ct, centre) if config.enabled else 0 * centre
        )
        reach_mm = half_mm * MOVING_REACH + MOVING_MARGIN_MM
        moving = surroundings(follow_up, centre + offset, reach_mm)
        start = sitk.Euler3DTransform()
        start.SetCenter(centre.tolist())
        start.SetTranslation(offset.tolist())
        if config.enabled:
            found = _refined(fixed, moving, start, affine=config.transform == "affine")
        else:
            found = _Found(start, agreement(start, fixed, moving), "identity")
    result = _measured(found, baseline, follow_up)
    _refuse_if_poor(result, config)
    return result


@dataclass(frozen=True)
class _Found:
    """A transform, centred on the baseline's nodule, and how well the CTs agree under it."""

    transform: sitk.Transform
    agreement: Agreement
    kind: Kind

    @property
    def matrix(self) -> Matrix:
        """The linear part ``(3, 3)``."""
        ends = map_points(self.transform, np.concatenate([np.zeros((1, 3)), np.eye(3)]))
        matrix: Matrix = (ends[1:] - ends[0]).T
        return matrix


def _refined(
    fixed: Surroundings, moving: Surroundings, start: sitk.Euler3DTransform, *, affine: bool
) -> _Found:
    """Refine rigidly, then by an affine map where that is sane and explains more."""
    rigid = refine_rigid(fixed, moving, start)
    best = _Found(rigid, agreement(rigid, fixed, moving), "rigid")
    if not affine:
        return best
    begin = sitk.AffineTransform(3)
    begin.SetCenter(rigid.GetCenter())
    begin.SetMatrix(rigid.GetMatrix())
    begin.SetTranslation(rigid.GetTranslation())
    stretched = refine_affine(fixed, moving, begin)
    tried = _Found(stretched, agreement(stretched, fixed, moving), "affine")
    stretches = np.linalg.svd(tried.matrix, compute_uv=False)
    sane = SANE_STRETCH[0] <= stretches.min() and stretches.max() <= SANE_STRETCH[1]
    gains = tried.agreement.ncc - best.agreement.ncc >= MIN_NCC_GAIN
    return tried if sane and gains and np.linalg.det(tried.matrix) > 0 else best


def _measured(found: _Found, baseline: CtWithNodule, follow_up: CtWithNodule) -> Registration:
    """Take the common scale out about the nodule's centre, and tell figures."""
    centre = baseline.centre_mm
    at_centre = map_points(found.transform, centre[None])[0]
    scale = float(np.cbrt(np.linalg.det(found.matrix))) if found.kind == "affine" else 1.0
    matrix = found.matrix / scale
    translation = at_centre - matrix @ centre
    result = Registration(
        matrix=tuple(float(v) for v in matrix.ravel()),
        translation_mm=tuple(float(v) for v in translation),
        ncc=found.agreement.ncc,
        nodule_displacement_mm=0.0,
        shift_mm=float(np.linalg.norm(at_centre - centre)),
        rotation_degrees=_angle_degrees(matrix),
        lung_overlap=found.agreement.lung_overlap,
        scale=scale,
        kind=found.kind,
    )
    return result.between(baseline.nodule, follow_up.nodule)


def _angle_degrees(matrix: Matrix) -> float:
    """Angle of the rotation that is nearest to a matrix."""
    left, _, right = np.linalg.svd(matrix)
    cosine = (np.trace(left @ right) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


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
