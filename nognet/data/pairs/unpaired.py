"""Rows of the table that make no pair by their names alone: told, for they may be slips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from nognet.data.findings import Finding
from nognet.data.pairs.outcome import NoduleOutcome, row_token
from nognet.data.pairs.timepoints import TimePoint
from nognet.data.site.studies import EVERY_NODULE


def named_unlike(first: TimePoint, second: TimePoint) -> Iterator[NoduleOutcome]:
    """Refuse what one time calls ``*``, every nodule of a mask, where the other names nodules."""
    every = [EVERY_NODULE in point.names for point in (first, second)]
    if every[0] == every[1]:
        return
    whole, single = (first, second) if every[0] else (second, first)
    place = whole.names.index(EVERY_NODULE)
    alone = [name for name in single.names if name not in whole.names] or single.names[:1]
    for name in alone:
        own = single.names.index(name)
        rows = (place, own) if every[0] else (own, place)
        tokens = row_token(0, rows[0]), row_token(1, rows[1])
        of_every, of_name = tokens if every[0] else reversed(tokens)
        message = f"row {of_every} is about every nodule ('*'), row {of_name} about one by name"
        yield NoduleOutcome(name, "", rows, (Finding("nodule-names", "refused", message),))


def named_once(points: Sequence[TimePoint]) -> Iterator[tuple[TimePoint, NoduleOutcome]]:
    """Tell of nodules that one time point alone names, in a patient who has several."""
    if len(points) < 2:
        return
    times = Counter(name for point in points for name in point.names)
    for point in points:
        if any(EVERY_NODULE in other.names for other in points if other is not point):
            continue  # told by `named_unlike`
        for place, name in enumerate(point.names):
            if times[name] == 1 and name != EVERY_NODULE:
                row = row_token(0, place)
                message = f"row {row} alone is about it: new, gone, or named otherwise elsewhere"
                found = Finding("nodule-unmatched", "skipped", message)
                yield point, NoduleOutcome(name, "", (place, place), (found,))
