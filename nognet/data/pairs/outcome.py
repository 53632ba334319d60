"""What became of each pair: values that stay at the site, and how they are remembered there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from nognet.data.findings import Finding
from nognet.data.inspection import Inspected
from nognet.data.pairs.gate import advice_for
from nognet.data.stored_pair import PairRecord
from nognet.types import RoiPair

PairStatus = Literal["ok", "warning", "refused", "skipped"]
TRANSIENT = frozenset(
    {
        "unreadable",
        "missing-file",
        "unexpected",
        "cache-write",
        "state-write",
        "disk-full",
        "prior-unread",
    }
)
"""Codes of what may be otherwise next time: outcomes with them are not remembered."""
_ROW = re.compile("\ue000([012])\\.([0-9]+)\ue001")


@dataclass(frozen=True)
class PairOutcome:
    """What became of one pair; stays at the site, for it names patient and nodule.

    Attributes:
        patient: As in `studies.csv`.
        nodule: As in `studies.csv`; where a mask has several, with the part's label after a dot.
        lines: Lines in `studies.csv` of baseline and follow-up.
        pair_id: Pseudonym.
        patient_id: Pseudonym.
        status: ``ok``, ``warning``, ``refused``, or ``skipped`` where no pair could be made.
        findings: All that was found.
        record: The stored pair; None where it was refused.
        reused: It was known already from an earlier run.
        interval_days: Days between the two times by the table.
        volumes_mm3: On the native grids; None where they were not measured.
        quality: Figures by name; empty where the pair was not cut.
        cut: The pair as cut although it was refused; None unless it was asked for.
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
    interval_days: int = 0
    volumes_mm3: tuple[float, float] | None = None
    quality: Mapping[str, float] = field(default_factory=dict)
    cut: RoiPair | None = None

    def also(self, *findings: Finding) -> PairOutcome:
        """Add findings, and let the status follow."""
        found = (*self.findings, *findings)
        return replace(self, findings=found, status=status_of(found))


@dataclass(frozen=True)
class NoduleOutcome:
    """What became of one nodule between two times, whatever line of the table it stands on.

    Attributes:
        name: The nodule's name in the table.
        part: Label of the part at the baseline (or, of a new one, at the follow-up); empty where
            the mask holds one nodule.
        rows: Places of the two rows among the rows of their times.
        findings: Messages name rows by tokens (`row_token`).
        volumes_mm3: On the native grids; None where they were not measured.
        quality: Figures by name.
        stored: Whether a pair was written to the cache.
        was_cut: Whether a pair was cut.
        cut: The pair as cut although it was refused; None unless it was asked for.
    """

    name: str
    part: str
    rows: tuple[int, int]
    findings: tuple[Finding, ...]
    volumes_mm3: tuple[float, float] | None = None
    quality: Mapping[str, float] = field(default_factory=dict)
    stored: bool = False
    was_cut: bool = False
    cut: RoiPair | None = None

    @property
    def nodule(self) -> str:
        """Name of the nodule, with its part."""
        return f"{self.name}.{self.part}" if self.part else self.name

    def as_json(self) -> dict[str, Any]:
        """Give the outcome as JSON values, without the images."""
        values = asdict(replace(self, cut=None))
        del values["cut"]
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> NoduleOutcome:
        """Read what `as_json` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        volumes = values["volumes_mm3"]
        first, second = values["rows"]
        return cls(
            name=str(values["name"]),
            part=str(values["part"]),
            rows=(int(first), int(second)),
            findings=findings_from(values["findings"]),
            volumes_mm3=(float(volumes[0]), float(volumes[1])) if volumes else None,
            quality={str(name): float(v) for name, v in values["quality"].items()},
            stored=bool(values["stored"]),
            was_cut=bool(values["was_cut"]),
        )


@dataclass(frozen=True)
class TimeFacts:
    """What is known of one time point once it was read; names no line of the table.

    Attributes:
        ct: The CT's row.
        masks: One row a mask, in the order of the time point's rows.
        pixels: Keyed digest of the CT's values; empty where it couldn't be read.
        header_patient: Keyed digest of the headers' PatientID; empty where there is none.
    """

    ct: Inspected
    masks: tuple[Inspected, ...]
    pixels: str
    header_patient: str

    def as_json(self) -> dict[str, Any]:
        """Give the facts as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TimeFacts:
        """Read what `as_json` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        return cls(
            ct=_inspected(values["ct"]),
            masks=tuple(_inspected(row) for row in values["masks"]),
            pixels=str(values["pixels"]),
            header_patient=str(values["header_patient"]),
        )


@dataclass(frozen=True)
class TimeSummary:
    """A time point of the table: its lines, and what is known of it."""

    lines: tuple[int, ...]
    facts: TimeFacts
    identity: str
    """Keyed digest by which the same CT is known under another patient."""


@dataclass(frozen=True)
class PatientResult:
    """All pairs of a patient, all time points, and where time went."""

    patient_id: str
    outcomes: tuple[PairOutcome, ...]
    times: tuple[TimeSummary, ...]
    seconds: dict[str, float]


def status_of(findings: Iterable[Finding]) -> PairStatus:
    """Name the status of a pair by the worst of its findings."""
    found = {finding.severity for finding in findings}
    if "refused" in found:
        return "refused"
    if "skipped" in found:
        return "skipped"
    return "warning" if found else "ok"


def row_token(time: Literal[0, 1, 2], place: int) -> str:
    """Stand in a message for a row of baseline (0), follow-up (1) or prior scan (2)."""
    return f"\ue000{time}.{place}\ue001"


def of_prior(message: str, offset: int) -> str:
    """Let rows of a follow-up in a message be rows of the prior scan, so many places further on."""

    def moved(found: re.Match[str]) -> str:
        return row_token(2, int(found[2]) + offset) if found[1] == "1" else found[0]

    return _ROW.sub(moved, message)


def with_lines(
    findings: Iterable[Finding], lines: tuple[Sequence[int], Sequence[int], Sequence[int]]
) -> tuple[Finding, ...]:
    """Put the table's lines (of baseline, follow-up, prior scan) where tokens stand for them."""

    def line(found: re.Match[str]) -> str:
        of_time, place = lines[int(found[1])], int(found[2])
        return str(of_time[place]) if place < len(of_time) else "?"

    return tuple(replace(f, message=_ROW.sub(line, f.message)) for f in findings)


def findings_from(values: Iterable[Mapping[str, Any]]) -> tuple[Finding, ...]:
    """Read findings back from JSON values.

    Raises:
        KeyError, TypeError: they are something else.
    """
    return tuple(Finding(v["code"], v["severity"], v["message"]) for v in values)


def outcome_as_json(outcome: PairOutcome) -> dict[str, object]:
    """Write an outcome as JSON values, for the site's own eyes."""
    volumes = outcome.volumes_mm3
    return {
        "patient": outcome.patient,
        "nodule": outcome.nodule,
        "lines": list(outcome.lines),
        "pair_id": outcome.pair_id,
        "status": outcome.status,
        "reused": outcome.reused,
        "interval_days": outcome.interval_days,
        "volumes_mm3": [round(v, 3) for v in volumes] if volumes else None,
        "findings": [
            {**asdict(finding), "advice": advice_for(finding.code)} for finding in outcome.findings
        ],
        "quality": dict(outcome.quality),
    }


def _inspected(values: Mapping[str, Any]) -> Inspected:
    """Read a row back from the JSON values of its fields."""
    filled = dict(values)
    for name in ("size", "spacing_mm", "hu_range"):
        filled[name] = tuple(filled[name]) if filled[name] is not None else None
    filled["findings"] = findings_from(filled["findings"])
    return Inspected(**filled)
