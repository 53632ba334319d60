"""Read a nodule's mask onto the grid of its CT, whatever it was stored as."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nognet.data.ct.header import read_dataset
from nognet.data.ct.image import CtReading, is_image_file
from nognet.data.ct.series import list_files
from nognet.data.findings import Finding
from nognet.data.masks.grid import place_on
from nognet.data.masks.image_file import read_mask_image
from nognet.data.masks.rtstruct import rasterise, read_structure
from nognet.data.masks.seg import read_seg
from nognet.errors import GeometryError, SiteDataError
from nognet.types import Geometry, Volume


@dataclass(frozen=True)
class MaskSource:
    """What a mask is checked against: the grid of its CT and, where known, the CT's identity."""

    grid: Geometry
    series_uid: str = ""
    frame_of_reference: str = ""

    @classmethod
    def of(cls, reading: CtReading) -> MaskSource:
        """Take the source from a CT as read."""
        return cls(reading.volume.geometry, reading.series_uid, reading.frame_of_reference)


@dataclass(frozen=True)
class MaskReading:
    """A mask on its CT's grid, ``(D, H, W)`` uint8 in {0, 1}, and what was found on it."""

    mask: NDArray[np.uint8]
    findings: tuple[Finding, ...]


def read_mask(path: Path, reference: Volume, segment: str | None = None) -> NDArray[np.uint8]:
    """Read a mask onto the grid of `reference`: ``(D, H, W)`` uint8 in {0, 1}, not empty.

    Args:
        path: DICOM SEG, RTSTRUCT, NIfTI, NRRD or MHA; or a folder that holds one such DICOM file.
        reference: The CT it was drawn on.
        segment: Label, name or number of the segment, where there are several.

    Raises:
        GeometryError: the mask doesn't lie on the image.
        SiteDataError: it can't be read, is empty, grey, or the segment isn't there.
    """
    return read_mask_with_findings(path, MaskSource(reference.geometry), segment).mask


def read_mask_with_findings(
    path: Path, source: MaskSource, segment: str | None = None
) -> MaskReading:
    """Read a mask onto its CT's grid; where identities are known they must agree.

    Raises:
        GeometryError: the mask doesn't lie on the image, or was drawn on another one.
        SiteDataError: it can't be read, is empty, grey, or the segment isn't there.
    """
    path = _single_file(path)
    if is_image_file(path):
        return _placed(read_mask_image(path, segment), source)
    modality = str(read_dataset(path)[0].get("Modality", ""))
    if modality == "SEG":
        seg = read_seg(path, segment)
        found = _check_identity(path, seg.series_uids, seg.frame_of_reference, source)
        placed = _placed(seg.volume, source)
        return MaskReading(placed.mask, (*found, *placed.findings))
    if modality == "RTSTRUCT":
        structure = read_structure(path, segment)
        found = _check_identity(path, structure.series_uids, structure.frame_of_reference, source)
        try:
            mask = rasterise(structure.contours_mm, source.grid)
        except GeometryError as err:
            raise GeometryError(f"{path}: '{structure.name}': {err}", code=err.code) from err
        if not mask.any():
            raise SiteDataError(
                f"{path}: '{structure.name}' encloses no voxel centre", code="mask-empty"
            )
        return MaskReading(mask, found)
    raise SiteDataError(
        f"{path}: modality '{modality}' is no mask; expected DICOM SEG, RTSTRUCT, NIfTI, NRRD or "
        "MHA",
        code="mask-geometry",
    )


def _placed(volume: Volume, source: MaskSource) -> MaskReading:
    mask, findings = place_on(volume.array, volume.geometry, source.grid)
    return MaskReading(mask, findings)


def _single_file(path: Path) -> Path:
    files = list_files(path)
    if len(files) != 1:
        raise SiteDataError(
            f"{path}: {len(files)} files; give the path of the one that holds the mask",
            code="mask-segment",
        )
    return files[0]


def _check_identity(
    path: Path, series_uids: tuple[str, ...], frame_of_reference: str, source: MaskSource
) -> tuple[Finding, ...]:
    """Refuse a mask drawn on another series, unless both share a frame of reference."""
    if not source.series_uid or not series_uids or source.series_uid in series_uids:
        return ()
    message = f"{path}: the mask was drawn on series {series_uids[0]}, not on {source.series_uid}"
    if frame_of_reference and frame_of_reference == source.frame_of_reference:
        same = f"{message}; both share the frame of reference, so positions hold"
        return (Finding("mask-other-series", "warning", same),)
    raise GeometryError(f"{message}; give the series it belongs to", code="mask-other-series")
