"""Choose for one patient what `nognet scan` proposes: a series a date, its mask, its nodules.

Pure functions on what the headers say. The rules, in this order:

1. Only axial series that make a volume and have a date are candidates.
2. A series that a mask was drawn on wins, then one that shares a mask's frame of reference.
3. The same kernel at all times: the one that most dates offer, of equals the one with the thinnest
   slices.
4. Then the thinnest slices, then the most slices.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nognet.data.site.scan_masks import ScannedMask, Segment
from nognet.data.site.scan_values import LeftAside, ScannedSeries, as_cell
from nognet.data.site.studies import EVERY_NODULE

DEFAULT_SEGMENTS = r"nodule|tumou?r|lesion|mass|gtv|neoplasm|finding"
"""Names of segments taken for nodules, in any case of letters."""
ONLY_NODULE = "1"
DRAWN_ON, SAME_FRAME, NO_MASK = 0, 1, 2


@dataclass(frozen=True)
class ProposedRow:
    """One row of the proposed table; `segment` and `series` may be empty."""

    patient: str
    nodule: str
    date: dt.date
    image: Path
    mask: Path
    segment: str
    series: str


@dataclass(frozen=True)
class Choice:
    """Which series was chosen for a patient and date, and why.

    Attributes:
        patient: As in the table.
        date: Day of the CT.
        series: The series chosen.
        masks: Masks of it that rows were made of.
        why: A sentence.
        instead_of: Series left aside, each with what spoke against it.
        notes: Things to know: thick slices, folders without PatientID, dates that disagree.
    """

    patient: str
    date: dt.date
    series: ScannedSeries
    masks: tuple[ScannedMask, ...]
    why: str
    instead_of: tuple[tuple[ScannedSeries, str], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class PatientProposal:
    """What is proposed for one patient; no rows where nothing can be."""

    patient: str
    rows: tuple[ProposedRow, ...]
    choices: tuple[Choice, ...]
    left_aside: tuple[LeftAside, ...]


@dataclass(frozen=True)
class Candidate:
    """A series that could be chosen, with the masks that belong to it and how closely."""

    series: ScannedSeries
    masks: tuple[ScannedMask, ...]
    tier: int


@dataclass(frozen=True)
class _Drawn:
    """A segment taken for a nodule, in its mask."""

    mask: ScannedMask
    segment: Segment
    name: str
    cell: str


def propose_patient(
    patient: str,
    series: Sequence[ScannedSeries],
    masks_of: Mapping[int, tuple[tuple[ScannedMask, ...], int]],
    *,
    pattern: re.Pattern[str],
    max_slice_mm: float,
) -> PatientProposal:
    """Choose series, masks and nodules of a patient.

    Args:
        patient: As in the table.
        series: All CT series of the patient.
        masks_of: Masks by position in `series`, with `DRAWN_ON` or `SAME_FRAME`.
        pattern: Names of segments that are nodules.
        max_slice_mm: Thicker slices are noted.
    """
    left_aside: list[LeftAside] = []
    if len({s.who.person for s in series if s.who.person}) > 1:
        reason = (
            "birth date or sex differ between files of this PatientID: they may be of several "
            "people; give each a row of its own by hand"
        )
        return PatientProposal(
            patient, (), (), (LeftAside(series[0].path, "mixed-patients", reason, patient),)
        )
    by_date: dict[dt.date, list[Candidate]] = defaultdict(list)
    for number, one in enumerate(series):
        fault = why_not(one)
        if fault is not None or one.date is None:
            code, reason = fault or ("no-date", "there is no date")
            left_aside.append(_aside(one, code, reason))
            continue
        masks, tier = masks_of.get(number, ((), NO_MASK))
        by_date[one.date].append(Candidate(one, masks, tier))
    kernel = choose_kernel(by_date)
    choices: list[Choice] = []
    drawn: dict[dt.date, list[_Drawn]] = {}
    for date, candidates in sorted(by_date.items()):
        choice = _choose(date, candidates, kernel, max_slice_mm)
        choices.append(choice)
        left_aside += [_aside(other, "not-chosen", why) for other, why in choice.instead_of]
        found, aside = _nodules_drawn(choice, pattern)
        left_aside += aside
        if found:
            drawn[date] = found
    if len(drawn) < 2:
        left_aside.append(_too_few(patient, series, by_date, drawn))
        return PatientProposal(patient, (), tuple(choices), tuple(left_aside))
    rows, aside = _name_rows({c.date: c for c in choices}, drawn)
    return PatientProposal(patient, tuple(rows), tuple(choices), (*left_aside, *aside))


def why_not(series: ScannedSeries) -> tuple[str, str] | None:
    """Say with a code why a series is no candidate; None where it is one."""
    if not series.usable:
        refused = [f for f in series.findings if f.severity == "refused"] or list(series.findings)
        if not refused:
            return "no-position", "the images make no volume"
        return refused[0].code, "; ".join(dict.fromkeys(f.message for f in refused))
    if series.plane != "axial":
        return "not-axial", f"{series.plane or 'turned'} slices, not axial"
    if series.date is None:
        return "no-date", "the headers have no date; give the row by hand"
    if series.shares_folder and not series.key:
        return "empty-uids", "SeriesInstanceUID is empty and other series lie in its folder"
    return None


def choose_kernel(by_date: Mapping[dt.date, Sequence[Candidate]]) -> str | None:
    """Choose the kernel that most dates offer, then the thinnest; None without candidates.

    Only the candidates nearest to a mask count: another series would not be chosen anyway.
    """
    slices_mm: dict[str, list[float]] = defaultdict(list)
    for candidates in by_date.values():
        nearest = min(candidate.tier for candidate in candidates)
        thinnest: dict[str, float] = {}
        for candidate in candidates:
            if candidate.tier == nearest:
                kernel, slice_mm = candidate.series.kernel, candidate.series.slice_mm or 1e9
                thinnest[kernel] = min(slice_mm, thinnest.get(kernel, slice_mm))
        for kernel, slice_mm in thinnest.items():
            slices_mm[kernel].append(slice_mm)
    if not slices_mm:
        return None
    return min(slices_mm, key=lambda k: (-len(slices_mm[k]), max(slices_mm[k]), k))


def _rank(candidate: Candidate, kernel: str | None) -> tuple[int, bool, float, float, int, str]:
    series = candidate.series
    return (
        candidate.tier,
        series.kernel != kernel,
        round(series.slice_mm or 1e9, 2),
        round(series.gap_mm or 1e9, 2),
        -series.slices,
        f"{series.key} {series.path}",
    )


def _choose(
    date: dt.date, candidates: Sequence[Candidate], kernel: str | None, max_slice_mm: float
) -> Choice:
    first, *others = sorted(candidates, key=lambda c: _rank(c, kernel))
    best = _rank(first, kernel)
    return Choice(
        patient=first.series.who.patient,
        date=date,
        series=first.series,
        masks=first.masks,
        why=_why(first, others, kernel) if others else "the only usable series of its date",
        instead_of=tuple((o.series, _against(o, best, kernel)) for o in others),
        notes=tuple(_notes(first.series, max_slice_mm)),
    )


def _why(first: Candidate, others: Sequence[Candidate], kernel: str | None) -> str:
    """Name what set the chosen series apart from the others."""
    rivals = [other for other in others if other.tier == first.tier]
    words = []
    if len(rivals) < len(others):
        words.append("a mask was drawn on it" if first.tier == DRAWN_ON else "a mask fits it")
    alike = [rival for rival in rivals if rival.series.kernel == first.series.kernel]
    if len(alike) < len(rivals):
        same = first.series.kernel == kernel
        words.append("its kernel is there at most dates" if same else "its kernel")
    if alike:
        thinner = all((r.series.slice_mm or 1e9) > (first.series.slice_mm or 1e9) for r in alike)
        words.append("the thinnest slices" if thinner else "thin slices, and most of them")
    return ", ".join(words)


def _against(
    candidate: Candidate, best: tuple[int, bool, float, float, int, str], kernel: str | None
) -> str:
    """Say by what a series lost: the first rule in which it is behind."""
    series, rank = candidate.series, _rank(candidate, kernel)
    place = next(i for i in range(len(rank)) if rank[i] != best[i])
    return (
        "no mask was drawn on it" if candidate.tier == NO_MASK else "a mask only shares its frame",
        f"kernel {series.kernel or 'not named'}, not {kernel or 'not named'} as at most dates",
        f"thicker: {series.slice_mm or 0:g} mm",
        f"wider apart: {series.gap_mm or 0:g} mm",
        f"fewer slices: {series.slices}",
        "alike in all; the other comes first by its UID",
    )[place]


def _notes(series: ScannedSeries, max_slice_mm: float) -> list[str]:
    notes = []
    if series.slice_mm and series.slice_mm > max_slice_mm + 1e-6:
        notes.append(f"slices of {series.slice_mm:g} mm are thick; check will warn")
    if series.who.from_folder:
        notes.append("PatientID is empty; the folder's name is taken for it")
    known = [day for day in series.who.dates if day]
    if known and (max(known) - min(known)).days > 1:
        notes.append(
            "the headers' dates disagree by "
            f"{(max(known) - min(known)).days} days; AcquisitionDate is taken first"
        )
    return notes


def _nodules_drawn(
    choice: Choice, pattern: re.Pattern[str]
) -> tuple[list[_Drawn], list[LeftAside]]:
    """Find the segments of a date that are nodules; of several of one name one is taken."""
    by_name: dict[str, list[_Drawn]] = defaultdict(list)
    aside: list[LeftAside] = []
    patient, day = choice.patient, choice.date.isoformat()
    for mask in choice.masks:
        cells = _segment_cells(mask)
        labels = Counter(as_cell(segment.label) for segment in mask.segments)
        for segment in mask.segments:
            name = as_cell(segment.label)
            if labels[name] > 1 or not name:  # two nodules of one name, most likely
                name = f"{name or 'segment'} {segment.number}"
            cell = cells.get(segment.number)
            if not pattern.search(segment.label):
                reason = f"segment '{name}' is no nodule by its name (--segment changes that)"
                aside.append(LeftAside(mask.path, "segment", reason, patient, day))
            elif cell is None:
                reason = f"segment '{name}' can't be named apart from the others"
                aside.append(LeftAside(mask.path, "mask-segment", reason, patient, day))
            else:
                by_name[name].append(_Drawn(mask, segment, name, cell))
    taken = []
    for name, found in by_name.items():
        best = max(found, key=lambda d: (d.mask.modality == "SEG", d.mask.made, d.mask.sop_uid))
        taken.append(best)
        for other in found:
            if other is not best:
                reason = (
                    f"'{name}' is drawn in {best.mask.path.name} too ({best.mask.modality}); that "
                    "one is taken, by SEG before RTSTRUCT, then the latest; if they are two "
                    "nodules give the row by hand"
                )
                aside.append(LeftAside(other.mask.path, "mask-repeated", reason, patient, day))
    return sorted(taken, key=lambda d: (str(d.mask.path), d.segment.number)), aside


def _segment_cells(mask: ScannedMask) -> dict[int, str]:
    """Give for each segment the text by which `nognet prepare` finds it; absent where none does."""
    labels = Counter(segment.label for segment in mask.segments)
    numbers = Counter(segment.number for segment in mask.segments)
    cells: dict[int, str] = {}
    for segment in mask.segments:
        if numbers[segment.number] > 1:
            continue
        as_number = str(segment.number)
        if segment.label and labels[segment.label] == 1 and as_cell(segment.label) == segment.label:
            cells[segment.number] = segment.label
        elif as_number not in labels:
            cells[segment.number] = as_number
    return cells


def _name_rows(
    choices: Mapping[dt.date, Choice], drawn: Mapping[dt.date, Sequence[_Drawn]]
) -> tuple[list[ProposedRow], list[LeftAside]]:
    """Name the nodules: "1", the segments' names, or every nodule of the mask together."""
    names = {date: {d.name for d in found} for date, found in drawn.items()}
    if all(len(found) == 1 for found in drawn.values()):
        return [_row(choices[day], ONLY_NODULE, found[0]) for day, found in drawn.items()], []
    if len(set(map(frozenset, names.values()))) == 1:
        return [_row(choices[day], d.name, d) for day, found in drawn.items() for d in found], []
    if all(_is_whole_mask(found) for found in drawn.values()):
        every = [_row(choices[day], EVERY_NODULE, found[0]) for day, found in drawn.items()]
        return every, []
    times = Counter(name for found in names.values() for name in found)
    rows, aside = [], []
    for day, found in drawn.items():
        for d in found:
            if times[d.name] > 1:
                rows.append(_row(choices[day], d.name, d))
                continue
            reason = (
                f"segment '{d.name}' is drawn at one date only; if it is a nodule that goes by "
                "another name at the other dates, give the rows by hand"
            )
            patient = choices[day].patient
            aside.append(LeftAside(d.mask.path, "one-date", reason, patient, day.isoformat()))
    return rows, aside


def _is_whole_mask(found: Sequence[_Drawn]) -> bool:
    """Tell whether nodules are all that one mask file holds, so that it may be read as a whole."""
    masks = {d.mask.path for d in found}
    return len(masks) == 1 and len(found) == len(found[0].mask.segments)


def _row(choice: Choice, nodule: str, drawn: _Drawn) -> ProposedRow:
    return ProposedRow(
        patient=choice.patient,
        nodule=nodule,
        date=choice.date,
        image=choice.series.path,
        mask=drawn.mask.path,
        segment="" if nodule == EVERY_NODULE else drawn.cell,
        series=choice.series.key if choice.series.shares_folder else "",
    )


def _too_few(
    patient: str,
    series: Sequence[ScannedSeries],
    by_date: Mapping[dt.date, Sequence[Candidate]],
    drawn: Mapping[dt.date, Sequence[_Drawn]],
) -> LeftAside:
    """Say why a patient has no pair."""
    path = series[0].path
    if not by_date:
        return LeftAside(path, "no-series", "no CT series can be used", patient)
    if len(by_date) == 1:
        [(day, candidates)] = by_date.items()
        studies = len({candidate.series.study_uid for candidate in candidates})
        reason = "one date only; a pair needs two"
        if studies > 1:
            reason += (
                f" ({studies} studies bear it: if de-identification set all dates alike, the "
                "intervals are lost)"
            )
        return LeftAside(path, "one-date", reason, patient, day.isoformat())
    reason = f"{len(drawn)} of {len(by_date)} dates have a nodule drawn; a pair needs two"
    return LeftAside(path, "mask-absent", reason, patient)


def _aside(series: ScannedSeries, code: str, reason: str) -> LeftAside:
    day = series.date.isoformat() if series.date else ""
    return LeftAside(series.path, code, f"{describe(series)}: {reason}", series.who.patient, day)


def describe(series: ScannedSeries) -> str:
    """Describe a series in a few words: kernel, thickness, slices."""
    thickness = f"{series.slice_mm:g} mm" if series.slice_mm else "thickness not known"
    return f"kernel {series.kernel or 'not named'}, {thickness}, {series.slices} images"
