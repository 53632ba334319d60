"""What a mask is held against, and what every kind of mask file can answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nognet.data.ct.image import CtReading
from nognet.data.findings import Finding
from nognet.data.masks.grid import Block
from nognet.errors import GeometryError, SiteDataError
from nognet.types import Geometry

_NAMES_SHOWN = 12


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
class Identity:
    """What a mask file says of itself and of the series it was drawn on.

    Attributes:
        modality: ``SEG``, ``RTSTRUCT``, ``NIFTI``, ``NRRD`` or ``MHA``.
        series_uid: The mask's own SeriesInstanceUID; empty for files that have none.
        referenced: Series it was drawn on; empty where it names none.
        frame_of_reference: FrameOfReferenceUID of its positions; empty where it names none.
        slices: Frames of a SEG, slices of an image, 0 for contours.
        geometry: Its own grid; None for contours.
    """

    modality: str
    series_uid: str = ""
    referenced: tuple[str, ...] = ()
    frame_of_reference: str = ""
    slices: int = 0
    geometry: Geometry | None = None


class MaskFile(Protocol):
    """A mask file whose segments can be laid on the grid of a CT one by one."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def identity(self) -> Identity:
        """What the file says of itself."""

    @property
    def names(self) -> Mapping[int, str]:
        """Names of the segments by their number; empty where a segment has none."""

    def on(self, number: int, grid: Geometry) -> tuple[Block, tuple[Finding, ...]]:
        """Lay one segment on a grid.

        Raises:
            GeometryError: it doesn't lie on that grid, or only in part.
            SiteDataError: it is empty, grey or damaged.
        """


def check_identity(mask: MaskFile, source: MaskSource) -> tuple[Finding, ...]:
    """Refuse a mask drawn on another series, unless both share a frame of reference.

    Raises:
        GeometryError: series or frame of reference are another's.
    """
    identity = mask.identity
    theirs, ours = identity.frame_of_reference, source.frame_of_reference
    if source.series_uid and identity.referenced:
        if source.series_uid in identity.referenced:
            return ()
        message = (
            f"{mask.path}: the mask was drawn on series {identity.referenced[0]}, not on "
            f"{source.series_uid}"
        )
        if theirs and theirs == ours:
            same = f"{message}; both share the frame of reference, so positions hold"
            return (Finding("mask-other-series", "warning", same),)
        raise GeometryError(f"{message}; give the series it belongs to", code="mask-other-series")
    if theirs and ours and theirs != ours:
        raise GeometryError(
            f"{mask.path}: the mask's positions are of another frame of reference ({theirs}) than "
            f"the CT's ({ours}); give the series it belongs to",
            code="mask-other-series",
        )
    return ()


def choose_segment(mask: MaskFile, segment: str | None) -> int:
    """Find the number of a segment given by its name or number.

    Raises:
        SiteDataError: none or several match, or a choice is needed and none was given.
    """
    names = mask.names
    if segment is None:
        if len(names) == 1:
            return next(iter(names))
        raise SiteDataError(
            f"{mask.path}: {len(names)} segments ({listed(names)}); name one in the column "
            "'segment'",
            code="mask-segment",
        )
    by_name = [number for number, name in names.items() if name and name == segment]
    if not by_name and segment.isdecimal() and int(segment) in names:
        return int(segment)
    if len(by_name) != 1:
        found = "no segment" if not by_name else f"{len(by_name)} segments"
        raise SiteDataError(
            f"{mask.path}: {found} '{segment}'; it holds {listed(names)}", code="mask-segment"
        )
    return by_name[0]


def listed(names: Mapping[int, str]) -> str:
    """List segments for a message, the first dozen."""
    shown = [f"{n} '{name}'" if name else f"{n}" for n, name in sorted(names.items())]
    more = f" ... {len(shown) - _NAMES_SHOWN} more" if len(shown) > _NAMES_SHOWN else ""
    return (", ".join(shown[:_NAMES_SHOWN]) + more) or "none"
