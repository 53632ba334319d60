"""A patient's time points, read when they are needed and kept while there is room."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from nognet.data.findings import Finding
from nognet.data.pairs.memory import memory_of
from nognet.data.pairs.outcome import TimeFacts, TimeSummary
from nognet.data.pairs.task import PatientTask, settings_digest
from nognet.data.pairs.timepoints import (
    TimePoint,
    TimeReading,
    moment_of,
    points_before,
    read_time,
    time_points,
)
from nognet.errors import NognetError

KEPT_BYTES = 1_500_000_000
"""CTs of one patient held in memory at once; those of a pair (two, or three) always are."""


class PatientTimes:
    """One patient's time points."""

    def __init__(self, task: PatientTask) -> None:
        self.points = time_points(task.rows)
        self.memory = memory_of(task.state, task.patient_id)
        self.seconds: dict[str, float] = defaultdict(float)
        self._pseudonyms = task.pseudonyms
        self._limits = task.limits
        self._patient = task.rows[0].patient
        self._settings = settings_digest(task.roi, task.limits)
        self._unreadable: dict[Path, Finding] = {}
        self._keys: dict[TimePoint, str] = {}
        self._read: OrderedDict[TimePoint, TimeReading] = OrderedDict()
        self._facts: dict[TimePoint, TimeFacts] = {}

    def before(self, point: TimePoint) -> tuple[TimePoint, ...]:
        """Give the CTs of the date before a time point's; none where it is of the first date."""
        return points_before(point, self.points)

    def paths(self, first: TimePoint, second: TimePoint) -> list[Path]:
        """List all places that the pairs between two times are made from."""
        return [path for point in (first, second, *self.before(first)) for path in point.paths]

    def pair_key(self, first: TimePoint, second: TimePoint) -> str:
        """Digest all that the pairs between two times are made from, prior scans included."""
        parts = [self._key(first), self._key(second), str((second.date - first.date).days)]
        for point in self.before(first):
            parts += ["prior", self._key(point), str((first.date - point.date).days)]
        return self._pseudonyms.of_contents(*parts)

    def pair_id(self, first: TimePoint, second: TimePoint, name: str, part: str) -> str:
        """Give the pseudonym of a nodule's pair."""
        moments = [moment_of(point, name, self.points) for point in (first, second)]
        return self._pseudonyms.of_pair(self._patient, name, moments[0], moments[1], part=part)

    def summary(self, point: TimePoint) -> TimeSummary:
        """Sum up a time point with the table's own paths and lines."""
        facts = self.known(point)
        masks = tuple(
            replace(mask, path=str(row.mask) if row.mask else "-")
            for mask, row in zip(facts.masks, point.rows, strict=True)
        )
        shown = replace(facts, ct=replace(facts.ct, path=str(point.image)), masks=masks)
        identity = facts.pixels or self._pseudonyms.of_contents(
            "files", self._digest(point.image), point.series or ""
        )
        return TimeSummary(point.lines, shown, identity)

    def known(self, point: TimePoint) -> TimeFacts:
        """Give the facts of a time point; read it where they aren't known."""
        if point not in self._facts:
            facts = self.memory.facts(self._key(point), point.paths)
            if facts is None or len(facts.masks) != len(point.rows):
                self.reading(point)
            else:
                self._facts[point] = facts
        return self._facts[point]

    def reading(self, point: TimePoint) -> TimeReading:
        """Read a time point, unless it is at hand."""
        if point in self._read:
            self._read.move_to_end(point)
            return self._read[point]
        key = self._key(point)
        reading = read_time(point, self._limits, unreadable=self._unreadable, timed=self.timed)
        with self.timed("digests"):
            self._facts[point] = facts = self._facts_of(reading)
        if not any(path in self._unreadable for path in point.paths):
            self.memory.keep_facts(key, point.paths, facts)
        self._read[point] = reading
        while len(self._read) > 2 and sum(map(_n_bytes, self._read.values())) > KEPT_BYTES:
            self._read.popitem(last=False)
        return reading

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the time that a phase takes."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] += time.perf_counter() - started

    def _facts_of(self, reading: TimeReading) -> TimeFacts:
        pixels = patient = ""
        if reading.ct is not None:
            array = np.ascontiguousarray(reading.ct.volume.array)
            digest = hashlib.blake2b(repr((array.dtype.str, array.shape)).encode())
            digest.update(array.data)
            pixels = self._pseudonyms.of_contents("pixels", digest.hexdigest())
            if reading.ct.patient_digest:
                patient = self._pseudonyms.of_contents("person", reading.ct.patient_digest)
        masks = [reading.shown(place) for place in range(len(reading.mask_rows))]
        rows = tuple(replace(row, path="") for row in (reading.ct_row, *masks))
        return TimeFacts(rows[0], rows[1:], pixels, patient)

    def _key(self, point: TimePoint) -> str:
        """Digest all that a time point is read from: files, names, settings and version."""
        if point not in self._keys:
            parts = [self._settings, self._digest(point.image), point.series or ""]
            for row in point.rows:
                mask = self._digest(row.mask) if row.mask else ""
                parts += [row.nodule, row.segment or "", mask]
            self._keys[point] = self._pseudonyms.of_contents("time", *parts)
        return self._keys[point]

    def _digest(self, path: Path) -> str:
        """Digest the files behind a path; what can't be read is a finding of whatever needs it."""
        try:
            with self.timed("digests"):
                return self.memory.digest(path)
        except NognetError as err:
            self._unreadable[path] = Finding(err.code, "refused", str(err))
            return "-"


def _n_bytes(reading: TimeReading) -> int:
    return int(reading.ct.volume.array.nbytes) if reading.ct is not None else 0
