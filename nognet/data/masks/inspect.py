"""Say of a mask file what holds, without raising: the row of `nognet inspect`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nognet.config import PreparationConfig
from nognet.data.ct.header import has_dicom_mark, read_dataset
from nognet.data.ct.tags import text_of
from nognet.data.findings import Finding, Severity
from nognet.data.inspection import Inspected
from nognet.data.masks.image_file import LabelImage, grey_error
from nognet.data.masks.nodules import read_parts
from nognet.data.masks.opening import modality_of, open_mask
from nognet.data.masks.rtstruct import open_structures
from nognet.data.masks.seg import referenced_by_seg
from nognet.data.masks.source import MaskFile, MaskSource, check_identity, listed
from nognet.data.pairs.roi import nodule_volume_mm3
from nognet.errors import GeometryError, NognetError, SiteDataError
from nognet.types import Geometry

DEFAULT_LIMITS = PreparationConfig()
_SHOWN = 12
_Judged = tuple[list[Finding], dict[int, float]]
"""What was found, and the volume of each usable segment by its number."""
_PLANES = ("sagittal", "coronal", "axial")


def referenced_series(path: Path) -> tuple[str, ...]:
    """List the series that a SEG or RTSTRUCT was drawn on; none for others and unreadable ones."""
    try:
        if not path.is_file() or not has_dicom_mark(path):
            return ()
        data, _ = read_dataset(path)
    except (NognetError, OSError):
        return ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd values are judged by us, tag by tag
        modality = text_of(data, "Modality")
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
        return Inspected(str(path), "mask", modality_of(path), findings=(_refusal(err),))
    except OSError as err:
        message = f"{path}: the file can't be read ({err.strerror})"
        return Inspected(
            str(path), "mask", "", findings=(Finding("unreadable", "refused", message),)
        )
    findings, volumes_mm3 = (
        _image_findings(mask, sources, limits)
        if isinstance(mask, LabelImage)
        else _dicom_findings(mask, sources, limits)
    )
    return replace(
        header_row(mask),
        path=str(path),
        findings=tuple(dict.fromkeys(findings)),
        note=_several(mask, volumes_mm3),
    )


def header_row(mask: MaskFile) -> Inspected:
    """Write down what the header of a mask says, judging nothing."""
    identity = mask.identity
    geometry = identity.geometry
    return Inspected(
        path=str(mask.path),
        kind="mask",
        modality=identity.modality,
        series_uid=identity.series_uid,
        slices=identity.slices,
        size=geometry.size if geometry else None,
        spacing_mm=geometry.spacing_mm if geometry else None,
        orientation=_plane(geometry) if geometry else "",
    )


def _refusal(err: NognetError, severity: Severity = "refused") -> Finding:
    return Finding(err.code, severity, str(err))


def _image_findings(
    image: LabelImage, sources: Sequence[MaskSource], limits: PreparationConfig
) -> _Judged:
    """Collect all that holds of an image: empty, grey, on another grid."""
    if not image.grey and not image.names:
        return [Finding("mask-empty", "refused", f"{image.path}: the mask is empty")], {}
    findings = [_refusal(grey_error(image))] if image.grey else []
    if not sources:
        return [*findings, _unchecked(image)], {}
    source, refused = _best(image, sources)
    if image.grey:
        return [*findings, *refused], {}
    # label by label, for some may lie on the CT where others don't
    return _segment_findings(image, source, limits)


def _best(
    image: LabelImage, sources: Sequence[MaskSource]
) -> tuple[MaskSource, tuple[Finding, ...]]:
    """Find the CT that an image lies on: of its own grid, or else any; or say why it doesn't."""
    alike = [source for source in sources if _alike(image.identity.geometry, source.grid)]
    resampled: MaskSource | None = None
    refused: tuple[Finding, ...] = ()
    for source in alike or sources:
        try:
            if not image.extent_on(source.grid):
                return source, ()
            resampled = resampled or source
        except SiteDataError as err:
            refused = refused or (_refusal(err),)
    return (resampled, ()) if resampled else ((alike or sources)[0], refused)


def _alike(mask: Geometry | None, grid: Geometry) -> bool:
    """Tell whether two grids have as many voxels of the same spacing, wherever they lie."""
    if mask is None:
        return False
    ours, theirs = (sorted(zip(g.size, g.spacing_mm, strict=True)) for g in (mask, grid))
    return bool(np.allclose(np.array(ours), np.array(theirs), rtol=1e-3))


def _dicom_findings(
    mask: MaskFile, sources: Sequence[MaskSource], limits: PreparationConfig
) -> _Judged:
    """Hold a SEG or RTSTRUCT against the CT that it names."""
    if not mask.names:
        return [Finding("mask-empty", "refused", f"{mask.path}: there are no segments")], {}
    source = _source_of(mask, sources)
    if source is None:
        return [_unchecked(mask)], {}
    try:
        findings = list(check_identity(mask, source))
    except GeometryError as err:
        findings = [_refusal(err)]
    of_segments, volumes_mm3 = _segment_findings(mask, source, limits)
    return [*findings, *of_segments], volumes_mm3


def _segment_findings(mask: MaskFile, source: MaskSource, limits: PreparationConfig) -> _Judged:
    """Lay every segment on its CT and say what became of each; one usable is enough."""
    findings: list[Finding] = []
    volumes: dict[int, float] = {}
    failed: list[SiteDataError] = []
    for number in sorted(mask.names):
        try:
            parts, found = read_parts(mask, number, source, limits)
        except SiteDataError as err:
            failed.append(err)
            continue
        findings += found
        volumes[number] = sum(nodule_volume_mm3(nodule) for nodule in parts.nodules)
    findings += [_refusal(err, "warning" if volumes else "refused") for err in failed]
    return findings, volumes


def _source_of(mask: MaskFile, sources: Sequence[MaskSource]) -> MaskSource | None:
    """Find the CT that a SEG or RTSTRUCT names, else one of its frame of reference, else any."""
    identity = mask.identity
    named = [s for s in sources if s.series_uid and s.series_uid in identity.referenced]
    frame = identity.frame_of_reference
    same_frame = [s for s in sources if frame and s.frame_of_reference == frame]
    nameless = [s for s in sources if not s.series_uid or not identity.referenced]
    return next(iter([*named, *same_frame, *nameless]), None)


def _several(mask: MaskFile, volumes_mm3: Mapping[int, float]) -> str:
    """Tell of several segments: no fault, each is a nodule of its own unless one is named."""
    if len(mask.names) < 2:
        return ""
    shown = [f"{_named(mask, n)} {v:.1f} mm3" for n, v in list(volumes_mm3.items())[:_SHOWN]]
    more = f" ... {len(volumes_mm3) - _SHOWN} more" * (len(volumes_mm3) > _SHOWN)
    usable = f": {', '.join(shown)}{more}" if shown else f" ({listed(mask.names)})"
    return (
        f"{len(mask.names)} segments{usable}; each is a nodule of its own unless the column "
        "'segment' names one"
    )


def _named(mask: MaskFile, number: int) -> str:
    return f"'{mask.names[number]}'" if mask.names[number] else str(number)


def _unchecked(mask: MaskFile) -> Finding:
    """Say that there was no CT to hold the mask against."""
    referenced = mask.identity.referenced
    if referenced:
        message = f"{mask.path}: drawn on series {referenced[0]}; no usable CT of it is here"
        return Finding("mask-other-series", "warning", message)
    message = f"{mask.path}: no usable CT is here that it could be held against"
    return Finding("mask-other-series", "warning", message)


def _plane(geometry: Geometry) -> str:
    return _PLANES[int(np.abs(np.array(geometry.direction)[:, 2]).argmax())]
