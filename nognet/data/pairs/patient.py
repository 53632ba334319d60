"""Prepare one patient: read each time point once, register, cut, judge, and store every pair.

This is what a worker process runs. A pair that can't be used is an outcome with code and reason,
not an error, so that it stops no other; only a cache that can't be written ends the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

from nognet.data.findings import Finding, without_repeats
from nognet.data.pairs.cut import Cut, NoduleAt, PairName, cut_pair
from nognet.data.pairs.follow import Followed, SharedName, follow, located
from nognet.data.pairs.gate import judge_interval, judge_pair
from nognet.data.pairs.outcome import (
    NoduleOutcome,
    PairOutcome,
    PatientResult,
    status_of,
    with_lines,
)
from nognet.data.pairs.places import UNFORESEEN
from nognet.data.pairs.prior import PriorScans
from nognet.data.pairs.task import PatientTask
from nognet.data.pairs.timepoints import TimePoint, TimeReading
from nognet.data.pairs.times import PatientTimes
from nognet.data.pairs.unpaired import named_once, named_unlike
from nognet.data.stored_pair import CACHE_WRITE, PairRecord, find_pair, write_pair
from nognet.errors import NognetError, SiteDataError

Two = tuple[TimePoint, TimePoint]
Readings = tuple[TimeReading, TimeReading]


def prepare_patient(task: PatientTask) -> PatientResult:
    """Prepare every ordered pair of time points of every nodule of a patient.

    Raises:
        SiteDataError: cache or state can't be written.
    """
    return _Patient(task).result()


class _Patient:
    """One patient's pairs."""

    def __init__(self, task: PatientTask) -> None:
        self._task = task
        self._times = PatientTimes(task)
        self._priors = PriorScans(task, self._times)

    def result(self) -> PatientResult:
        """Do all the work."""
        outcomes = [
            o for times in combinations(self._times.points, 2) for o in self._outcomes(times)
        ]
        for point, once in named_once(self._times.points):
            outcomes.append(self._told((point, point), once, None, reused=False))
        summaries = tuple(self._times.summary(point) for point in self._times.points)
        self._times.memory.forget_other_files(
            path for point in self._times.points for path in point.paths
        )
        self._times.memory.save()
        seconds = dict(self._times.seconds)
        return PatientResult(self._task.patient_id, tuple(outcomes), summaries, seconds)

    def _outcomes(self, times: Two) -> Iterator[PairOutcome]:
        """Say what became of each nodule that both times name, or name unlike each other."""
        for unlike in named_unlike(*times):
            yield self._told(times, unlike, None, reused=False)
        names = _shared_names(*times)
        if not names:
            return
        key = self._times.pair_key(*times)
        paths = self._times.paths(*times)
        known = self._times.memory.pairs(key, paths)
        records = self._records(times, key, known or ())
        made = known
        if known is None or records is None:
            made = self._make(times, names, key)
            self._times.memory.keep_pairs(key, paths, made)
            self._times.memory.save()
            records = self._records(times, key, made) or {}
        for outcome in made or ():
            yield self._told(
                times, outcome, records.get((outcome.name, outcome.part)), reused=made is known
            )

    def _records(
        self, times: Two, key: str, outcomes: Sequence[NoduleOutcome]
    ) -> dict[tuple[str, str], PairRecord] | None:
        """Find the stored pairs by name and part.

        None where one is gone, or a cut is wanted that wasn't kept.
        """
        found = {}
        for outcome in outcomes:
            if outcome.stored:
                record = find_pair(
                    self._task.cache,
                    self._times.pair_id(*times, outcome.name, outcome.part),
                    self._inputs(key, outcome),
                )
                if record is None:
                    return None
                found[outcome.name, outcome.part] = record
            elif self._task.keep_cuts and outcome.was_cut and outcome.cut is None:
                return None
        return found

    def _make(self, times: Two, names: Sequence[SharedName], key: str) -> tuple[NoduleOutcome, ...]:
        """Read both times, follow each nodule from one to the other, cut, judge and store."""
        interval_days = (times[1].date - times[0].date).days
        early = judge_interval(interval_days, self._task.limits)
        if not early:
            readings = self._times.reading(times[0]), self._times.reading(times[1])
            early = tuple(self._about_both(times))
        if any(finding.severity == "refused" for finding in early):
            return tuple(NoduleOutcome(s.name, "", s.places, early) for s in names)
        try:
            with self._times.timed("registration"):
                followed = follow(*readings, names, self._task.limits)
        except UNFORESEEN as err:
            found = (*early, Finding("unexpected", "refused", f"{type(err).__name__}: {err}"))
            return tuple(NoduleOutcome(s.name, "", s.places, found) for s in names)
        return tuple(self._finish(times, readings, nodule, (early, key)) for nodule in followed)

    def _finish(
        self,
        times: Two,
        readings: Readings,
        nodule: Followed,
        known: tuple[tuple[Finding, ...], str],
    ) -> NoduleOutcome:
        """Cut, judge and store what a nodule became."""
        outcome = NoduleOutcome(nodule.name, nodule.part, nodule.places, nodule.findings)
        try:
            with self._times.timed("cutting"):
                cut = self._cut(times, readings, nodule, outcome)
        except NognetError as err:
            return replace(outcome, findings=(Finding(err.code, "refused", str(err)),))
        except UNFORESEEN as err:
            message = f"{type(err).__name__}: {err}"
            return replace(outcome, findings=(Finding("unexpected", "refused", message),))
        if cut is None:
            return outcome
        early, key = known
        warned = _warnings(readings, nodule)
        codes = {finding.code for finding in warned}
        judged = [f for f in judge_pair(cut.facts, self._task.limits) if f.code not in codes]
        findings = without_repeats((*early, *nodule.findings, *warned, *judged, *cut.findings))
        outcome = replace(
            outcome,
            findings=findings,
            volumes_mm3=cut.facts.volumes_mm3,
            quality=cut.quality,
            was_cut=True,
        )
        if status_of(findings) == "refused":
            return replace(outcome, cut=cut.pair if self._task.keep_cuts else None)
        cut, told = self._priors.added(times, readings[0], nodule, cut)
        outcome = replace(outcome, findings=(*findings, *told), quality=cut.quality)
        return self._stored(outcome, cut, key)

    def _cut(
        self,
        times: Two,
        readings: Readings,
        nodule: Followed,
        outcome: NoduleOutcome,
    ) -> Cut | None:
        """Cut a nodule that has a match; None where it has none."""
        first, second = readings
        if nodule.parts is None or nodule.registration is None or not first.ct or not second.ct:
            return None
        interval_days = float((times[1].date - times[0].date).days)
        name = PairName(
            self._times.pair_id(*times, outcome.name, outcome.part),
            self._task.patient_id,
            interval_days,
        )
        sides = (
            NoduleAt(first.ct, first.parts[nodule.parts[0]].mask),
            NoduleAt(second.ct, second.parts[nodule.parts[1]].mask),
        )
        return cut_pair(name, sides, nodule.registration, self._task.roi, nearer=nodule.nearer)

    def _stored(self, outcome: NoduleOutcome, cut: Cut, key: str) -> NoduleOutcome:
        """Write a pair; what it must not hold refuses it, a full disk ends the run."""
        codes = tuple(dict.fromkeys(finding.code for finding in outcome.findings))
        try:
            with self._times.timed("writing"):
                write_pair(
                    self._task.cache,
                    cut.pair,
                    roi=self._task.roi,
                    inputs=self._inputs(key, outcome),
                    quality=cut.quality,
                    warnings=codes,
                )
        except SiteDataError as err:
            if err.code == CACHE_WRITE:
                raise
            found = (*outcome.findings, Finding(err.code, "refused", str(err)))
            return replace(outcome, findings=found)
        return replace(outcome, stored=True)

    def _about_both(self, times: Two) -> Iterator[Finding]:
        """Compare whom and what the two CTs show."""
        first, second = (self._times.known(point) for point in times)
        if first.pixels and first.pixels == second.pixels:
            same = "baseline and follow-up are the same CT: equal in every voxel"
            yield Finding("duplicate-study", "refused", same)
        people = {first.header_patient, second.header_patient} - {""}
        if len(people) > 1:
            message = "the headers of the two CTs give different PatientIDs"
            yield Finding("patients-differ", "warning", message)

    def _inputs(self, key: str, outcome: NoduleOutcome) -> str:
        return self._task.pseudonyms.of_contents("pair", key, outcome.name, outcome.part)

    def _told(
        self,
        times: Two,
        outcome: NoduleOutcome,
        record: PairRecord | None,
        *,
        reused: bool,
    ) -> PairOutcome:
        """Say what became of a nodule in the table's own words."""
        lines = times[0].lines, times[1].lines
        before = [line for point in self._times.before(times[0]) for line in point.lines]
        findings = with_lines(outcome.findings, (*lines, before))
        return PairOutcome(
            patient=times[0].rows[0].patient,
            nodule=outcome.nodule,
            lines=(lines[0][outcome.rows[0]], lines[1][outcome.rows[1]]),
            pair_id=self._times.pair_id(*times, outcome.name, outcome.part),
            patient_id=self._task.patient_id,
            status=status_of(findings),
            findings=findings,
            record=record,
            reused=reused,
            interval_days=(times[1].date - times[0].date).days,
            volumes_mm3=outcome.volumes_mm3,
            quality=outcome.quality,
            cut=outcome.cut,
        )


def _warnings(readings: Readings, nodule: Followed) -> tuple[Finding, ...]:
    """List what CTs, masks and nodules of both times are warned of, and on which row."""
    found: list[Finding] = []
    for side, reading in enumerate(readings):
        place = nodule.places[side]
        own = reading.parts[nodule.parts[side]].findings if nodule.parts else ()
        found += located(1 if side else 0, place, (*reading.warnings(place), *own))
    return tuple(found)


def _shared_names(first: TimePoint, second: TimePoint) -> tuple[SharedName, ...]:
    return tuple(
        SharedName(name, (place, second.names.index(name)))
        for place, name in enumerate(first.names)
        if name in second.names
    )
