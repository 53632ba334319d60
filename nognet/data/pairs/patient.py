"""Prepare one patient: read each CT and mask once, register, cut, and store every pair.

This is what a worker process runs. A pair that can't be used is an outcome with code and reason,
not an error, so that it stops no other.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from nognet.config import PreparationConfig, RoiConfig
from nognet.data.ct.image import CtReading, check_hounsfield, files_behind, read_ct_with_findings
from nognet.data.findings import Finding
from nognet.data.masks.reading import MaskSource, read_mask_with_findings
from nognet.data.pairs.gate import PairFacts, judge_interval, judge_pair
from nognet.data.pairs.register import CtWithNodule, Registration, register
from nognet.data.pairs.roi import (
    covered_fraction,
    crop_mask,
    cut_image,
    cut_mask,
    nodule_volume_mm3,
    roi_grid,
)
from nognet.data.site.pseudonym import Pseudonyms
from nognet.data.site.studies import StudyRow
from nognet.data.store import PairRecord, find_pair, write_pair
from nognet.errors import NognetError, SiteDataError
from nognet.types import RoiPair

PREPARATION_VERSION = "2"
"""Raised whenever the same files would give another pair; pairs of another version are remade."""
CTS_KEPT = 3
"""CTs of one patient held in memory at once."""

ReadT = TypeVar("ReadT", CtReading, "_Side")
PairStatus = Literal["ok", "warning", "refused"]


@dataclass(frozen=True)
class PatientTask:
    """One patient's work.

    Attributes:
        patient_id: Pseudonym.
        rows: The patient's rows of `studies.csv`, sorted by nodule and date.
        pseudonyms: Makers of pseudonyms and keyed digests.
        roi: The ROI to cut.
        limits: Settings of the preparation.
        cache: Folder of the store.
    """

    patient_id: str
    rows: tuple[StudyRow, ...]
    pseudonyms: Pseudonyms
    roi: RoiConfig
    limits: PreparationConfig
    cache: Path


@dataclass(frozen=True)
class PairOutcome:
    """What became of one pair; stays at the site, for it names patient and nodule.

    Attributes:
        patient: As in `studies.csv`.
        nodule: As in `studies.csv`.
        lines: Lines in `studies.csv` of baseline and follow-up.
        pair_id: Pseudonym.
        patient_id: Pseudonym.
        status: ``ok``, ``warning`` or ``refused``.
        findings: All that was found.
        record: The stored pair; None where it was refused.
        reused: The pair was there already.
    """

    patient: str
    nodule: str
    lines: tuple[int, int]
    pair_id: str
    patient_id: str
    status: PairStatus
    findings: tuple[Finding, ...]
    record: PairRecord | None
    reused: bool = False


@dataclass(frozen=True)
class PatientResult:
    """All pairs of a patient, the CTs' digests by line of the table, and where time went."""

    patient_id: str
    outcomes: tuple[PairOutcome, ...]
    ct_digests: tuple[tuple[str, int], ...]
    seconds: dict[str, float]


@dataclass
class _Clock:
    """Seconds by phase."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, phase: str, since: float) -> None:
        self.seconds[phase] += time.perf_counter() - since


@dataclass(frozen=True)
class _Side:
    """A nodule at one time, read and cropped."""

    reading: CtReading
    nodule: CtWithNodule
    findings: tuple[Finding, ...]


def prepare_patient(task: PatientTask) -> PatientResult:
    """Prepare every ordered pair of time points of every nodule of a patient."""
    reader = _Reader(task)
    outcomes = [
        _prepare_pair(task, reader, earlier, later)
        for earlier, later in combinations(task.rows, 2)
        if earlier.nodule == later.nodule
    ]
    digests = []
    for row in task.rows:
        with contextlib.suppress(SiteDataError):  # its pairs are refused for that already
            digests.append((reader.ct_digest(row), row.line))
    seconds = dict(reader.clock.seconds)
    return PatientResult(task.patient_id, tuple(outcomes), tuple(digests), seconds)


class _Reader:
    """Reads each CT and mask of a patient once, and remembers what can't be read."""

    def __init__(self, task: PatientTask) -> None:
        self.clock = _Clock()
        self._task = task
        self._digests: dict[Path, str] = {}
        self._cts: dict[tuple[Path, str | None], CtReading | NognetError] = {}
        self._sides: dict[StudyRow, _Side | NognetError] = {}

    def ct_digest(self, row: StudyRow) -> str:
        """Digest the files of a row's CT, keyed."""
        series = row.series or ""
        return self._task.pseudonyms.of_contents(self._digest(row.image), series)

    def pair_digest(self, earlier: StudyRow, later: StudyRow) -> str:
        """Digest all that a pair is made from: files, settings, version of the preparation."""
        parts = [PREPARATION_VERSION, self._task.roi.digest(), _settings_digest(self._task.limits)]
        for row in (earlier, later):
            files = (self._digest(row.image), self._digest(row.mask))
            parts += [*files, row.segment or "", row.series or ""]
        parts += [str((later.date - earlier.date).days)]
        return self._task.pseudonyms.of_contents(*parts)

    def side(self, row: StudyRow) -> _Side:
        """Read a nodule at one time."""
        if row not in self._sides:
            try:
                self._sides[row] = self._read_side(row)
            except NognetError as err:
                self._sides[row] = err
        return _or_raise(self._sides[row])

    def _read_side(self, row: StudyRow) -> _Side:
        ct = self._ct(row)
        started = time.perf_counter()
        reading = read_mask_with_findings(row.mask, MaskSource.of(ct), row.segment)
        nodule = crop_mask(reading.mask, ct.volume.geometry)
        self.clock.add("masks", started)
        return _Side(ct, CtWithNodule(ct.volume, nodule), (*ct.findings, *reading.findings))

    def _ct(self, row: StudyRow) -> CtReading:
        key = (row.image, row.series)
        if key not in self._cts:
            started = time.perf_counter()
            while len(self._cts) >= CTS_KEPT:
                oldest = next(iter(self._cts))
                del self._cts[oldest]
                forgotten = [r for r in self._sides if (r.image, r.series) == oldest]
                for side in forgotten:
                    del self._sides[side]
            try:
                self._cts[key] = reading = read_ct_with_findings(row.image, row.series)
                check_hounsfield(reading)
            except NognetError as err:
                self._cts[key] = err
            self.clock.add("reading", started)
        return _or_raise(self._cts[key])

    def _digest(self, path: Path) -> str:
        """Digest all files that something is read from; their names have no say."""
        if path not in self._digests:
            started = time.perf_counter()
            each = sorted(_file_digest(file) for file in files_behind(path))
            self._digests[path] = hashlib.sha256("".join(each).encode()).hexdigest()
            self.clock.add("digests", started)
        return self._digests[path]


def _prepare_pair(
    task: PatientTask, reader: _Reader, earlier: StudyRow, later: StudyRow
) -> PairOutcome:
    dates = (earlier.date.isoformat(), later.date.isoformat())
    pair_id = task.pseudonyms.of_pair(earlier.patient, earlier.nodule, *dates)
    record: PairRecord | None = None
    findings: list[Finding] = []
    reused = False
    try:
        inputs = reader.pair_digest(earlier, later)
        record = find_pair(task.cache, pair_id, inputs)
        if record is not None:
            reused = True
            findings = [Finding(code, "warning", "as found before") for code in record.warnings]
        else:
            findings = list(_before_reading(task, reader, earlier, later))
            if all(f.severity != "refused" for f in findings):
                record, more = _make_pair(task, reader, (earlier, later), (pair_id, inputs))
                findings += more
    except NognetError as err:
        findings.append(Finding(err.code, "refused", str(err)))
    except (OSError, RuntimeError, ValueError, MemoryError) as err:
        message = f"{type(err).__name__}: {err}"
        findings.append(Finding("unexpected", "refused", message))
    return PairOutcome(
        patient=earlier.patient,
        nodule=earlier.nodule,
        lines=(earlier.line, later.line),
        pair_id=pair_id,
        patient_id=task.patient_id,
        status=_status(findings),
        findings=tuple(findings),
        record=record,
        reused=reused,
    )


def _before_reading(
    task: PatientTask, reader: _Reader, earlier: StudyRow, later: StudyRow
) -> Iterator[Finding]:
    yield from judge_interval((later.date - earlier.date).days, task.limits)
    if reader.ct_digest(earlier) == reader.ct_digest(later):
        yield Finding("duplicate-study", "refused", "baseline and follow-up are the same CT")


def _make_pair(
    task: PatientTask, reader: _Reader, rows: tuple[StudyRow, StudyRow], names: tuple[str, str]
) -> tuple[PairRecord | None, tuple[Finding, ...]]:
    """Register, cut, judge and store; the record is None where the pair is refused."""
    first, second = (_at_row(reader, row) for row in rows)
    started = time.perf_counter()
    registration = register(first.nodule, second.nodule, task.limits.registration)
    reader.clock.add("registration", started)
    started = time.perf_counter()
    interval_days = float((rows[1].date - rows[0].date).days)
    pair, facts, quality = _cut(task, (first, second), registration, (names[0], interval_days))
    reader.clock.add("cutting", started)
    found = tuple(dict.fromkeys((*first.findings, *second.findings)))
    found += judge_pair(facts, task.limits)
    if any(f.severity == "refused" for f in found):
        return None, found
    started = time.perf_counter()
    codes = tuple(dict.fromkeys(f.code for f in found))
    record = write_pair(
        task.cache, pair, roi=task.roi, inputs=names[1], quality=quality, warnings=codes
    )
    reader.clock.add("writing", started)
    return record, found


def _at_row(reader: _Reader, row: StudyRow) -> _Side:
    """Read a side; an error says which row it is about."""
    try:
        return reader.side(row)
    except NognetError as err:
        raise type(err)(f"row {row.line}: {err}", code=err.code) from err


def _cut(
    task: PatientTask,
    sides: tuple[_Side, _Side],
    registration: Registration,
    names: tuple[str, float],
) -> tuple[RoiPair, PairFacts, dict[str, float]]:
    """Cut both times onto the baseline's ROI: one resampling each."""
    first, second = sides
    grid = roi_grid(first.nodule.centre_mm, task.roi.size_vox)
    stay, move = Registration.identity().transform(), registration.transform()
    baseline_mask, inside_0 = cut_mask(first.nodule.nodule, grid, stay)
    follow_up_mask, inside_1 = cut_mask(second.nodule.nodule, grid, move)
    volumes = (nodule_volume_mm3(first.nodule.nodule), nodule_volume_mm3(second.nodule.nodule))
    if not baseline_mask.any() or not follow_up_mask.any():
        raise SiteDataError("the nodule lies outside the ROI", code="nodule-cut")
    pair_id, interval_days = names
    pair = RoiPair(
        pair_id=pair_id,
        patient_id=task.patient_id,
        baseline=cut_image(first.reading.volume, grid, stay, task.roi),
        baseline_mask=baseline_mask,
        follow_up=cut_image(second.reading.volume, grid, move, task.roi),
        follow_up_mask=follow_up_mask,
        interval_days=interval_days,
        baseline_volume_mm3=volumes[0],
        follow_up_volume_mm3=volumes[1],
    )
    facts = PairFacts(
        interval_days=interval_days,
        thickness_mm=(first.reading.thickness_mm, second.reading.thickness_mm),
        kernels=(first.reading.kernel, second.reading.kernel),
        volumes_mm3=volumes,
        inside=(inside_0, inside_1),
        covered=(
            covered_fraction(first.reading.volume.geometry, grid, stay),
            covered_fraction(second.reading.volume.geometry, grid, move),
        ),
        displacement_mm=registration.nodule_displacement_mm,
        radius_mm=float((max(volumes) * 3 / (4 * np.pi)) ** (1 / 3)),
        header_days=_header_days(first.reading, second.reading),
    )
    quality = {
        "ncc": registration.ncc,
        "nodule_displacement_mm": registration.nodule_displacement_mm,
        "shift_mm": registration.shift_mm,
        "rotation_degrees": registration.rotation_degrees,
        "baseline_roi_volume_mm3": float(baseline_mask.sum()),
        "follow_up_roi_volume_mm3": float(follow_up_mask.sum()),
    }
    return pair, facts, quality


def _header_days(first: CtReading, second: CtReading) -> int | None:
    if first.date is None or second.date is None:
        return None
    return (second.date - first.date).days


def _status(findings: Sequence[Finding]) -> PairStatus:
    if any(f.severity == "refused" for f in findings):
        return "refused"
    return "warning" if findings else "ok"


def _or_raise(value: ReadT | NognetError) -> ReadT:
    if isinstance(value, NognetError):
        raise value
    return value


def _settings_digest(limits: PreparationConfig) -> str:
    settings = limits.model_copy(update={"workers": None})
    return settings.digest()


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as err:
        raise SiteDataError(
            f"{path}: the file can't be read ({err.strerror})", code="unreadable"
        ) from err


def outcome_as_json(outcome: PairOutcome) -> dict[str, object]:
    """Write an outcome as JSON values, for the site's own eyes."""
    record = outcome.record
    return {
        "patient": outcome.patient,
        "nodule": outcome.nodule,
        "lines": list(outcome.lines),
        "pair_id": outcome.pair_id,
        "status": outcome.status,
        "reused": outcome.reused,
        "findings": [asdict(finding) for finding in outcome.findings],
        "quality": dict(record.quality) if record else {},
    }
