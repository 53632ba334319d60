"""Is a pair fit to be learnt from? Limits of the site, and what to do where they are not met."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nognet.config import PreparationConfig
from nognet.data.findings import CODES, Finding

MAX_GROWTH_RATIO = 10.0
MAX_NODULE_DISPLACEMENT_MM = 15.0
WARN_NODULE_DISPLACEMENT_MM = 7.5
MAX_CUT_FRACTION = 0.05
MIN_COVERED_FRACTION = 0.95
MAX_THICKNESS_DIFFERENCE_MM = 0.5
MAX_DAYS_OFF = 1

PAIR_CODES: dict[str, str] = {
    "dates-differ": "the headers of the two CTs lie another number of days apart than the table",
    "interval": "the two times are too far apart",
    "thickness-differs": "slice thickness differs between the two times",
    "kernels-differ": "reconstruction kernels differ between the two times",
    "nodule-cut": "the nodule reaches beyond the ROI or the image",
    "roi-coverage": "part of the ROI lies outside the field of view and is filled with air",
    "implausible-growth": "the volume changed more than tenfold",
    "nodule-mismatch": "after registration the nodules lie apart: probably two different ones",
    "nodule-displaced": "after registration the nodules' centres lie several millimetres apart",
    "registration": "the two CTs could not be brought together",
    "duplicate-study": "both times have the same CT",
    "patient-leak": "the same CT is listed under two patients",
    "unexpected": "something nobody foresaw; please report it",
}
ADVICE: dict[str, str] = {
    "sheared": "re-export without tilt, or exclude the series",
    "irregular-spacing": "export the complete original series",
    "missing-slice": "export the complete original series",
    "same-position": "choose another series",
    "duplicate-position": "put one series only in the folder",
    "several-series": "give the folder of one series, or its UID in the column 'series'",
    "eight-bit": "export the original series",
    "lossy": "export the original series",
    "not-hounsfield": "export the image with its rescale slope and intercept",
    "not-finite": "write -1024 HU where nothing was measured",
    "unreadable": "check the file's permissions and the drive it lies on",
    "truncated": "copy the file again",
    "mask-geometry": "export the mask with the image's geometry",
    "mask-incomplete": "give the whole series and a mask on every slice",
    "mask-other-series": "give the series that the mask was drawn on",
    "mask-not-binary": "name the label in the column 'segment'",
    "mask-segment": "name the segment in the column 'segment'",
    "mask-empty": "check the segment",
    "registration": "check that both CTs are of one patient and region",
    "nodule-mismatch": "check the nodule's name at both times",
    "nodule-cut": "choose a larger roi.size_vox",
    "dates-differ": "check the column 'date': are the two rows swapped?",
    "interval": "raise preparation.max_interval_days, or leave the pair out",
    "patient-leak": "list the CT under one patient",
    "duplicate-study": "check the paths in the column 'image'",
    "implausible-growth": "check both masks",
    "thick-slices": "prefer a thinner reconstruction",
    "kernels-differ": "prefer the same kernel at both times",
}


@dataclass(frozen=True)
class PairFacts:
    """What is known of a pair once it has been cut.

    Attributes:
        interval_days: Days between the two times.
        thickness_mm: Slice thickness at both times.
        kernels: Kernels at both times, empty where not known.
        volumes_mm3: Native volumes at both times.
        inside: Part of each nodule inside the ROI.
        covered: Part of the ROI inside each field of view.
        displacement_mm: Distance of the nodules' centres after registration.
        radius_mm: Radius of a sphere of the larger volume.
        header_days: Days between the two times by the CTs' headers; None where not known.
    """

    interval_days: float
    thickness_mm: tuple[float, float]
    kernels: tuple[str, str]
    volumes_mm3: tuple[float, float]
    inside: tuple[float, float]
    covered: tuple[float, float]
    displacement_mm: float
    radius_mm: float
    header_days: int | None = None


def advice_for(code: str) -> str:
    """Say what to do about a code; empty where nothing has to be done."""
    return ADVICE.get(code, "")


def meaning_of(code: str) -> str:
    """Say what a code means."""
    return CODES.get(code) or PAIR_CODES.get(code, code)


def judge_interval(interval_days: float, limits: PreparationConfig) -> tuple[Finding, ...]:
    """Hold the interval against the site's limit; known before any file is read."""
    if interval_days <= limits.max_interval_days:
        return ()
    message = f"{interval_days:.0f} days apart, at most {limits.max_interval_days:.0f} are allowed"
    return (Finding("interval", "refused", message),)


def judge_pair(facts: PairFacts, limits: PreparationConfig) -> tuple[Finding, ...]:
    """List all that speaks against a pair."""
    return (
        *judge_interval(facts.interval_days, limits),
        *_dates(facts),
        *_acquisition(facts, limits),
        *_nodule(facts),
    )


def _dates(facts: PairFacts) -> Iterator[Finding]:
    """Hold the table against the headers; equal dates there are a mark of de-identification."""
    found = facts.header_days
    if found and abs(found - facts.interval_days) > MAX_DAYS_OFF:
        message = f"{facts.interval_days:.0f} days by the table, {found} by the headers of the CTs"
        yield Finding("dates-differ", "warning", message)


def _acquisition(facts: PairFacts, limits: PreparationConfig) -> Iterator[Finding]:
    first, second = facts.thickness_mm
    if max(first, second) > limits.max_slice_thickness_mm + 1e-3:
        message = f"slices are {max(first, second):g} mm thick"
        yield Finding("thick-slices", "warning", message)
    if abs(first - second) > MAX_THICKNESS_DIFFERENCE_MM:
        yield Finding("thickness-differs", "warning", f"slices of {first:g} and {second:g} mm")
    if all(facts.kernels) and facts.kernels[0] != facts.kernels[1]:
        yield Finding("kernels-differ", "warning", f"kernels {' and '.join(facts.kernels)}")
    if min(facts.covered) < MIN_COVERED_FRACTION:
        message = f"{100 * (1 - min(facts.covered)):.0f} % of the ROI are outside a field of view"
        yield Finding("roi-coverage", "warning", message)


def _nodule(facts: PairFacts) -> Iterator[Finding]:
    cut = 1 - min(facts.inside)
    if cut > 0:
        severe = cut > MAX_CUT_FRACTION
        message = f"{100 * cut:.1f} % of the nodule lie outside the ROI"
        yield Finding("nodule-cut", "refused" if severe else "warning", message)
    before, after = facts.volumes_mm3
    if max(before, after) > MAX_GROWTH_RATIO * min(before, after):
        message = f"volumes {before:.0f} and {after:.0f} mm3: a {after / before:.2g}-fold change"
        yield Finding("implausible-growth", "warning", message)
    # a nodule may grow to one side: its centre then moves by up to its radius
    limit = MAX_NODULE_DISPLACEMENT_MM + facts.radius_mm / 2
    if facts.displacement_mm > limit:
        message = (
            f"after registration the nodules lie {facts.displacement_mm:.1f} mm apart "
            f"(at most {limit:.1f})"
        )
        yield Finding("nodule-mismatch", "refused", message)
    elif facts.displacement_mm > WARN_NODULE_DISPLACEMENT_MM + facts.radius_mm / 2:
        message = (
            f"after registration the nodules' centres lie {facts.displacement_mm:.1f} mm apart"
        )
        yield Finding("nodule-displaced", "warning", message)
