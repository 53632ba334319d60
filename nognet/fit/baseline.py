"""One nodule of one CT, cut as preparation cuts it: what a prediction starts from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nognet.config import PreparationConfig, RoiConfig
from nognet.data.ct.image import CtReading, check_hounsfield, read_ct_with_findings
from nognet.data.findings import Finding
from nognet.data.masks.reading import MaskSource, read_mask_with_findings
from nognet.data.pairs.gate import PairFacts, advice_for, judge_roi
from nognet.data.pairs.register import Registration
from nognet.data.pairs.roi import (
    covered_fraction,
    crop_mask,
    cut_image,
    cut_mask,
    nodule_centre_mm,
    nodule_volume_mm3,
    roi_grid,
)
from nognet.errors import SiteDataError
from nognet.types import Geometry, Volume

_CALCIFIED = "density-clipped"


@dataclass(frozen=True)
class Baseline:
    """A nodule at the time at hand.

    Attributes:
        image: ROI scaled to [0, 1], ``(D, H, W)`` float32.
        mask: The nodule on the same grid, ``(D, H, W)`` uint8 in {0, 1}.
        grid: Where the ROI lies: 1 mm, along the patient's axes (LPS).
        volume_mm3: Of the nodule on its native grid.
        findings: Warnings; refusals are raised.
    """

    image: NDArray[np.float32]
    mask: NDArray[np.uint8]
    grid: Geometry
    volume_mm3: float
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class ReadNodule:
    """A CT and one nodule on it, as read.

    Attributes:
        ct: The CT on its native grid.
        nodule: Its mask, cropped by `crop_mask`.
        findings: What reading has found.
    """

    ct: CtReading
    nodule: Volume
    findings: tuple[Finding, ...] = ()


def read_nodule(image: Path, mask: Path, *, segment: str | None = None) -> ReadNodule:
    """Read a CT and a nodule's mask, and judge them as preparation does.

    Raises:
        GeometryError: a geometry that may not be trusted.
        SiteDataError: a file can't be read or holds no HU, or the mask is empty.
    """
    ct = read_ct_with_findings(image)
    check_hounsfield(ct)
    reading = read_mask_with_findings(mask, MaskSource.of(ct), segment)
    nodule = crop_mask(reading.mask, ct.volume.geometry)
    return ReadNodule(ct, nodule, (*ct.findings, *reading.findings))


def read_baseline(
    image: Path, mask: Path, roi: RoiConfig, *, segment: str | None = None
) -> Baseline:
    """Read a CT and a nodule's mask, judge them as preparation does, and cut the ROI.

    Args:
        image: DICOM folder, DICOM file, NIfTI, NRRD or MHA.
        mask: DICOM SEG, RTSTRUCT, NIfTI, NRRD or MHA.
        roi: Size and HU window that the model was trained on.
        segment: Which segment, where the mask holds several.

    Raises:
        GeometryError: a geometry that may not be trusted.
        SiteDataError: a file can't be read or holds no HU, the mask is empty, or the ROI cuts the
            nodule.
    """
    read = read_nodule(image, mask, segment=segment)
    return cut_baseline(read.ct, read.nodule, roi, found=read.findings)


def cut_baseline(
    ct: CtReading, nodule: Volume, roi: RoiConfig, *, found: tuple[Finding, ...] = ()
) -> Baseline:
    """Cut the ROI around a nodule.

    Args:
        ct: The CT as read.
        nodule: Its mask, cropped by `crop_mask`.
        roi: Size and HU window.
        found: What reading has found.

    Raises:
        SiteDataError: the ROI cuts the nodule.
    """
    stay = Registration.identity().transform()
    grid = roi_grid(nodule_centre_mm(nodule), roi.size_vox)
    mask, inside = cut_mask(nodule, grid, stay)
    volume = nodule_volume_mm3(nodule)
    covered = covered_fraction(ct.volume.geometry, grid, stay)
    facts = PairFacts(
        interval_days=0.0,
        thickness_mm=(ct.thickness_mm, ct.thickness_mm),
        kernels=(ct.kernel, ct.kernel),
        volumes_mm3=(volume, volume),
        inside=(inside, inside),
        covered=(covered, covered),
        displacement_mm=0.0,
        radius_mm=float((volume * 3 / (4 * np.pi)) ** (1 / 3)),
    )
    judged = tuple(judge_roi(facts, PreparationConfig()))
    for finding in judged:
        if finding.severity == "refused":
            advice = advice_for(finding.code)
            if finding.code == "nodule-cut":
                advice = f"this model's ROI has {roi.size_vox} mm an edge; use one with a larger"
            raise SiteDataError(f"{finding.message}; {advice}", code=finding.code)
    if not mask.any():
        raise SiteDataError(
            f"the nodule of {volume:.2f} mm3 leaves no voxel on the 1 mm grid; it is too small for "
            "this model",
            code="mask-empty",
        )
    image = cut_image(ct.volume, grid, stay, roi)
    warned = (*found, *judged, *_clipped(image, mask, roi))
    return Baseline(image, mask, grid, volume, tuple(dict.fromkeys(warned)))


def _clipped(
    image: NDArray[np.float32], mask: NDArray[np.uint8], roi: RoiConfig
) -> Iterator[Finding]:
    """Warn where the window hides how dense the nodule is."""
    share = float((image[mask == 1] >= 1.0).mean())
    if share > 0:
        message = (
            f"{100 * share:.0f} % of the nodule are denser than the model's window shows "
            f"({roi.hu_window[1]:g} HU): its mass is a lower bound"
        )
        yield Finding(_CALCIFIED, "warning", message)
