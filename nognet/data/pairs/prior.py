"""The scan before a pair's baseline: the same nodule at the patient's date before that.

It is followed, registered, cut and judged as a follow-up is, only backwards from the baseline, so
that it lies in the baseline's frame and on its ROI. What speaks against it takes the prior scan
from the pair and is told as a warning; it never refuses the pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from nognet.data.findings import Finding
from nognet.data.pairs.cut import Cut, NoduleAt, PairName, cut_pair
from nognet.data.pairs.follow import Followed, SharedName, follow
from nognet.data.pairs.gate import judge_interval, judge_pair
from nognet.data.pairs.outcome import TRANSIENT, of_prior, row_token
from nognet.data.pairs.places import UNFORESEEN
from nognet.data.pairs.task import PatientTask
from nognet.data.pairs.timepoints import TimePoint, TimeReading
from nognet.data.pairs.times import PatientTimes
from nognet.errors import NognetError
from nognet.types import PriorScan

ABSENT = frozenset({"mask-absent", "nodule-unmatched"})
"""What a pair is refused or skipped for where a time does not show the nodule."""
NOT_MARKED = "this nodule is not marked there, so the pair has no prior scan"
KEPT = ("ncc", "nodule_displacement_mm")
"""Figures of a prior scan's registration that are kept with the pair."""
DOUBTS = ("weak-registration", "lung-overlap", "nodule-displaced")
"""Warnings about how a prior scan was laid on the baseline; others its own pair tells."""


@dataclass(frozen=True)
class Prior:
    """What the date before the baseline gives for one nodule.

    Attributes:
        scan: None where it gives nothing.
        findings: Why not, or what is doubtful; warnings all.
        quality: Figures of its registration by name.
    """

    scan: PriorScan | None
    findings: tuple[Finding, ...] = ()
    quality: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Before:
    """The CT before a baseline that names a nodule.

    Attributes:
        point: The time point.
        offset: How many rows of other CTs of that date are listed before its own.
        place: Place of the nodule's row among the point's rows.
        days: From it to the baseline.
    """

    point: TimePoint
    offset: int
    place: int
    days: int

    @property
    def row(self) -> str:
        """Stands for the line of the table."""
        return row_token(2, self.offset + self.place)

    def found(self, code: str, message: str) -> Finding:
        """Say something about the nodule's row."""
        return Finding(code, "warning", f"row {self.row}, {self.days} days before: {message}")

    def reason(self, finding: Finding) -> str:
        """Give the words of a finding between the baseline and this time."""
        words = of_prior(finding.message, self.offset)
        return words.removeprefix(f"row {self.row}: ")


class PriorScans:
    """The prior scans of one patient, each made once, when the first pair asks for it."""

    def __init__(self, task: PatientTask, times: PatientTimes) -> None:
        self._task = task
        self._times = times
        self._made: dict[tuple[TimePoint, str], dict[str, Prior]] = {}

    def added(
        self, times: tuple[TimePoint, TimePoint], first: TimeReading, nodule: Followed, cut: Cut
    ) -> tuple[Cut, tuple[Finding, ...]]:
        """Give a pair its prior scan, or say why it has none.

        Args:
            times: The pair's baseline and follow-up.
            first: The baseline as read.
            nodule: The nodule as it was followed to the follow-up.
            cut: The pair as cut.

        Returns:
            The pair with what was found, and findings; the pair as it was and nothing where the
            baseline is the patient's first date.
        """
        prior = self._prior(times, first, nodule)
        pair = replace(cut.pair, prior=prior.scan)
        return replace(cut, pair=pair, quality={**cut.quality, **prior.quality}), prior.findings

    def _prior(
        self, times: tuple[TimePoint, TimePoint], first: TimeReading, nodule: Followed
    ) -> Prior:
        points = self._times.before(times[0])
        if not points:
            return Prior(None)
        before = _naming(points, times[0], nodule.name)
        if before is None:
            days = (times[0].date - points[0].date).days
            message = f"the CT {days} days before the baseline: no row names the nodule there"
            return Prior(None, (Finding("prior-absent", "warning", message),))
        pixels = self._times.known(before.point).pixels
        for name, point in zip(("baseline", "follow-up"), times, strict=True):
            if pixels and pixels == self._times.known(point).pixels:
                message = f"not used as prior scan: it is the same CT as the {name}"
                return Prior(None, (before.found("prior-unusable", message),))
        known = self._made.get((times[0], nodule.name))
        if known is None:
            known = self._made[times[0], nodule.name] = self._make(first, before, nodule)
        return known.get(nodule.part) or known[""]

    def _make(self, first: TimeReading, before: _Before, nodule: Followed) -> dict[str, Prior]:
        """Make the prior scans of a name, by part; under the empty part what holds for all."""
        far = judge_interval(before.days, self._task.limits)
        if far:
            return {"": Prior(None, tuple(_refusals(before, far)))}
        shared = SharedName(nodule.name, (nodule.places[0], before.place))
        try:
            readings = first, self._times.reading(before.point)
            with self._times.timed("registration"):
                followed = follow(*readings, (shared,), self._task.limits)
            with self._times.timed("cutting"):
                made = {f.part: self._judged(readings, before, f) for f in followed}
        except UNFORESEEN as err:
            return {"": Prior(None, (_unforeseen(before, err),))}
        lost = before.found("prior-absent", NOT_MARKED)
        return {"": Prior(None, (lost,)), **made}

    def _judged(
        self,
        readings: tuple[TimeReading, TimeReading],
        before: _Before,
        nodule: Followed,
    ) -> Prior:
        """Cut and judge a nodule at the date before."""
        refused = [f for f in nodule.findings if f.severity != "warning"]
        first, earlier = readings
        if refused or not (nodule.parts and nodule.registration and first.ct and earlier.ct):
            return Prior(None, tuple(_refusals(before, refused)))
        sides = (
            NoduleAt(first.ct, first.parts[nodule.parts[0]].mask),
            NoduleAt(earlier.ct, earlier.parts[nodule.parts[1]].mask),
        )
        name = PairName("prior", self._task.patient_id, float(before.days))
        try:
            cut = cut_pair(name, sides, nodule.registration, self._task.roi, nearer=nodule.nearer)
        except NognetError as err:
            return Prior(None, tuple(_refusals(before, [Finding(err.code, "refused", str(err))])))
        judged = (*judge_pair(cut.facts, self._task.limits), *cut.findings)
        refused = [f for f in judged if f.severity == "refused"]
        if refused:
            return Prior(None, tuple(_refusals(before, refused)))
        scan = PriorScan(cut.pair.follow_up, cut.pair.follow_up_mask, float(before.days))
        quality = {f"prior_{name}": cut.quality[name] for name in KEPT if name in cut.quality}
        return Prior(scan, tuple(_doubts(before, judged)), quality)


def _naming(points: Sequence[TimePoint], baseline: TimePoint, name: str) -> _Before | None:
    """Find the first CT of the date before that names a nodule."""
    offset = 0
    for point in points:
        if name in point.names:
            days = (baseline.date - point.date).days
            return _Before(point, offset, point.names.index(name), days)
        offset += len(point.rows)
    return None


def _refusals(before: _Before, findings: Sequence[Finding]) -> Iterator[Finding]:
    """Say in a pair's findings what would have refused the prior scan as a pair of its own."""
    for finding in findings:
        if finding.code in ABSENT:
            yield before.found("prior-absent", NOT_MARKED)
            continue
        code = "prior-unread" if finding.code in TRANSIENT else "prior-unusable"
        reason = f"{finding.code}: {before.reason(finding)}"
        yield before.found(code, f"not used as prior scan: {reason}")


def _doubts(before: _Before, findings: Sequence[Finding]) -> Iterator[Finding]:
    for finding in findings:
        if finding.code in DOUBTS:
            yield before.found("prior-doubtful", f"{finding.code}: {before.reason(finding)}")


def _unforeseen(before: _Before, err: BaseException) -> Finding:
    message = f"not used as prior scan: {type(err).__name__}: {err}"
    return before.found("prior-unread", message)
