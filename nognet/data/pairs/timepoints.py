"""A patient's time points: one CT with all nodules that the table names on it.

Reading a time point never raises on what its files hold: what can't be used is a finding on the
CT or on the row of the table, so that the other rows go on.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from nognet.config import PreparationConfig
from nognet.data.ct.image import CtReading
from nognet.data.findings import Finding, without_repeats
from nognet.data.inspect_tree import examine_ct
from nognet.data.inspection import Inspected
from nognet.data.masks.inspect import examine_mask, header_row
from nognet.data.masks.nodules import NodulesReading, judge_density, nodules_of
from nognet.data.masks.opening import open_mask
from nognet.data.masks.source import MaskFile, MaskSource
from nognet.data.pairs.places import UNFORESEEN, Places
from nognet.data.site.studies import EVERY_NODULE, StudyRow
from nognet.errors import NognetError
from nognet.types import Volume

NOTHING: Mapping[Path, Finding] = MappingProxyType({})
Timed = Callable[[str], contextlib.AbstractContextManager[None]]
"""Measures the phase of that name."""


@dataclass(frozen=True)
class TimePoint:
    """A CT of a patient and the rows of the table that are about it.

    Attributes:
        date: Day of the CT by the table.
        image: Where the CT lies.
        series: The series wanted there; None where the table doesn't say.
        rows: Sorted by nodule and mask, so that their places don't depend on the table's order.
    """

    date: dt.date
    image: Path
    series: str | None
    rows: tuple[StudyRow, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the nodules, in the order of the rows."""
        return tuple(row.nodule for row in self.rows)

    @property
    def lines(self) -> tuple[int, ...]:
        """Lines of the table, in the order of the rows."""
        return tuple(row.line for row in self.rows)

    @property
    def paths(self) -> tuple[Path, ...]:
        """All places that the rows name: the CT, then the masks."""
        return (self.image, *(row.mask for row in self.rows if row.mask is not None))


@dataclass(frozen=True)
class Part:
    """One nodule of a mask.

    Attributes:
        place: Place of its row among the time point's rows.
        name: Name of the nodule in the table.
        label: Which part of the mask; empty where the mask holds one nodule.
        mask: Cropped to the nodule, on a part of the CT's grid.
        findings: What this nodule alone is warned of.
    """

    place: int
    name: str
    label: str
    mask: Volume
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class TimeReading:
    """A time point as read.

    Attributes:
        ct: None where the CT is refused.
        ct_row: All that was found on the CT.
        mask_rows: The same of each row's mask, in the order of the rows.
        parts: Every nodule of every mask that could be read.
    """

    ct: CtReading | None
    ct_row: Inspected
    mask_rows: tuple[Inspected, ...]
    parts: tuple[Part, ...] = field(repr=False)

    def refusals(self, place: int) -> tuple[Finding, ...]:
        """Say why a row can't be used: its CT, or its mask."""
        rows = (self.ct_row, self.mask_rows[place])
        return tuple(f for row in rows for f in row.findings if f.severity == "refused")

    def warnings(self, place: int) -> tuple[Finding, ...]:
        """Say what a row is warned of."""
        rows = (self.ct_row, self.mask_rows[place])
        return tuple(f for row in rows for f in row.findings if f.severity == "warning")

    def shown(self, place: int) -> Inspected:
        """Give a row's mask with what its nodules are warned of."""
        row = self.mask_rows[place]
        of_parts = [f for part in self.parts if part.place == place for f in part.findings]
        return replace(row, findings=without_repeats((*row.findings, *of_parts)))

    def parts_of(self, place: int) -> tuple[int, ...]:
        """Give the places in `parts` of the nodules of a row."""
        return tuple(k for k, part in enumerate(self.parts) if part.place == place)


def time_points(rows: Sequence[StudyRow]) -> tuple[TimePoint, ...]:
    """Group a patient's rows by date, CT and series, in order of time."""
    groups: dict[tuple[dt.date, Path, str], list[StudyRow]] = {}
    for row in rows:
        groups.setdefault((row.date, row.image, row.series or ""), []).append(row)
    return tuple(
        TimePoint(
            date, image, series or None, tuple(sorted(group, key=lambda r: (r.nodule, str(r.mask))))
        )
        for (date, image, series), group in sorted(groups.items())
    )


def points_before(point: TimePoint, points: Sequence[TimePoint]) -> tuple[TimePoint, ...]:
    """Give the time points of the patient's last date before a time point's."""
    earlier = [other for other in points if other.date < point.date]
    last = max((other.date for other in earlier), default=None)
    return tuple(other for other in earlier if other.date == last)


def moment_of(point: TimePoint, name: str, points: Sequence[TimePoint]) -> str:
    """Name a nodule's time for its pseudonym: the date, numbered where one day has several CTs."""
    same = [p for p in points if p.date == point.date and (p == point or name in p.names)]
    number = same.index(point)
    return point.date.isoformat() + (f".{number + 1}" if number else "")


def untimed(_: str) -> contextlib.AbstractContextManager[None]:
    """Time nothing."""
    return contextlib.nullcontext()


def read_time(
    point: TimePoint,
    limits: PreparationConfig,
    *,
    unreadable: Mapping[Path, Finding] = NOTHING,
    timed: Timed = untimed,
) -> TimeReading:
    """Read a CT and all masks on it, each once; archives are unpacked for as long as that takes.

    Args:
        point: What to read.
        limits: The site's limits.
        unreadable: Places that are known to be unreadable, with the reason.
        timed: Told which phase runs (``reading`` of the CT, ``masks``), for as long as it does.
    """
    with contextlib.ExitStack() as stack:
        places = Places(stack, limits.max_unpacked_bytes)
        with timed("masks"):
            files = {
                path: _opened(places, path, unreadable, limits)
                for path in dict.fromkeys(row.mask for row in point.rows)
            }
            opened = [files[row.mask] for row in point.rows]
        row = Inspected(str(point.image), "ct", "")
        if point.image in unreadable:
            refused = replace(row, findings=(unreadable[point.image],))
            return TimeReading(None, refused, _unjudged(point), ())
        try:
            masks = [mask for mask in opened if not isinstance(mask, Inspected)]
            prefer = [uid for mask in masks for uid in mask.identity.referenced]
            with timed("reading"):
                image = places.of(point.image)
                examined = examine_ct(image, point.series, prefer=prefer, limits=limits)
        except (NognetError, *UNFORESEEN) as err:
            refused = replace(row, findings=(places.finding(err),))
            return TimeReading(None, refused, _unjudged(point), ())
        ct, grid = examined.reading, examined.geometry
        ct_row = places.shown(examined.row, point.image)
        source = MaskSource.of(ct) if ct is not None else None
        if source is None and grid is not None:
            source = MaskSource(grid, ct_row.series_uid, examined.frame_of_reference)
        parts: list[Part] = []
        mask_rows: list[Inspected] = []
        for place, (study, mask) in enumerate(zip(point.rows, opened, strict=True)):
            with timed("masks"):
                mask_row, found = _read_mask(places, study, mask, source, limits)
            if ct is not None and found is not None:
                parts += _parts(place, study.nodule, found, ct)
            mask_rows.append(mask_row)
        return TimeReading(ct, ct_row, tuple(mask_rows), tuple(parts))


def _opened(
    places: Places,
    mask: Path | None,
    unreadable: Mapping[Path, Finding],
    limits: PreparationConfig,
) -> MaskFile | Inspected:
    """Open a mask file once for all rows that name it; a row where it can't be opened."""
    row = Inspected(str(mask or "-"), "mask", "")
    if mask is None:
        absent = Finding("mask-absent", "refused", "the table names no mask")
        return replace(row, findings=(absent,))
    if mask in unreadable:
        return replace(row, findings=(unreadable[mask],))
    try:
        path = places.of(mask)
        return open_mask(path, max_voxels=limits.max_volume_voxels)
    except (NognetError, *UNFORESEEN) as err:
        return replace(row, findings=(places.finding(err),))


def _read_mask(
    places: Places,
    study: StudyRow,
    mask: MaskFile | Inspected,
    source: MaskSource | None,
    limits: PreparationConfig,
) -> tuple[Inspected, NodulesReading | None]:
    """Read the nodules of a row, and say all that is known of its mask."""
    if isinstance(mask, Inspected):
        return mask, None
    path = study.mask or Path("-")
    reading: NodulesReading | None = None
    refused: tuple[Finding, ...] = ()
    row = header_row(mask)
    try:
        if source is not None:
            reading = nodules_of(mask, source, study.segment, limits=limits)
    except (NognetError, *UNFORESEEN) as err:
        refused = (places.finding(err),)
    if reading is None:
        with contextlib.suppress(NognetError, *UNFORESEEN):  # it is refused in any case
            row = examine_mask(mask.path, [source] if source else [], limits=limits)
        row = places.shown(row, path)
        codes = {finding.code for finding in refused}
        others = tuple(f for f in row.findings if f.code not in codes)
        return replace(row, findings=(*refused, *others)), None
    row = places.shown(row, path)
    told = without_repeats(replace(f, message=places.words(f.message)) for f in reading.findings)
    if study.nodule == EVERY_NODULE:  # that each segment is a nodule is what was asked for
        told = tuple(f for f in told if f.code != "mask-segment")
    return replace(row, findings=told), reading


def _parts(place: int, name: str, reading: NodulesReading, ct: CtReading) -> Iterator[Part]:
    """List a mask's nodules, each label once."""
    seen: Counter[str] = Counter()
    for nodule in reading.nodules:
        seen[nodule.label] += 1
        label = nodule.label + (f"#{seen[nodule.label]}" if seen[nodule.label] > 1 else "")
        found = judge_density(nodule.mask, ct.volume)
        if label:
            found = tuple(replace(f, message=f"nodule {label}: {f.message}") for f in found)
        yield Part(place, name, label, nodule.mask, found)


def _unjudged(point: TimePoint) -> tuple[Inspected, ...]:
    """Give the masks' rows where their CT couldn't be opened."""
    rows = []
    for row in point.rows:
        absent = Finding("mask-absent", "refused", "the table names no mask")
        aside = Finding("no-series", "skipped", "not looked at: its CT can't be used")
        found = absent if row.mask is None else aside
        rows.append(Inspected(str(row.mask or "-"), "mask", "", findings=(found,)))
    return tuple(rows)
