"""Read one nodule's mask onto the grid of its CT, whatever it was stored as."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nognet.config import PreparationConfig
from nognet.data.findings import Finding
from nognet.data.masks.image_file import LabelImage, grey_error
from nognet.data.masks.opening import open_mask
from nognet.data.masks.source import (
    MaskFile,
    MaskSource,
    check_identity,
    choose_segment,
    listed,
)
from nognet.errors import SiteDataError
from nognet.types import Volume

DEFAULT_MAX_VOXELS: int = PreparationConfig.model_fields["max_volume_voxels"].default

__all__ = ["MaskReading", "MaskSource", "read_mask", "read_mask_with_findings"]


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
    path: Path,
    source: MaskSource,
    segment: str | None = None,
    *,
    max_voxels: int = DEFAULT_MAX_VOXELS,
) -> MaskReading:
    """Read a mask onto its CT's grid; where identities are known they must agree.

    Raises:
        GeometryError: the mask doesn't lie on the image, or was drawn on another one.
        SiteDataError: it can't be read, is empty, grey, or the segment isn't there.
    """
    mask = open_mask(path, max_voxels=max_voxels)
    check_content(mask)
    number = chosen(mask, segment)
    found = check_identity(mask, source)
    block, findings = mask.on(number, source.grid)
    return MaskReading(block.full(source.grid), (*found, *findings))


def check_content(mask: MaskFile) -> None:
    """Refuse a mask that is grey or has nothing in it.

    Raises:
        SiteDataError: it is.
    """
    if isinstance(mask, LabelImage) and mask.grey:
        raise grey_error(mask)
    if not mask.names:
        raise SiteDataError(f"{mask.path}: the mask is empty", code="mask-empty")


def chosen(mask: MaskFile, segment: str | None) -> int:
    """Find the number of the one segment that is meant.

    Raises:
        SiteDataError: none or several match, or a choice is needed and none was given.
    """
    if isinstance(mask, LabelImage) and segment is None and len(mask.names) > 1:
        raise SiteDataError(
            f"{mask.path}: not binary: {len(mask.names)} labels ({listed(mask.names)}); give the "
            "label in the column 'segment', or save the mask as 0 and 1",
            code="mask-not-binary",
        )
    return choose_segment(mask, segment)
