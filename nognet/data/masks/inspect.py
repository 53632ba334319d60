"""Say of a mask file what holds, without raising: the row of `nognet inspect`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nognet.config import PreparationConfig
from nognet.data.ct.header import has_dicom_mark, read_dataset
from nognet.data.findings import Finding, Severity
from nognet.data.inspection import Inspected
from nognet.data.masks.image_file import LabelImage, grey_error
from nognet.data.masks.opening import open_mask
from nognet.data.masks.rtstruct import open_structures
from nognet.data.masks.seg import referenced_by_seg
from nognet.data.masks.source import MaskFile, MaskSource, check_identity, listed
from nognet.errors import GeometryError, NognetError, SiteDataError
from nognet.types import Geometry

DEFAULT_LIMITS = PreparationConfig()
_PLANES = ("sagittal", "coronal", "axial")


def referenced_series(path: Path) -> tuple[str, ...]:
    """List the series that a SEG or RTSTRUCT was drawn on; none for others and unreadable ones."""
    try:
        if not path.is_file() or not has_dicom_mark(path):
            return ()
        data, _ = read_dataset(path)
    except (NognetError, OSError):
        return ()
    modality = str(data.get("Modality", "") or "").strip()
    if modality == "SEG":
        return referenced_by_seg(data)
    return open_structures(path, data).identity.referenced if modality == "RTSTRUCT" else ()


def examine_mask(
    path: Path, sources: Sequence[MaskSource], *, limits: PreparationConfig = DEFAULT_LIMITS
) -> Inspected:
    """Examine a mask file against the CT it belongs to; never raises on what the file holds.

    Args:
        path: The file.
        sources: CTs it may have been drawn on; the one it names is taken, else the one whose grid
            is like its own, else the first on which it lies.
        limits: Give the most voxels.
    """
    try:
        mask = open_mask(path, max_voxels=limits.max_volume_voxels)
    except NognetError as err:
        return Inspected(str(path), "mask", _modality(path), findings=(_refusal(err),))
    except OSError as err:
        message = f"{path}: the file can't be read ({err.strerror})"
        return Inspected(
            str(path), "mask", "", findings=(Finding("unreadable", "refused", message),)
        )
    findings = _image_findings(mask, sources) if isinstance(mask, LabelImage) else None
    if findings is None:
        findings = _segment_findings(mask, sources)
    identity = mask.identity
    geometry = identity.geometry
    return Inspected(
        path=str(path),
        kind="mask",
        modality=identity.modality,
        series_uid=identity.series_uid,
        slices=identity.slices,
        size=geometry.size if geometry else None,
        spacing_mm=geometry.spacing_mm if geometry else None,
        orientation=_plane(geometry) if geometry else "",
        findings=tuple(dict.fromkeys(findings)),
    )


def _modality(path: Path) -> str:
    """Name what a file that couldn't be opened claims to be."""
    try:
        return str(read_dataset(path)[0].get("Modality", "") or "") if has_dicom_mark(path) else ""
    except (NognetError, OSError):
        return ""


def _refusal(err: NognetError, severity: Severity = "refused") -> Finding:
    return Finding(err.code, severity, str(err))


def _image_findings(image: LabelImage, sources: Sequence[MaskSource]) -> list[Finding]:
    """Collect all that holds of an image: empty, grey, several labels, on another grid."""
    if not image.grey and not image.names:
        return [Finding("mask-empty", "refused", f"{image.path}: the mask is empty")]
    findings: list[Finding] = []
    if image.grey:
        findings.append(_refusal(grey_error(image)))
    elif len(image.names) > 1:
        findings.append(_several(image, ""))
    if not sources:
        return [*findings, _unchecked(image)]
    return [*findings, *_best(image, sources)]


def _best(image: LabelImage, sources: Sequence[MaskSource]) -> tuple[Finding, ...]:
    """Hold an image against the CTs of its own grid, or else against any on which it lies."""
    alike = [source for source in sources if _alike(image.identity.geometry, source.grid)]
    first: tuple[Finding, ...] | None = None
    resampled: tuple[Finding, ...] | None = None
    for source in alike or sources:
        try:
            found = image.extent_on(source.grid)
        except SiteDataError as err:
            first = first or (_refusal(err),)
            continue
        if not found:
            return ()
        resampled = resampled or found
    return resampled or first or ()


def _alike(mask: Geometry | None, grid: Geometry) -> bool:
    """Tell whether two grids have as many voxels of the same spacing, wherever they lie."""
    if mask is None:
        return False
    ours, theirs = (sorted(zip(g.size, g.spacing_mm, strict=True)) for g in (mask, grid))
    return bool(np.allclose(np.array(ours), np.array(theirs), rtol=1e-3))


def _segment_findings(mask: MaskFile, sources: Sequence[MaskSource]) -> list[Finding]:
    """Lay every segment of a SEG or RTSTRUCT on its CT and say what became of each."""
    if not mask.names:
        return [Finding("mask-empty", "refused", f"{mask.path}: there are no segments")]
    source = _source_of(mask, sources)
    if source is None:
        return [_unchecked(mask)]
    findings: list[Finding] = []
    try:
        findings += check_identity(mask, source)
    except GeometryError as err:
        findings.append(_refusal(err))
    volumes: dict[int, float] = {}
    failed: list[SiteDataError] = []
    for number in sorted(mask.names):
        try:
            block, found = mask.on(number, source.grid)
        except SiteDataError as err:
            failed.append(err)
            continue
        findings += found
        volumes[number] = float(np.count_nonzero(block.array)) * source.grid.voxel_volume_mm3
    findings += [_refusal(err, "warning" if volumes else "refused") for err in failed]
    if len(mask.names) > 1:
        usable = ", ".join(f"{_named(mask, n)} {v:.1f} mm3" for n, v in volumes.items())
        findings.append(_several(mask, f"; usable: {usable or 'none'}"))
    return findings


def _source_of(mask: MaskFile, sources: Sequence[MaskSource]) -> MaskSource | None:
    """Find the CT that a SEG or RTSTRUCT names, else one of its frame of reference, else any."""
    identity = mask.identity
    named = [s for s in sources if s.series_uid and s.series_uid in identity.referenced]
    frame = identity.frame_of_reference
    same_frame = [s for s in sources if frame and s.frame_of_reference == frame]
    nameless = [s for s in sources if not s.series_uid or not identity.referenced]
    return next(iter([*named, *same_frame, *nameless]), None)


def _several(mask: MaskFile, more: str) -> Finding:
    message = (
        f"{mask.path}: {len(mask.names)} segments ({listed(mask.names)}); name one in the column "
        f"'segment', or each is taken for a nodule of its own{more}"
    )
    return Finding("mask-segment", "warning", message)


def _named(mask: MaskFile, number: int) -> str:
    return f"'{mask.names[number]}'" if mask.names[number] else str(number)


def _unchecked(mask: MaskFile) -> Finding:
    """Say that there was no CT to hold the mask against."""
    referenced = mask.identity.referenced
    if referenced:
        message = f"{mask.path}: drawn on series {referenced[0]}, which is not here"
        return Finding("mask-other-series", "warning", message)
    message = f"{mask.path}: there is no CT here that it could be held against"
    return Finding("mask-other-series", "warning", message)


def _plane(geometry: Geometry) -> str:
    return _PLANES[int(np.abs(np.array(geometry.direction)[:, 2]).argmax())]
