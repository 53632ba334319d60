"""Follow nodules from one time to another: register around each, then ask where it lies.

A nodule of the same name at both times is verified by its place; several nodules under one name
are matched by their places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nognet.config import PreparationConfig
from nognet.data.findings import Finding, without_repeats
from nognet.data.pairs.confluence import drawn_as_one, marked_twice
from nognet.data.pairs.gate import Nearer
from nognet.data.pairs.match import distances_mm, match_nodules
from nognet.data.pairs.outcome import row_token
from nognet.data.pairs.places import UNFORESEEN
from nognet.data.pairs.register import CtWithNodule, Registration, register
from nognet.data.pairs.roi import nodule_volume_mm3
from nognet.data.pairs.timepoints import TimeReading
from nognet.data.site.studies import EVERY_NODULE
from nognet.errors import NognetError
from nognet.types import Volume

Side = Literal[0, 1]


@dataclass(frozen=True)
class SharedName:
    """A name that both times have, and the place of its row at each."""

    name: str
    places: tuple[int, int]


@dataclass(frozen=True)
class Followed:
    """A nodule and what it became.

    Attributes:
        name: As in the table.
        part: Label of the part; empty where the mask holds one nodule.
        places: Places of the rows at both times.
        findings: What speaks against it so far.
        parts: Places of the nodule among the parts of both times; None where it has no match.
        registration: The map from the baseline; None where there is no pair to cut.
        nearer: Another nodule of the follow-up that lies nearer to where this one should.
    """

    name: str
    part: str
    places: tuple[int, int]
    findings: tuple[Finding, ...]
    parts: tuple[int, int] | None = None
    registration: Registration | None = None
    nearer: Nearer | None = None


@dataclass(frozen=True)
class _Maps:
    """Registrations of the baseline's parts, and distances to all parts of the follow-up."""

    found: Mapping[int, Registration | Finding]
    distances_mm: Mapping[int, NDArray[np.float64]]

    def of(self, part: int) -> Registration | None:
        """Give the registration around a part, unless it failed."""
        found = self.found[part]
        return None if isinstance(found, Finding) else found


def follow(
    first: TimeReading,
    second: TimeReading,
    names: Sequence[SharedName],
    limits: PreparationConfig,
) -> tuple[Followed, ...]:
    """Find what each nodule of the baseline became at the follow-up.

    Args:
        first: The baseline.
        second: The follow-up.
        names: Names that both times have.
        limits: The site's limits.

    Returns:
        In the order of the names; refused ones, and ones that vanished or are new, included.
    """
    refused = {shared: _refusals(first, second, shared) for shared in names}
    usable = [shared for shared in names if not refused[shared]]
    maps = _register_all(first, second, usable, limits)
    result: list[Followed] = []
    for shared in names:
        if refused[shared]:
            result.append(Followed(shared.name, "", shared.places, refused[shared]))
        else:
            result += _followed(first, second, shared, maps, limits)
    return tuple(result)


def located(side: Side, place: int, findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Say in each message which row of the table it is about."""
    row = row_token(side, place)
    return tuple(replace(f, message=f"row {row}: {f.message}") for f in findings)


def _refusals(first: TimeReading, second: TimeReading, shared: SharedName) -> tuple[Finding, ...]:
    before, after = shared.places
    return without_repeats(
        (
            *located(0, before, first.refusals(before)),
            *located(1, after, second.refusals(after)),
        )
    )


def _register_all(
    first: TimeReading,
    second: TimeReading,
    names: Sequence[SharedName],
    limits: PreparationConfig,
) -> _Maps:
    """Register around each nodule of the baseline, blind to all nodules of both times."""
    found: dict[int, Registration | Finding] = {}
    for shared in names:
        there = second.parts_of(shared.places[1])[0]
        for part in first.parts_of(shared.places[0]):
            sides = _with_nodule(first, part), _with_nodule(second, there)
            try:
                found[part] = register(*sides, limits.registration)
            except NognetError as err:
                found[part] = Finding(err.code, "refused", str(err))
            except UNFORESEEN as err:
                found[part] = Finding("unexpected", "refused", f"{type(err).__name__}: {err}")
    good = {k: r for k, r in found.items() if isinstance(r, Registration)}
    baseline = [first.parts[k].mask for k in good]
    away = distances_mm(baseline, [part.mask for part in second.parts], list(good.values()))
    return _Maps(found, dict(zip(good, away, strict=True)))


def _with_nodule(reading: TimeReading, part: int) -> CtWithNodule:
    if reading.ct is None:
        raise ValueError("a time point without a CT has no nodules")
    others = tuple(other.mask for k, other in enumerate(reading.parts) if k != part)
    return CtWithNodule(reading.ct.volume, reading.parts[part].mask, others)


def _followed(
    first: TimeReading,
    second: TimeReading,
    shared: SharedName,
    maps: _Maps,
    limits: PreparationConfig,
) -> Iterator[Followed]:
    """Follow the nodules of one name."""
    mine, theirs = first.parts_of(shared.places[0]), second.parts_of(shared.places[1])
    for k in mine:
        found = maps.found[k]
        if isinstance(found, Finding):
            yield Followed(shared.name, first.parts[k].label, shared.places, (found,))
    tried = [k for k in mine if maps.of(k) is not None]
    if len(mine) == len(theirs) == 1 and shared.name != EVERY_NODULE:
        matched = {mine[0]: theirs[0]} if tried else {}
    else:
        matched = _matched(first, second, (tried, theirs), maps, limits)
    gone = [k for k in tried if k not in matched]
    new = [t for t in theirs if t not in matched.values()]
    good = {k: r for k in tried if (r := maps.of(k)) is not None}
    merged = drawn_as_one((first.parts, second.parts), matched, good, (gone, new))
    for k in tried:
        if k in matched:
            one = _one(first, second, shared, maps, (k, matched[k]))
            told = (_as_one(*merged[k], shared),) if k in merged else ()
            yield replace(one, findings=(*one.findings, *told))
        else:
            yield _gone(first, shared, k, maps.distances_mm[k][list(theirs)])
    if len(tried) == len(mine):  # else one of those that failed may be what they were
        for t in new:
            yield _new(second, shared, t)


def _matched(
    first: TimeReading,
    second: TimeReading,
    parts: tuple[Sequence[int], Sequence[int]],
    maps: _Maps,
    limits: PreparationConfig,
) -> dict[int, int]:
    """Match nodules by their places, none further than a pair would be refused for."""
    mine, theirs = parts
    baseline = [first.parts[k].mask for k in mine]
    follow_up = [second.parts[k].mask for k in theirs]
    registrations = [r for k in mine if (r := maps.of(k)) is not None]

    def near(i: int, j: int) -> bool:
        slack = max(_radius_mm(baseline[i]), _radius_mm(follow_up[j])) / 2
        away = maps.distances_mm[mine[i]][theirs[j]]
        return bool(away <= limits.max_nodule_displacement_mm + slack)

    found = match_nodules(baseline, follow_up, registrations, allowed=near)
    return {mine[match.baseline]: theirs[match.follow_up] for match in found}


def _one(
    first: TimeReading,
    second: TimeReading,
    shared: SharedName,
    maps: _Maps,
    parts: tuple[int, int],
) -> Followed:
    """Write down a nodule and what it became, with the nearest of the other rows' nodules."""
    before, after = parts
    registration = maps.of(before)
    away = maps.distances_mm[before]
    others = [k for k, part in enumerate(second.parts) if part.place != shared.places[1]]
    nearest = min(others, key=lambda k: away[k], default=None)
    nearer = None
    if nearest is not None:
        other = second.parts[nearest]
        who = f"nodule '{other.name}' of row {row_token(1, other.place)}"
        nearer = Nearer(who, float(away[nearest]))
    return Followed(
        name=shared.name,
        part=first.parts[before].label,
        places=shared.places,
        findings=(*_twice(0, first, before), *_twice(1, second, after)),
        parts=parts,
        registration=registration
        and replace(registration, nodule_displacement_mm=float(away[after])),
        nearer=nearer,
    )


def _twice(side: Side, reading: TimeReading, part: int) -> Iterator[Finding]:
    own = row_token(side, reading.parts[part].place)
    for place in marked_twice(reading.parts, part):
        message = f"rows {own} and {row_token(side, place)} mark the same nodule"
        yield Finding("nodule-twice", "warning", message)


def _as_one(forth: int, behind: int, shared: SharedName) -> Finding:
    before, after = row_token(0, shared.places[0]), row_token(1, shared.places[1])
    one, two = (after, before) if forth else (before, after)
    count = forth or behind
    message = (
        f"row {one} has one nodule where row {two} has {count + 1}: its volume is not that of the "
        "same nodule; draw them alike at both times"
    )
    return Finding("nodule-mismatch", "refused", message)


def _gone(
    first: TimeReading, shared: SharedName, part: int, away_mm: NDArray[np.float64]
) -> Followed:
    row = row_token(1, shared.places[1])
    nearest = f"; the nearest lies {away_mm.min():.1f} mm away" if away_mm.size else ""
    message = f"gone or not marked at the follow-up: row {row} has no nodule there{nearest}"
    found = Finding("nodule-unmatched", "skipped", message)
    return Followed(shared.name, first.parts[part].label, shared.places, (found,))


def _new(second: TimeReading, shared: SharedName, part: int) -> Followed:
    row = row_token(0, shared.places[0])
    message = f"new at the follow-up: row {row} has no nodule there"
    found = Finding("nodule-unmatched", "skipped", message)
    label = second.parts[part].label
    return Followed(shared.name, f"new-{label}" if label else "new", shared.places, (found,))


def _radius_mm(nodule: Volume) -> float:
    return float((nodule_volume_mm3(nodule) * 3 / (4 * np.pi)) ** (1 / 3))
