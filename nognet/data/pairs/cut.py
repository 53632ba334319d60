"""Cut both times of a nodule onto the baseline's ROI, and write down what can be judged."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nognet.config import RoiConfig
from nognet.data.ct.image import CtReading
from nognet.data.findings import Finding
from nognet.data.pairs.gate import Nearer, PairFacts
from nognet.data.pairs.register import Registration
from nognet.data.pairs.roi import (
    covered_fraction,
    cut_image,
    cut_mask,
    nodule_centre_mm,
    nodule_volume_mm3,
    roi_grid,
)
from nognet.types import RoiPair, Volume


@dataclass(frozen=True)
class NoduleAt:
    """A nodule at one time: the CT as read, and the nodule's mask on a part of its grid."""

    ct: CtReading
    mask: Volume


@dataclass(frozen=True)
class PairName:
    """What a pair is called and how far apart its times are."""

    pair_id: str
    patient_id: str
    interval_days: float


@dataclass(frozen=True)
class Cut:
    """A pair as cut, what can be judged about it, and figures of quality by name.

    Attributes:
        pair: The pair; a nodule outside the ROI leaves an empty mask.
        facts: What the gate judges.
        quality: Figures by name.
        findings: What the cut itself refuses: a nodule that leaves no voxel.
    """

    pair: RoiPair
    facts: PairFacts
    quality: dict[str, float]
    findings: tuple[Finding, ...] = ()


def cut_pair(
    name: PairName,
    sides: tuple[NoduleAt, NoduleAt],
    registration: Registration,
    roi: RoiConfig,
    *,
    nearer: Nearer | None = None,
) -> Cut:
    """Cut both times onto the baseline's ROI: one resampling each.

    Args:
        name: What the pair is called.
        sides: Baseline and follow-up.
        registration: The map from the baseline's frame into the follow-up's.
        roi: Size and HU window.
        nearer: Another nodule of the follow-up that lies nearer to where this one should.
    """
    first, second = sides
    grid = roi_grid(nodule_centre_mm(first.mask), roi.size_vox)
    stay, move = Registration.identity().transform(), registration.transform()
    baseline_mask, inside_0 = cut_mask(first.mask, grid, stay)
    follow_up_mask, inside_1 = cut_mask(second.mask, grid, move)
    volumes = (nodule_volume_mm3(first.mask), nodule_volume_mm3(second.mask))
    pair = RoiPair(
        pair_id=name.pair_id,
        patient_id=name.patient_id,
        baseline=cut_image(first.ct.volume, grid, stay, roi),
        baseline_mask=baseline_mask,
        follow_up=cut_image(second.ct.volume, grid, move, roi),
        follow_up_mask=follow_up_mask,
        interval_days=name.interval_days,
        baseline_volume_mm3=volumes[0],
        follow_up_volume_mm3=volumes[1],
    )
    covered = (
        covered_fraction(first.ct.volume.geometry, grid, stay),
        covered_fraction(second.ct.volume.geometry, grid, move),
    )
    facts = PairFacts(
        interval_days=name.interval_days,
        thickness_mm=(first.ct.thickness_mm, second.ct.thickness_mm),
        kernels=(first.ct.kernel, second.ct.kernel),
        volumes_mm3=volumes,
        inside=(inside_0, inside_1),
        covered=covered,
        displacement_mm=registration.nodule_displacement_mm,
        radius_mm=float((max(volumes) * 3 / (4 * np.pi)) ** (1 / 3)),
        header_days=_header_days(first.ct, second.ct),
        contrast=(first.ct.contrast, second.ct.contrast),
        lung_overlap=registration.lung_overlap,
        ncc=registration.ncc,
        nearer=nearer,
    )
    return Cut(pair, facts, _quality(pair, registration), _voxels_left(pair, facts))


def _voxels_left(pair: RoiPair, facts: PairFacts) -> tuple[Finding, ...]:
    """Refuse a nodule too small for the ROI's grid; one outside of it is the gate's matter."""
    masks = (pair.baseline_mask, pair.follow_up_mask)
    lost = [
        volume
        for mask, inside, volume in zip(masks, facts.inside, facts.volumes_mm3, strict=True)
        if inside > 0 and not mask.any()
    ]
    if not lost:
        return ()
    message = f"the nodule of {min(lost):.2f} mm3 leaves no voxel on the 1 mm grid"
    return (Finding("mask-empty", "refused", message),)


def _quality(pair: RoiPair, registration: Registration) -> dict[str, float]:
    """List the figures that are kept with a pair; what isn't known is left out."""
    figures = {
        "ncc": registration.ncc,
        "nodule_displacement_mm": registration.nodule_displacement_mm,
        "shift_mm": registration.shift_mm,
        "rotation_degrees": registration.rotation_degrees,
        "lung_overlap": registration.lung_overlap,
        "scale": registration.scale,
        "baseline_roi_volume_mm3": float(pair.baseline_mask.sum()),
        "follow_up_roi_volume_mm3": float(pair.follow_up_mask.sum()),
    }
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def _header_days(first: CtReading, second: CtReading) -> int | None:
    if first.date is None or second.date is None:
        return None
    return (second.date - first.date).days
