"""What one image's header, or the headers of a series, say against its use: pure checks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from nognet.data.ct.header import CT_CLASSES, SliceHeader, is_compressed
from nognet.data.ct.limits import DEFAULT_MAX_VOXELS
from nognet.data.findings import Finding

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
MAX_SLICE_PIXELS = 4096 * 4096
"""The largest matrix of any CT scanner has 2048 x 2048."""
COLOURS = ("RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT",
           "YBR_RCT")  # fmt: skip
SCREEN_WORDS = ("SCREEN SAVE", "SCREENSAVE", "SCREEN CAPTURE", "DOSE", "CT_SOM5 PROT")
"""What scanners write into ImageType of pages that show text."""
PROJECTIONS = ("MIP", "MINIP", "MAX_IP", "MIN_IP", "PROJECTION IMAGE")
DECLARED_GAP_TOLERANCE = 0.05
NO_TILT_DEGREES = 0.5
"""Slices that stand this near to the axial plane are taken for upright."""


def not_an_image_of_ct(header: SliceHeader) -> Finding | None:
    """Say why a file is no slice of a CT volume, if so."""
    if header.modality not in ("CT", "") or (
        header.modality == "" and header.sop_class not in CT_CLASSES
    ):
        shown = header.modality or "no modality"
        return Finding("not-ct", "skipped", f"not CT: {shown}")
    if header.scout:
        return Finding("localizer", "skipped", "localizer (scout) images")
    if header.pixels.samples != 1 or header.pixels.photometric in COLOURS:
        return Finding("not-ct", "skipped", "colour images (dose page or screen capture)")
    if any(word in text for text in header.image_type for word in SCREEN_WORDS):
        return Finding("not-ct", "skipped", "screen captures or dose pages")
    if header.sop_class.startswith(SECONDARY_CAPTURE) and header.position_mm is None:
        return Finding("not-ct", "skipped", "secondary captures without a position")
    return None


def slice_findings(header: SliceHeader) -> Iterator[Finding]:
    """Judge one image by its header."""
    pixels = header.pixels
    if header.matrix is None or pixels.element is None:
        yield Finding("no-pixels", "refused", "images without pixels")
        return
    yield from header.faults
    yield from _value_findings(header)
    claimed = math.prod((*header.matrix, header.n_frames))
    if claimed > DEFAULT_MAX_VOXELS and header.n_frames > 1:
        message = f"{header.n_frames} frames of {header.matrix[0]} x {header.matrix[1]} pixels"
        yield Finding("too-large", "refused", f"{message}; at most {DEFAULT_MAX_VOXELS} in all")
    if header.matrix[0] * header.matrix[1] > MAX_SLICE_PIXELS:
        message = f"images of {header.matrix[0]} x {header.matrix[1]} pixels"
        yield Finding("too-large", "refused", f"{message}; at most {MAX_SLICE_PIXELS} are allowed")
    else:
        yield from _length_findings(header, header.matrix)
    if header.rescale is None and not header.faults:
        yield Finding(
            "no-rescale", "warning", "slope or intercept is absent: values are taken for HU"
        )
    if pixels.photometric == "MONOCHROME1":
        yield Finding(
            "missing-tags", "warning", "MONOCHROME1: HU are taken by rescale all the same"
        )
    if any(word in PROJECTIONS for word in header.image_type):
        message = "the highest, lowest or mean values of slabs (ImageType), not a CT's own"
        yield Finding("not-hounsfield", "warning", message)
    if header.absent:
        yield Finding("missing-tags", "warning", f"missing tags: {', '.join(header.absent)}")
    if not header.series_uid:
        message = "SeriesInstanceUID is empty: images of one folder are taken for one series"
        yield Finding("empty-uids", "warning", message)
    if header.uids_from_meta:
        yield Finding("empty-uids", "warning", "SOP UIDs are empty; the file-meta ones are used")


def _value_findings(header: SliceHeader) -> Iterator[Finding]:
    """Find values that are no Hounsfield units any more, or can't be told from their bits."""
    allocated, stored, high = header.pixels.bits
    if 0 < stored <= 8:
        yield Finding("eight-bit", "refused", f"not usable for HU: {stored} bits a pixel")
    elif allocated not in (16, 32) or stored > allocated or high != stored - 1:
        message = f"values of {stored} of {allocated} bits, the highest bit {high}"
        yield Finding("bad-tags", "refused", f"{message}: not how a CT is stored")
    if header.pixels.lossy:
        yield Finding("lossy", "refused", "not usable for HU: lossy compression")
    elif header.pixels.lossy is None:
        yield Finding("lossy", "warning", "the compression may be lossy; the header doesn't say")


def _length_findings(header: SliceHeader, matrix: tuple[int, int]) -> Iterator[Finding]:
    """Hold the length of the image against rows, columns and frames."""
    element, name = header.pixels.element, header.path.name
    compressed = is_compressed(header.pixels.syntax)
    if element is None:
        return
    if compressed != (element.length is None):
        found = "encapsulated" if element.length is None else "not encapsulated"
        message = f"{name}: pixels are {found}, against the transfer syntax"
        yield Finding("bad-tags", "refused", message)
        return
    if element.length is None:
        return
    bytes_each = max(1, header.pixels.bits[0] // 8)
    needed = matrix[0] * matrix[1] * header.n_frames * bytes_each
    if element.available < max(needed, element.length):
        message = f"{name}: the file ends before its image does"
        yield Finding("truncated", "refused", message)
    elif element.length < needed or element.length - needed >= min(matrix) * bytes_each:
        message = f"{name}: the image has {element.length} bytes; rows, columns and frames give"
        yield Finding("wrong-length", "refused", f"{message} {needed}")


def identity_findings(slices: Sequence[SliceHeader]) -> Iterator[Finding]:
    """Find one image given several times, and slices of several frames of reference."""
    # file-meta UIDs that stand in for empty ones may be one and the same for all files
    ids = [
        (h.sop_uid, h.frame, h.position_mm if h.uids_from_meta else None)
        for h in slices
        if h.sop_uid
    ]
    repeated = len(ids) - len(set(ids))
    if repeated:
        yield Finding(
            "duplicate-position",
            "refused",
            f"duplicate position: {repeated} of {len(slices)} files repeat the image of another "
            "(same SOP instance)",
        )
    frames = {h.frame_of_reference for h in slices}
    if len(frames) > 1:
        yield Finding(
            "mixed-orientation", "refused", f"slices of {len(frames)} frames of reference"
        )
    kernels = sorted({h.kernel for h in slices})
    if len(kernels) > 1:
        yield Finding("mixed-matrix", "warning", f"kernels are mixed: {', '.join(kernels)}")
    if len({h.rescale is None for h in slices}) > 1:
        message = "some images have slope and intercept, others have none"
        yield Finding("no-rescale", "refused", message)


def matrix_findings(slices: Sequence[SliceHeader]) -> Iterator[Finding]:
    """Find images whose rows, columns or pixel spacing differ."""
    sizes = sorted({h.matrix for h in slices if h.matrix})
    if len(sizes) > 1:
        yield Finding("mixed-matrix", "refused", f"images of {len(sizes)} sizes: {sizes[:4]}")
    spacings = np.array([h.pixel_spacing_mm for h in slices])
    if np.ptp(spacings, axis=0).max() > 1e-4 * spacings.max():
        found = sorted({tuple(float(v) for v in row) for row in spacings})[:4]
        yield Finding("mixed-matrix", "refused", f"pixel spacings differ: {found} mm")


def declared_tilt_findings(
    slices: Sequence[SliceHeader], normal: NDArray[np.float64]
) -> Iterator[Finding]:
    """Warn where GantryDetectorTilt tells of a tilt that a sound stack doesn't have."""
    tilts = [abs(h.tilt_degrees) for h in slices if h.tilt_degrees is not None]
    upright = abs(float(normal[2])) > np.cos(np.radians(NO_TILT_DEGREES))
    if upright and max(tilts, default=0.0) > 2 * NO_TILT_DEGREES:
        yield Finding(
            "sheared",
            "warning",
            f"GantryDetectorTilt says {max(tilts):g} degrees, positions and orientation show no "
            "tilt; they hold",
        )


def declared_gap_findings(slices: Sequence[SliceHeader], gap_mm: float) -> Iterator[Finding]:
    """Warn where SpacingBetweenSlices contradicts the measured gap, which holds."""
    declared = sorted({h.declared_gap_mm for h in slices if h.declared_gap_mm is not None})
    wrong = [gap for gap in declared if abs(gap - gap_mm) > DECLARED_GAP_TOLERANCE * gap_mm]
    if wrong:
        listed = ", ".join(f"{gap:g}" for gap in wrong[:4])
        yield Finding(
            "irregular-spacing",
            "warning",
            f"SpacingBetweenSlices says {listed} mm, the positions say {gap_mm:.4g} mm; the "
            "positions hold",
        )
