"""Hold each mask against the CT it was drawn on, among all those below a path."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk

from nognet.config import PreparationConfig
from nognet.data.findings import Finding, without_repeats
from nognet.data.inspect_tree.examine import DAMAGE, refusal
from nognet.data.inspect_tree.grouping import common
from nognet.data.inspect_tree.walk import Found
from nognet.data.inspection import Inspected
from nognet.data.masks.inspect import examine_mask, referenced_series
from nognet.data.masks.opening import open_mask
from nognet.data.masks.source import MaskSource
from nognet.errors import NognetError, SiteDataError

NOT_CHECKED = "mask-other-series"
GRID_TOLERANCE_MM = 0.01


@dataclass(frozen=True)
class KnownCt:
    """A CT below the path.

    Attributes:
        source: What masks are held against; None where its slices make no volume.
        place: Parts of the path of its folder.
        row: What is known of it.
    """

    source: MaskSource | None
    place: tuple[str, ...]
    row: Inspected

    @property
    def frame(self) -> str:
        """Its frame of reference; empty where not known."""
        return self.source.frame_of_reference if self.source else ""


@dataclass(frozen=True)
class MaskFile:
    """A mask to be examined.

    Attributes:
        found: The file.
        modality: ``SEG``, ``RTSTRUCT``, or the format of an image file.
        note: Why it was taken for a mask, where that is a guess.
    """

    found: Found
    modality: str
    note: str = ""

    @property
    def is_image(self) -> bool:
        """Whether it is an image file, which names no series."""
        return self.modality not in ("SEG", "RTSTRUCT")


def mask_row(mask: MaskFile, cts: Sequence[KnownCt], limits: PreparationConfig) -> Inspected:
    """Examine a mask: refused where it fits none, warned of where nothing is there to check it by.

    Args:
        mask: The mask.
        cts: All CTs below the path.
        limits: The site's limits.
    """
    try:
        chosen = candidates(mask, cts, limits)
        sources = [ct.source for ct in chosen if ct.source is not None]
        row = examine_mask(mask.found.real, sources, limits=limits)
    except (NognetError, *DAMAGE) as err:
        finding = refusal(err, mask.found.real)
        return Inspected(mask.found.shown, "mask", mask.modality, findings=(finding,))
    findings = tuple(
        replace(f, message=f.message.removeprefix(f"{mask.found.real}: ")) for f in row.findings
    )
    note = "; ".join(filter(None, (mask.note, row.note)))
    row = replace(row, path=mask.found.shown, note=note, findings=findings)
    if sources:
        return row
    # what the mask's reader says for want of a CT is said here with more knowledge
    unchecked = (NOT_CHECKED, "mask-geometry")
    others = (f for f in row.findings if f.severity != "warning" or f.code not in unchecked)
    return replace(row, findings=without_repeats((*others, _without_source(mask, chosen, cts))))


def is_at_home(mask: MaskFile, cts: Sequence[KnownCt]) -> bool:
    """Tell whether the CT of a mask is among these for certain, whatever else there is."""
    if mask.is_image:
        return bool(cts)
    try:
        wanted = referenced_series(mask.found.real)
    except (NognetError, *DAMAGE):
        return True  # no other CT would mend it
    return any(ct.row.series_uid in wanted for ct in cts if ct.row.series_uid)


def candidates(mask: MaskFile, cts: Sequence[KnownCt], limits: PreparationConfig) -> list[KnownCt]:
    """Choose the CTs that a mask can have been drawn on, the nearest first.

    An image file names nothing: it belongs to a CT with the very same grid, else to one in its own
    folder, else to one in the nearest folder that holds both. A DICOM mask names its series; where
    that isn't there, another may share its frame of reference, and an image file beside the mask
    may be the same CT converted.
    """
    nearest = sorted(cts, key=lambda ct: -_nearness(mask, ct))
    if mask.is_image:
        return _at_nearest(mask, [ct for ct in nearest if _same_grid(mask, ct)] or nearest)
    wanted = referenced_series(mask.found.real)
    named = [ct for ct in nearest if ct.row.series_uid and ct.row.series_uid in wanted]
    if named:
        return named
    frame = _frame_of_reference(mask, limits)
    same_frame = [ct for ct in nearest if frame and ct.frame == frame]
    beside = [ct for ct in _at_nearest(mask, nearest) if not (wanted and ct.row.series_uid)]
    return same_frame or beside


def _frame_of_reference(mask: MaskFile, limits: PreparationConfig) -> str:
    with contextlib.suppress(SiteDataError, OSError):
        opened = open_mask(mask.found.real, max_voxels=limits.max_volume_voxels)
        return opened.identity.frame_of_reference
    return ""


def _at_nearest(mask: MaskFile, nearest: Sequence[KnownCt]) -> list[KnownCt]:
    return [ct for ct in nearest if _nearness(mask, ct) == _nearness(mask, nearest[0])]


def _nearness(mask: MaskFile, ct: KnownCt) -> int:
    return len(common((mask.found.place, ct.place)))


def _same_grid(mask: MaskFile, ct: KnownCt) -> bool:
    if ct.source is None:
        return False
    grid = ct.source.grid
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(mask.found.real))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return False
    if reader.GetSize() != grid.size:
        return False
    index = [[0, 0, 0], *np.diag(np.array(grid.size) - 1).tolist()]
    direction = np.reshape(reader.GetDirection(), (3, 3)) * reader.GetSpacing()
    corners = np.array(index) @ direction.T + reader.GetOrigin()
    away = np.abs(corners - grid.index_to_world(np.array(index, dtype=np.float64)))
    return bool(away.max() <= GRID_TOLERANCE_MM)


def _without_source(mask: MaskFile, chosen: Sequence[KnownCt], cts: Sequence[KnownCt]) -> Finding:
    """Say why a mask could not be checked; it is refused where its CT must be another."""
    if chosen:
        ct = chosen[0].row
        reason = f"its CT {ct.path} is refused ({' '.join(ct.codes)}): not checked"
        return Finding(NOT_CHECKED, "warning", reason)
    wanted = () if mask.is_image else referenced_series(mask.found.real)
    series = f"its series {wanted[0]}" if wanted else "its CT"
    if cts:
        return Finding(NOT_CHECKED, "refused", f"{series} is not among the CTs below the path")
    return Finding(NOT_CHECKED, "warning", f"{series} is not below the path: not checked")
