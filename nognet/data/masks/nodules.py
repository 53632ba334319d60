"""Read every nodule of a mask: segments and labels apart, and each in its connected parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nognet.config import PreparationConfig
from nognet.data.findings import Finding
from nognet.data.masks.components import Parts, split
from nognet.data.masks.opening import open_mask
from nognet.data.masks.reading import check_content
from nognet.data.masks.source import (
    MaskFile,
    MaskSource,
    check_identity,
    choose_segment,
    listed,
)
from nognet.errors import GeometryError, SiteDataError
from nognet.types import Volume

MAX_MISSING_FRACTION = 0.2
"""A mask is refused when slices left out in several places would hold this part of its volume."""
WARN_MISSING_FRACTION = 0.02
"""Likewise warned of."""
AIR_INSIDE_HU = -850.0
"""A nodule's mean HU is above this: the thinnest ground glass has -750, normal lung -870."""


@dataclass(frozen=True)
class NoduleMask:
    """One nodule.

    Attributes:
        label: Empty where it is the only one of the file; else the segment's name (its number
            where it has none), with ``.2``, ``.3`` for further parts of one segment; plain
            numbers in a binary image.
        mask: ``(d, h, w)`` uint8 in {0, 1} on the CT's lattice, cropped with a rim of one voxel.
    """

    label: str
    mask: Volume


@dataclass(frozen=True)
class NodulesReading:
    """The nodules of a mask file, at least one, and what was found on it."""

    nodules: tuple[NoduleMask, ...]
    findings: tuple[Finding, ...]


def read_nodules(
    path: Path, source: MaskSource, segment: str | None, *, limits: PreparationConfig
) -> NodulesReading:
    """Read the nodules of a mask, on the lattice of their CT.

    Args:
        path: DICOM SEG, RTSTRUCT, NIfTI, NRRD or MHA; or a folder that holds one such DICOM file.
        source: The CT it was drawn on.
        segment: Name or number of one segment; None for all of them.
        limits: Give gap, least volume, and most voxels.

    Returns:
        Segments by number, their parts by size. A segment of several that can't be used is left
        out with a warning; where one was asked for, or none is usable, it is an error.

    Raises:
        GeometryError: the mask doesn't lie on the image, or was drawn on another one.
        SiteDataError: it can't be read, is empty, grey, or the segment isn't there.
    """
    mask = open_mask(path, max_voxels=limits.max_volume_voxels)
    return nodules_of(mask, source, segment, limits=limits)


def nodules_of(
    mask: MaskFile, source: MaskSource, segment: str | None, *, limits: PreparationConfig
) -> NodulesReading:
    """Read the nodules of a mask file that was opened already; see `read_nodules`.

    Raises:
        GeometryError: the mask doesn't lie on the image, or was drawn on another one.
        SiteDataError: it can't be read, is empty, grey, or the segment isn't there.
    """
    check_content(mask)
    numbers = sorted(mask.names) if segment is None else [choose_segment(mask, segment)]
    findings = list(check_identity(mask, source))
    parts: dict[int, Parts] = {}
    failed: list[SiteDataError] = []
    for number in numbers:
        try:
            parts[number], found = read_parts(mask, number, source, limits)
        except SiteDataError as err:
            failed.append(err)
            continue
        findings += found
    if not parts:
        raise _all_failed(mask, failed)
    findings += [Finding(err.code, "warning", f"left out: {err}") for err in failed]
    if len(parts) > 1:
        findings.append(_several(mask, numbers))
    return NodulesReading(_labelled(mask.names, parts), tuple(dict.fromkeys(findings)))


def read_parts(
    mask: MaskFile, number: int, source: MaskSource, limits: PreparationConfig
) -> tuple[Parts, tuple[Finding, ...]]:
    """Lay one segment on its CT and split it into nodules.

    Raises:
        GeometryError: it doesn't lie on the CT, or was drawn on some slices only.
        SiteDataError: it is empty, grey or damaged.
    """
    block, findings = mask.on(number, source.grid)
    parts = split(
        block.volume(source.grid),
        gap_mm=limits.nodule_gap_mm,
        min_volume_mm3=limits.min_nodule_volume_mm3,
    )
    undrawn = _undrawn(mask, number, parts)
    return parts, (*findings, *undrawn, *_specks(mask, number, parts, limits))


def _undrawn(mask: MaskFile, number: int, parts: Parts) -> tuple[Finding, ...]:
    """Refuse a segment drawn on every other slice or so, warn of some left out.

    Raises:
        GeometryError: several gaps hold a good part of the volume.
    """
    if parts.missing_fraction < WARN_MISSING_FRACTION:
        return ()
    message = (
        f"{mask.path}: segment {number}: slices between its parts are empty ({parts.undrawn} in "
        f"{parts.gaps} places, about {100 * parts.missing_fraction:.0f} % of its volume)"
    )
    if parts.missing_fraction < MAX_MISSING_FRACTION or parts.gaps < 2:
        return (Finding("mask-incomplete", "warning", message),)
    raise GeometryError(
        f"{message}: volume incomplete; draw the nodule on every slice", code="mask-incomplete"
    )


def mean_hu_inside(nodule: Volume, ct: Volume) -> float:
    """Average a CT's HU over a nodule on the CT's lattice; NaN where no voxel lies on it."""
    index = np.argwhere(nodule.array)[:, ::-1].astype(np.float64)
    on_ct = np.round(ct.geometry.world_to_index(nodule.geometry.index_to_world(index)))
    inside = np.all((on_ct >= 0) & (on_ct < np.array(ct.geometry.size)), axis=1)
    if not inside.any():
        return float("nan")
    x, y, z = on_ct[inside].astype(np.int64).T
    return float(ct.array[z, y, x].mean(dtype=np.float64))


def judge_density(nodule: Volume, ct: Volume) -> tuple[Finding, ...]:
    """Warn of a mask that holds lung or air alone: it was drawn on another time's CT, or shifted.

    Geometry can't tell such a mask from a right one where both CTs have like grids.
    """
    mean = mean_hu_inside(nodule, ct)
    if mean >= AIR_INSIDE_HU:
        return ()
    message = (
        f"the mask holds {mean:.0f} HU on average, as air or healthy lung do (nodules are above "
        f"{AIR_INSIDE_HU:.0f}): was it drawn on this CT?"
    )
    return (Finding("mask-geometry", "warning", message),)


def _specks(
    mask: MaskFile, number: int, parts: Parts, limits: PreparationConfig
) -> tuple[Finding, ...]:
    if not parts.specks_mm3:
        return ()
    name = mask.names[number]
    of_segment = (
        f" of segment {number}{f' {name!r}' if name else ''}" if len(mask.names) > 1 else ""
    )
    count, total = len(parts.specks_mm3), sum(parts.specks_mm3)
    message = (
        f"{mask.path}: {count} part{'s' * (count > 1)}{of_segment} of {total:.1f} mm3 in all, each "
        f"below {limits.min_nodule_volume_mm3:g} mm3, left aside"
    )
    return (Finding("mask-specks", "warning", message),)


def _several(mask: MaskFile, numbers: list[int]) -> Finding:
    names = {number: mask.names[number] for number in numbers}
    message = (
        f"{mask.path}: {len(names)} segments ({listed(names)}), each taken for a nodule of its "
        "own; name one in the column 'segment' where others are no nodules"
    )
    return Finding("mask-segment", "warning", message)


def _all_failed(mask: MaskFile, failed: list[SiteDataError]) -> SiteDataError:
    first = failed[0]
    if len(failed) == 1:
        return first
    words = "; ".join(dict.fromkeys(str(err) for err in failed))
    kind = GeometryError if isinstance(first, GeometryError) else SiteDataError
    return kind(f"{mask.path}: none of {len(failed)} segments is usable: {words}", code=first.code)


def _labelled(names: Mapping[int, str], parts: Mapping[int, Parts]) -> tuple[NoduleMask, ...]:
    """Name every nodule, no two alike."""
    volumes = [(number, part, v) for number, p in parts.items() for part, v in enumerate(p.nodules)]
    if len(volumes) == 1:
        return (NoduleMask("", volumes[0][2]),)
    if len(names) == 1 and not any(names.values()):  # a binary image has no word for its parts
        return tuple(NoduleMask(str(part + 1), v) for _, part, v in volumes)
    plain = {number: name or str(number) for number, name in names.items()}
    labels = [plain[n] + (f".{part + 1}" if part else "") for n, part, _ in volumes]
    often = Counter(labels)
    return tuple(
        NoduleMask(label if often[label] == 1 else f"{label} ({number})", v)
        for label, (number, _, v) in zip(labels, volumes, strict=True)
    )
