"""What was found wrong or odd in a site's files: stable codes, and one place where they're listed.

A `Finding` of severity ``refused`` makes the thing it is about unusable; ``warning`` lets it pass
and is reported; ``skipped`` says that a file was rightly left aside.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from nognet.errors import GeometryError

Severity = Literal["warning", "refused", "skipped"]

CODES: dict[str, str] = {
    "sheared": "slices are shifted sideways evenly (gantry tilt)",
    "irregular-spacing": "gaps between slices differ, or slices are scattered sideways",
    "missing-slice": "a gap is a multiple of the others",
    "same-position": "all images lie at one position",
    "duplicate-position": "several images at the same position, or one image several times",
    "mixed-orientation": "slices are turned against each other",
    "mixed-matrix": "rows, columns or pixel spacing differ between slices",
    "single-slice": "one slice is no volume",
    "thick-slices": "slices are thicker than the site's limit",
    "localizer": "a scout image",
    "not-ct": "another modality, a secondary capture or a colour image",
    "not-axial": "slices are coronal or sagittal",
    "oblique": "slices are turned out of the axial plane",
    "eight-bit": "8 bits or fewer can't hold Hounsfield units",
    "not-hounsfield": "nothing is as thin as air: values were stored without their intercept",
    "lossy": "lossy compression changed the values",
    "no-pixels": "there is no image in the file",
    "unreadable": "the file can't be read: no permission, or a fault of disk or network",
    "truncated": "the file ends before its image does",
    "not-dicom": "the file is not DICOM",
    "padding": "padding below -1024 HU was set to -1024",
    "unsigned-padding": "padding was stored with the wrong sign and set to -1024",
    "bad-tags": "tags that values or geometry depend on hold what can't be right",
    "missing-tags": "tags that nothing else depends on are absent",
    "empty-uids": "UIDs are empty; those of the file's meta header were used",
    "not-finite": "the image holds NaN or infinite values",
    "no-rescale": "slope or intercept is absent, so the values may not be HU",
    "no-position": "position, orientation or pixel spacing is absent",
    "several-series": "more than one CT series, and nothing says which",
    "no-series": "no CT series at all",
    "mask-geometry": "the mask doesn't lie on the image",
    "mask-incomplete": "contours have no slice: the volume would be too small",
    "mask-other-series": "the mask was drawn on another series",
    "mask-not-binary": "the mask holds grey values",
    "mask-empty": "the mask or the segment holds nothing",
    "mask-resampled": "the mask lay on another grid and was resampled in world space",
    "mask-segment": "the segment is not in the mask, or must be named",
    "mask-specks": "parts of the mask smaller than a nodule were left aside",
    "mask-absent": "the table names no mask",
    "zip-unsafe": "the archive holds paths outside itself, links, or is damaged or encrypted",
    "disk-full": "there is no room to unpack an archive",
    "wrong-length": "the image holds more or fewer values than its header says",
    "too-large": "the file claims, or unpacks to, more than the site allows",
}
"""Every code of ingestion with what it means; pairs add theirs in `nognet.data.pairs.gate`."""


@dataclass(frozen=True)
class Finding:
    """One thing found: a stable code, how bad it is, and a sentence with the figures."""

    code: str
    severity: Severity
    message: str


def refuse_if_any(findings: Iterable[Finding], where: str) -> None:
    """Raise on refusals; the first gives the code, the message lists them all.

    Raises:
        GeometryError: at least one finding refuses.
    """
    refused = [finding for finding in findings if finding.severity == "refused"]
    if refused:
        words = "; ".join(finding.message for finding in refused)
        raise GeometryError(f"{where}: {words}", code=refused[0].code)


def without_repeats(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Keep the first finding of each code and message."""
    return tuple(dict.fromkeys(findings))
