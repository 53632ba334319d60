"""Is a pair fit to be learnt from? Limits of the site, and what to do where they are not met."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from nognet.config import PreparationConfig
from nognet.data.findings import CODES, Finding

MAX_DAYS_OFF = 1
"""Table and headers may differ by so much: a CT near midnight, or the day of its report."""
CLOSER_BY = 0.5
"""Another nodule this much closer (as a share of the own distance) is named as a likely swap."""
SWAP_FROM_MM = 3.0
"""Nodules closer than this to where they should lie are neither taken for swapped nor apart."""
_ROUNDING_MM = 1e-3

PAIR_CODES: dict[str, str] = {
    "dates-differ": "the headers of the two CTs lie another number of days apart than the table",
    "interval": "the two times are too far apart, or not one after the other",
    "thickness-differs": "slice thickness differs between the two times",
    "kernels-differ": "reconstruction kernels differ between the two times",
    "contrast-differs": "one of the two CTs was taken with contrast agent, the other without",
    "nodule-cut": "the nodule reaches beyond the ROI or the image",
    "nodule-small": "the nodule is smaller than the site's limit",
    "roi-coverage": "part of the ROI lies outside the field of view and is filled with air",
    "implausible-growth": "the volume changed more than the site's limit, up or down",
    "nodule-mismatch": "after registration the nodules lie apart: probably two different ones",
    "nodule-displaced": "after registration the nodules' centres lie several millimetres apart",
    "nodule-unmatched": "no nodule lies there at the other time: new, gone, or not marked",
    "nodule-twice": "two rows of one CT mark the same nodule",
    "nodule-names": "one time is about every nodule ('*'), the other about nodules by name",
    "registration": "the two CTs could not be brought together",
    "lung-overlap": "after registration the lungs around the nodule overlap too little",
    "weak-registration": "after registration the lungs around the nodule agree less than usual",
    "duplicate-study": "both times have the same CT",
    "prior-absent": "the scan before the baseline has no such nodule: a pair without prior scan",
    "prior-unusable": "the scan before the baseline can't be used: a pair without prior scan",
    "prior-unread": "the scan before the baseline failed this time: a pair without prior scan",
    "prior-doubtful": "the scan before the baseline is used, but agrees less than usual",
    "patient-leak": "the same CT is listed under two patients",
    "patient-shared": "the headers give two patients of the table one PatientID",
    "patients-differ": "the headers give one patient of the table two PatientIDs",
    "unexpected": "something nobody foresaw; please report it",
}
INFORMATIVE = frozenset({"padding", "unsigned-padding", "mask-resampled", "oblique"})
"""Codes that only say what was done; nothing follows from them."""
ADVICE: dict[str, str] = {
    "sheared": "re-export without tilt, or exclude the series",
    "irregular-spacing": "export the complete original series",
    "missing-slice": "export the complete original series",
    "same-position": "choose another series",
    "duplicate-position": "put one series only in the folder",
    "mixed-orientation": "export the original axial series alone",
    "mixed-matrix": "put one reconstruction only in the folder, or name its UID in 'series'",
    "single-slice": "export the whole series",
    "several-series": "give the folder of one series, or its UID in the column 'series'",
    "no-series": "check the columns 'image' and 'series': no CT series is there",
    "localizer": "choose the axial series beside it",
    "not-ct": "name a CT series; other images are left aside",
    "not-axial": "choose the axial reconstruction",
    "eight-bit": "export the original series",
    "lossy": "export the original series",
    "not-hounsfield": "export the image with its rescale slope and intercept",
    "no-rescale": "check that the values are HU, or export the original series",
    "no-position": "export the original series with its positions",
    "missing-tags": "export the original series; de-identify without removing these tags",
    "empty-uids": "de-identify by replacing UIDs, not by emptying them",
    "bad-tags": "export the original series again",
    "wrong-length": "copy the file again, or export the original series",
    "no-pixels": "export the series with its images",
    "not-finite": "write -1024 HU where nothing was measured",
    "unreadable": "check the file's permissions and the drive it lies on",
    "truncated": "copy the file again",
    "not-dicom": "remove the file, or name a DICOM, NIfTI, NRRD or MHA file",
    "mask-geometry": "export the mask with the image's geometry",
    "mask-incomplete": "give the whole series and a mask on every slice",
    "mask-other-series": "give the series that the mask was drawn on",
    "mask-not-binary": "save the mask as whole numbers, 0 outside and 1 (or a label) inside",
    "mask-segment": "name the segment in the column 'segment'",
    "mask-empty": "check the segment",
    "mask-specks": "look at the mask; if they are nodules, lower preparation.min_nodule_volume_mm3",
    "mask-absent": "name the nodule's mask in the column 'mask', or leave the row out",
    "zip-unsafe": "unpack the archive by hand, look at it, and name the folder",
    "disk-full": "free some space, or set TMPDIR to a larger disk",
    "too-large": "check the file; raise preparation.max_volume_voxels or max_unpacked_bytes",
    "registration": "check that both CTs are of one patient and region",
    "lung-overlap": "look at the pair in the sheet of `nognet check --sheet`",
    "weak-registration": "look at the pair in the sheet of `nognet check --sheet`",
    "nodule-mismatch": "check the nodule's name at both times",
    "nodule-displaced": "look at the pair in the sheet of `nognet check --sheet`",
    "nodule-unmatched": "name or mark the nodule at both times, or leave it as it is",
    "nodule-twice": "check the columns 'mask' and 'segment' of both rows, or leave one out",
    "nodule-names": "write '*' in the column 'nodule' at both times, or a name at both",
    "nodule-small": "leave the pair out, or lower preparation.min_nodule_volume_mm3",
    "nodule-cut": "choose a larger roi.size_vox",
    "roi-coverage": "prefer a reconstruction with the whole lung in its field of view",
    "dates-differ": "check the column 'date': are the two rows swapped?",
    "interval": "check the column 'date'; raise preparation.max_interval_days, or leave it out",
    "prior-absent": "nothing, if it is new; else name and mark it at the date before too",
    "prior-unusable": "see what the message says of that scan; the pair stands without it",
    "prior-unread": "check the drive and run `nognet prepare` again; the pair stands without it",
    "prior-doubtful": "look at the earlier pair in the sheet of `nognet check --sheet`",
    "patient-leak": "list the CT under one patient",
    "patient-shared": "list both under one patient if they are one person",
    "patients-differ": "check the column 'image': is one CT another patient's?",
    "duplicate-study": "check the paths in the column 'image'",
    "implausible-growth": "check both masks",
    "thick-slices": "prefer a thinner reconstruction",
    "thickness-differs": "prefer reconstructions of one thickness at both times",
    "kernels-differ": "prefer the same kernel at both times",
    "contrast-differs": "prefer two CTs with contrast agent, or two without",
    "unexpected": "report it with the message and the version of nognet",
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
        contrast: Contrast agent at both times; None where the header doesn't tell.
        lung_overlap: Dice of the lungs around the nodule after registration; None where not known.
        ncc: Correlation of the lungs around the nodule after registration; None where not known.
        nearer: The nodule of the follow-up that lies nearest to where this one should, another one
            than that of the same name; None where this one does, or is alone.
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
    contrast: tuple[bool | None, bool | None] = (None, None)
    lung_overlap: float | None = None
    ncc: float | None = None
    nearer: Nearer | None = None


@dataclass(frozen=True)
class Nearer:
    """Another nodule of the follow-up: how it is called, and how far it lies from this one."""

    who: str
    distance_mm: float


def advice_for(code: str) -> str:
    """Say what to do about a code; empty where nothing has to be done."""
    return ADVICE.get(code, "")


def meaning_of(code: str) -> str:
    """Say what a code means."""
    return CODES.get(code) or PAIR_CODES.get(code, code)


def judge_interval(interval_days: float, limits: PreparationConfig) -> tuple[Finding, ...]:
    """Hold the interval against the site's limit; known before any file is read."""
    if interval_days <= 0:
        message = f"{interval_days:.0f} days apart: the follow-up has to be later than the baseline"
        return (Finding("interval", "refused", message),)
    if interval_days <= limits.max_interval_days:
        return ()
    message = f"{interval_days:.0f} days apart, at most {limits.max_interval_days:.0f} are allowed"
    return (Finding("interval", "refused", message),)


def judge_pair(facts: PairFacts, limits: PreparationConfig) -> tuple[Finding, ...]:
    """List all that speaks against a pair."""
    agreement = tuple(_agreement(facts, limits))
    other_nodule = any(finding.code == "nodule-mismatch" for finding in agreement)
    # that another nodule lies outside the ROI says nothing about this one
    roi = (f for f in judge_roi(facts, limits) if not (other_nodule and f.code == "nodule-cut"))
    return (
        *judge_interval(facts.interval_days, limits),
        *_dates(facts),
        *_likeness(facts, limits),
        *roi,
        *_growth(facts, limits),
        *agreement,
    )


def judge_roi(facts: PairFacts, limits: PreparationConfig) -> Iterator[Finding]:
    """List what speaks against the ROI at either time, without comparing the two."""
    thickest = max(facts.thickness_mm)
    if thickest > limits.max_slice_thickness_mm + _ROUNDING_MM:
        yield Finding("thick-slices", "warning", f"slices are {thickest:g} mm thick")
    if min(facts.covered) < limits.min_covered_fraction:
        message = f"{100 * (1 - min(facts.covered)):.0f} % of the ROI are outside a field of view"
        yield Finding("roi-coverage", "warning", message)
    cut = 1 - min(facts.inside)
    if cut > 0:
        severe = cut > limits.max_cut_fraction
        message = f"{100 * cut:.1f} % of the nodule lie outside the ROI"
        yield Finding("nodule-cut", "refused" if severe else "warning", message)
    if min(facts.volumes_mm3) < limits.min_nodule_volume_mm3:
        message = (
            f"the nodule has {min(facts.volumes_mm3):.1f} mm3, below "
            f"{limits.min_nodule_volume_mm3:g}: its growth is mostly noise"
        )
        yield Finding("nodule-small", "warning", message)


def _dates(facts: PairFacts) -> Iterator[Finding]:
    """Hold the table against the headers; equal dates there are a mark of de-identification."""
    found = facts.header_days
    if found and abs(found - facts.interval_days) > MAX_DAYS_OFF:
        message = f"{facts.interval_days:.0f} days by the table, {found} by the headers of the CTs"
        yield Finding("dates-differ", "warning", message)


def _likeness(facts: PairFacts, limits: PreparationConfig) -> Iterator[Finding]:
    """Compare how the two CTs were taken."""
    first, second = facts.thickness_mm
    if abs(first - second) > limits.max_thickness_difference_mm + _ROUNDING_MM:
        yield Finding("thickness-differs", "warning", f"slices of {first:g} and {second:g} mm")
    if all(facts.kernels) and facts.kernels[0] != facts.kernels[1]:
        yield Finding("kernels-differ", "warning", f"kernels {' and '.join(facts.kernels)}")
    if set(facts.contrast) == {True, False}:
        words = ("with", "without") if facts.contrast[0] else ("without", "with")
        message = f"baseline {words[0]}, follow-up {words[1]} contrast agent"
        yield Finding("contrast-differs", "warning", message)


def _growth(facts: PairFacts, limits: PreparationConfig) -> Iterator[Finding]:
    before, after = facts.volumes_mm3
    if max(before, after) > limits.max_growth_ratio * min(before, after):
        ratio = max(before, after) / min(before, after) if min(before, after) > 0 else float("inf")
        how = "growth" if after > before else "shrinking"
        message = f"volumes {before:.0f} and {after:.0f} mm3: a {ratio:.3g}-fold {how}"
        yield Finding("implausible-growth", "warning", message)


def _agreement(facts: PairFacts, limits: PreparationConfig) -> Iterator[Finding]:
    """Judge how well the registration brought the two nodules together."""
    overlap, least = facts.lung_overlap, limits.registration.min_lung_overlap
    if overlap is not None and overlap < least:
        message = f"the lungs around the nodule overlap by {overlap:.2f} (Dice), below {least:g}"
        yield Finding("lung-overlap", "warning", message)
    ncc, usual = facts.ncc, limits.registration.warn_ncc
    if ncc is not None and ncc < usual:
        message = f"the lungs around the nodule correlate by {ncc:.2f}, below {usual:g}"
        yield Finding("weak-registration", "warning", message)
    apart, slack = facts.displacement_mm, facts.radius_mm / 2
    # a nodule may grow to one side: its centre then moves by up to half its radius
    most, warned = (
        limits.max_nodule_displacement_mm + slack,
        limits.warn_nodule_displacement_mm + slack,
    )
    other = facts.nearer
    swapped = other is not None and apart > SWAP_FROM_MM and other.distance_mm < CLOSER_BY * apart
    hint = (
        f"; {other.who} lies {other.distance_mm:.1f} mm from there: are the names swapped?"
        if other is not None and swapped
        else ""
    )
    touch = max(sum(_radius_mm(volume) for volume in facts.volumes_mm3), SWAP_FROM_MM)
    warned = min(warned, touch)  # two small nodules that don't even touch are hardly one
    if apart > most or (apart > warned and swapped):
        allowed = f"at most {most:.1f}" if apart > most else f"more than {warned:.1f}"
        message = f"after registration the nodules lie {apart:.1f} mm apart ({allowed}){hint}"
        yield Finding("nodule-mismatch", "refused", message)
    elif apart > warned or swapped:
        message = f"after registration the nodules' centres lie {apart:.1f} mm apart{hint}"
        yield Finding("nodule-displaced", "warning", message)


def _radius_mm(volume_mm3: float) -> float:
    return float((volume_mm3 * 3 / (4 * math.pi)) ** (1 / 3))
