"""The fast path: phantom patients straight to `RoiPair`, without DICOM, registration or disk.

Growth law, renderer and scanners are those of whole studies. A date is rendered around the nodule
on its scanner's own grid, noise is added there, and both are resampled to the 1 mm ROI grid, so
that noise and partial volume are what preparation would leave; motion is what registration would.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nognet.config import RoiConfig
from nognet.phantom.background import draw_patient_in
from nognet.phantom.motion import Motion, draw_motion
from nognet.phantom.patient import (
    PatientPlan,
    PhantomNodule,
    PhantomPatient,
    draw_patient,
    plan_patients,
)
from nognet.phantom.render import draw_noise, render_hu, render_mask
from nognet.phantom.scanner import Scanner, scanner_of_site
from nognet.randomness import numpy_generator
from nognet.types import Geometry, PriorScan, RoiPair

REGISTRATION_REST = 0.06
Shown = tuple[NDArray[np.float32], NDArray[np.uint8]]


def make_roi_pairs(
    patients: int,
    *,
    seed: int,
    site: int = 0,
    roi: RoiConfig | None = None,
    first_patient: int = 0,
    background: Path | None = None,
) -> list[RoiPair]:
    """Make the pairs of a hospital's patients.

    Args:
        patients: How many patients the hospital has.
        seed: Root seed of the cohort.
        site: Number of the hospital; it decides the scanner.
        roi: Size and window of the ROI; by default 48 voxels.
        first_patient: Leave out the patients before this one (to make a part of a cohort).
        background: A real CT to grow the nodules in, instead of drawn chests.

    Returns:
        Every ordered pair of dates of every nodule, patient by patient; pairs that don't begin at
        the first date carry the date before their baseline as `prior`. Equal arguments give equal
        bits.

    Raises:
        SiteDataError: the background can't be read, shows no lung, or has no room.
    """
    roi = roi or RoiConfig()
    scanner = scanner_of_site(site, seed)
    plans = plan_patients(site, patients, seed)[first_patient:]
    return [
        pair
        for plan in plans
        for pair in pairs_of_patient(_drawn(plan, seed, background), scanner, roi=roi, seed=seed)
    ]


def _drawn(plan: PatientPlan, seed: int, background: Path | None) -> PhantomPatient:
    return (
        draw_patient(plan, seed) if background is None else draw_patient_in(plan, seed, background)
    )


def pairs_of_patient(
    patient: PhantomPatient, scanner: Scanner, *, roi: RoiConfig, seed: int
) -> Iterator[RoiPair]:
    """Yield every ordered pair of dates of each nodule of a patient, with prior scans."""
    plan = patient.plan
    for number, nodule in enumerate(patient.nodules):
        rng = numpy_generator(seed, "phantom", "roi", plan.site, plan.number, number)
        shown = [
            _roi_at(patient, number, visit, scanner, roi=roi, rng=rng)
            for visit in range(len(plan.days))
        ]
        for earlier, later in combinations(range(len(plan.days)), 2):
            yield RoiPair(
                pair_id=_pseudonym(seed, plan.site, plan.number, number, earlier, later),
                patient_id=_pseudonym(seed, plan.site, plan.number),
                baseline=shown[earlier][0],
                baseline_mask=shown[earlier][1],
                follow_up=shown[later][0],
                follow_up_mask=shown[later][1],
                interval_days=float(plan.days[later] - plan.days[earlier]),
                baseline_volume_mm3=nodule.plan.volume_mm3(plan.days[earlier]),
                follow_up_volume_mm3=nodule.plan.volume_mm3(plan.days[later]),
                prior=_prior(shown, plan.days, earlier),
            )


def _prior(shown: Sequence[Shown], days: Sequence[int], baseline: int) -> PriorScan | None:
    """Give the visit before the baseline, where there was one."""
    if baseline == 0:
        return None
    image, mask = shown[baseline - 1]
    return PriorScan(image, mask, float(days[baseline] - days[baseline - 1]))


def _roi_at(
    patient: PhantomPatient,
    number: int,
    visit: int,
    scanner: Scanner,
    *,
    roi: RoiConfig,
    rng: np.random.Generator,
) -> Shown:
    """Show a nodule's ROI at a visit: image in [0, 1] and mask, ``(S, S, S)``."""
    nodule = patient.nodules[number]
    motion = draw_motion((0.0, 0.0, 0.0), rng, scale=REGISTRATION_REST)
    motion = _after_registration(motion, nodule)
    target = roi_geometry(nodule.centre_mm, roi)
    native = _native_geometry(target, scanner, rng)
    scene = patient.scene(visit, motion)
    image = render_hu(scene, native, scanner.edge_mm)
    image += draw_noise(image.shape, scanner, rng)
    low, high = roi.hu_window
    scaled = (resample_aligned(image, native, target) - low) / (high - low)
    mask = render_mask(scene, scene.nodules[number], target)
    return np.clip(scaled, 0, 1).astype(np.float32), mask


def _after_registration(motion: Motion, nodule: PhantomNodule) -> Motion:
    """Bring the nodule's place back to within what rigid registration leaves (tenths of a mm)."""
    rest = np.clip(motion.table_mm, -0.4, 0.4)
    centred = motion.to_scan(nodule.centre_mm[None])[0] - nodule.centre_mm - rest
    return Motion(
        motion.table_mm - centred, motion.rotation, motion.breath_mm, motion.phase, motion.lung_hu
    )


def roi_geometry(centre_mm: NDArray[np.float64], roi: RoiConfig) -> Geometry:
    """The 1 mm grid around a point."""
    size = roi.size_vox
    x, y, z = (float(value) - (size - 1) / 2 for value in centre_mm)
    return Geometry(size=(size, size, size), spacing_mm=(1.0, 1.0, 1.0), origin_mm=(x, y, z))


def _native_geometry(target: Geometry, scanner: Scanner, rng: np.random.Generator) -> Geometry:
    """The scanner's grid that covers the ROI, at a random sub-voxel place."""
    spacing = (scanner.pixel_mm, scanner.pixel_mm, scanner.slice_spacing_mm)
    begin = [
        o - s * float(rng.uniform(0.05, 1)) for o, s in zip(target.origin_mm, spacing, strict=True)
    ]
    size = [
        int(np.ceil((o + n - b) / s)) + 1
        for o, n, b, s in zip(target.origin_mm, target.size, begin, spacing, strict=True)
    ]
    return Geometry(
        size=(size[0], size[1], size[2]),
        spacing_mm=spacing,
        origin_mm=(begin[0], begin[1], begin[2]),
    )


def resample_aligned(
    image: NDArray[np.float32], source: Geometry, target: Geometry
) -> NDArray[np.float32]:
    """Interpolate linearly between two grids of equal axes, one axis at a time.

    Args:
        image: ``(D, H, W)`` on `source`.
        source: Its grid, which covers `target`.
        target: The grid wanted; same direction.
    """
    for axis in range(3):
        xyz = 2 - axis
        place = (
            target.origin_mm[xyz]
            + np.arange(target.size[xyz]) * target.spacing_mm[xyz]
            - source.origin_mm[xyz]
        ) / source.spacing_mm[xyz]
        low = np.clip(np.floor(place).astype(int), 0, source.size[xyz] - 2)
        shape = [1, 1, 1]
        shape[axis] = -1
        share = np.clip(place - low, 0, 1).astype(np.float32).reshape(shape)
        lower, upper = image.take(low, axis), image.take(low + 1, axis)
        image = lower + (upper - lower) * share
    return image


def _pseudonym(*names: int) -> str:
    text = "/".join(str(name) for name in names)
    return hashlib.sha256(f"phantom roi {text}".encode()).hexdigest()[:16]
