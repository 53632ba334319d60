"""Bring the follow-up into the baseline's frame: rigid, then affine, local, blind to nodules.

First a coarse search finds the likeliest shifts (`coarse`). From each, until one is beyond doubt,
mutual information finds rotation and translation roughly (`refine`), and least squares on the lung
and its rim fit an affine map, or a rigid one where that does as well (`least_squares`), with the
nodules of both times masked out, or growth would be registered away. What is applied keeps volumes:
of the affine map the common scale is taken out about the nodule's centre, so that a deeper breath
is no growth. One thread and a fixed seed give the same bits each time.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nognet.config import RegistrationConfig
from nognet.data.pairs.agreement import Agreement, agreement
from nognet.data.pairs.coarse import coarse_offsets_mm
from nognet.data.pairs.least_squares import LinearMap, fit_affine, fit_rigid
from nognet.data.pairs.refine import refine_rigid
from nognet.data.pairs.roi import map_points, nodule_centre_mm
from nognet.data.pairs.surroundings import (
    FINE_MM,
    LARGEST_REACH_MM,
    CtWithNodule,
    Surroundings,
    ball_of,
    lung_of,
    smoothed,
    surroundings,
)
from nognet.data.sitk_bridge import single_thread
from nognet.errors import SiteDataError
from nognet.types import Volume

__all__ = ["CtWithNodule", "Kind", "Registration", "register"]

Kind = Literal["identity", "rigid", "affine"]
Matrix = NDArray[np.float64]

STARTS = 6
PROMISING_NCC = 0.8
"""A rigid start that agrees so well is right, and no other is tried; wrong places reach 0.7."""
SURE_NCC = 0.9
"""An affine map that agrees so well has converged. Wrong alignments reach 0.7 at most."""
MOVING_REACH = 1.2
MOVING_MARGIN_MM = 15.0
"""So much more of the follow-up is cut than of the baseline, for it may turn and stretch."""
SANE_STRETCH = (0.85, 1.18)
"""No breath stretches lung further along any axis."""
MIN_GAIN = 0.02
"""An affine map has to leave so much less unexplained (1 - ncc) than the rigid one."""
RIGID_SHARE = 0.6
"""The rigid fit looks at a ball of this part of the region: rigid holds only near the nodule."""
RIGID_NCC_LOSS = 0.05
"""A fit near the nodule may explain so much less of the whole region."""


@dataclass(frozen=True)
class Registration:
    """A linear map that keeps volumes, and how good it is.

    Attributes:
        matrix: ``(3, 3)``, row by row; its determinant is 1.
        translation_mm: ``p_follow_up = matrix @ p_baseline + translation``.
        ncc: Normalised cross-correlation of the two lungs' detail around the nodule, without any
            nodule (see `Agreement`).
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
    with single_thread():
        found = _search(baseline, follow_up, config)
    result = _measured(found, baseline, follow_up)
    _refuse_if_poor(result, config)
    return result


def _search(baseline: CtWithNodule, follow_up: CtWithNodule, config: RegistrationConfig) -> _Found:
    """Try the likeliest shifts one after the other until one is beyond doubt."""
    centre = baseline.centre_mm
    half_mm = min(baseline.reach_mm, LARGEST_REACH_MM) + config.region_margin_mm
    reach_mm = half_mm * MOVING_REACH + MOVING_MARGIN_MM
    fixed = surroundings(baseline, centre, half_mm)
    still = LinearMap(np.eye(3), np.zeros(3), centre)
    if not config.enabled:
        moving = surroundings(follow_up, centre, reach_mm)
        return _Found(still, agreement(still.transform(), fixed, moving), "identity")
    tried: list[tuple[_Found, Surroundings]] = []
    for offset in coarse_offsets_mm(baseline.ct, follow_up.ct, centre, STARTS):
        moving = surroundings(follow_up, centre + offset, reach_mm)
        with contextlib.suppress(SiteDataError):
            begin = refine_rigid(fixed, moving, replace(still, shift_mm=offset))
            ncc = agreement(begin.transform(), fixed, moving)
            tried.append((_Found(begin, ncc, "rigid"), moving))
            if ncc.ncc >= PROMISING_NCC:
                break
    if not tried:
        raise SiteDataError(
            "registration failed: the surroundings of the nodule don't overlap at the two times; "
            "check that both CTs are of one patient and show the nodule",
            code="registration",
        )
    best, moving = max(tried, key=lambda start: start[0].agreement.ncc)
    return _refined(fixed, moving, best, affine=config.transform == "affine")


@dataclass(frozen=True)
class _Found:
    """A map about the baseline's nodule, and how well the CTs agree under it."""

    map: LinearMap
    agreement: Agreement
    kind: Kind


def _refined(fixed: Surroundings, moving: Surroundings, start: _Found, *, affine: bool) -> _Found:
    """Fit an affine map, or a rigid one where the affine is no breath or explains no more."""
    lung, soft = lung_of(smoothed(fixed)), smoothed(moving)

    def found(fitted: LinearMap, kind: Kind) -> _Found:
        return _Found(fitted, agreement(fitted.transform(), fixed, moving), kind)

    def stretched_from(begin: LinearMap) -> _Found | None:
        fitted = fit_affine(lung, soft, begin)
        return found(fitted, "affine") if _is_sane(fitted) else None

    if affine:
        stretched = stretched_from(start.map)
        if stretched is None or stretched.agreement.ncc < SURE_NCC:  # not quite near enough?
            nearer = fit_rigid(lung, soft, start.map, fine=False)
            stretched = _better(stretched, stretched_from(nearer))
        unexplained = (1 - MIN_GAIN) * (1 - start.agreement.ncc)
        if stretched and 1 - stretched.agreement.ncc <= unexplained:
            return stretched
    half_mm = fixed.image.GetSize()[0] * FINE_MM / 2
    rigid = found(fit_rigid(ball_of(lung, RIGID_SHARE * half_mm), soft, start.map), "rigid")
    worse = rigid.agreement.ncc < start.agreement.ncc - RIGID_NCC_LOSS
    return start if worse else rigid


def _better(one: _Found | None, other: _Found | None) -> _Found | None:
    given = [found for found in (one, other) if found is not None]
    return max(given, key=lambda found: found.agreement.ncc, default=None)


def _is_sane(found: LinearMap) -> bool:
    stretches = np.linalg.svd(found.matrix, compute_uv=False)
    low, high = SANE_STRETCH
    upright = np.linalg.det(found.matrix) > 0
    return bool(upright and low <= stretches.min() and stretches.max() <= high)


def _measured(found: _Found, baseline: CtWithNodule, follow_up: CtWithNodule) -> Registration:
    """Take the common scale out about the nodule's centre, and tell figures."""
    centre, shift = found.map.centre_mm, found.map.shift_mm
    scale = float(np.cbrt(np.linalg.det(found.map.matrix)))
    matrix = found.map.matrix / scale
    translation = centre + shift - matrix @ centre
    result = Registration(
        matrix=tuple(float(v) for v in matrix.ravel()),
        translation_mm=tuple(float(v) for v in translation),
        ncc=found.agreement.ncc,
        nodule_displacement_mm=0.0,
        shift_mm=float(np.linalg.norm(shift)),
        rotation_degrees=_angle_degrees(matrix),
        lung_overlap=found.agreement.lung_overlap,
        scale=scale if found.kind == "affine" else 1.0,
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
    if config.max_shift_mm is not None and result.shift_mm > config.max_shift_mm:
        raise SiteDataError(
            f"registration moved the nodule's surroundings by {result.shift_mm:.0f} mm, at most "
            f"{config.max_shift_mm:.0f} are allowed; check the pair, or leave "
            "preparation.registration.max_shift_mm out",
            code="registration",
        )
