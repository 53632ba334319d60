"""Read `studies.csv`: one row a nodule and time point; every fault is reported at once."""

from __future__ import annotations

import csv
import datetime as dt
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nognet.errors import SiteDataError

REQUIRED_COLUMNS = ("patient", "nodule", "date", "image", "mask")
OPTIONAL_COLUMNS = ("segment", "series")
MOST_FAULTS_SHOWN = 50


@dataclass(frozen=True)
class StudyRow:
    """One nodule at one time.

    Attributes:
        line: Line in the file, the header being line 1.
        patient: Name of the patient as the site writes it.
        nodule: Name of the nodule, the same at all times.
        date: Day of the CT.
        image: CT: a folder of DICOM, or a file.
        mask: Mask: DICOM SEG, RTSTRUCT, or an image file.
        segment: Label, name or number of the nodule in the mask; None where there is only one.
        series: SeriesInstanceUID of the CT; None where the folder holds only one.
    """

    line: int
    patient: str
    nodule: str
    date: dt.date
    image: Path
    mask: Path
    segment: str | None = None
    series: str | None = None


def read_studies(path: Path) -> tuple[StudyRow, ...]:
    """Read and check the table; paths in it are relative to its folder.

    Raises:
        SiteDataError: the file is missing, holds no rows, or has faults (all are listed).
    """
    lines = _read_lines(path)
    reader = csv.DictReader(lines, restkey="(more)", strict=True)
    try:
        header = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = header
        values = [(reader.line_num, row) for row in reader]
    except csv.Error as err:
        raise SiteDataError(f"{path}: not a CSV table ({err})", code="studies") from err
    faults = list(_header_faults(header))
    if faults:
        raise _faulty(path, faults)
    rows: list[StudyRow] = []
    for line, cells in values:
        row, found = _row(line, cells, path.resolve().parent)
        faults += found
        rows += [row] if row else []
    faults += _duplicates(rows)
    if faults:
        raise _faulty(path, faults)
    if not rows:
        raise SiteDataError(
            f"{path}: the table has no rows; give one row a nodule and time point",
            code="empty-site",
        )
    return tuple(rows)


def by_patient(rows: Sequence[StudyRow]) -> dict[str, tuple[StudyRow, ...]]:
    """Group rows by patient, each sorted by nodule and date."""
    groups: dict[str, list[StudyRow]] = {}
    for row in rows:
        groups.setdefault(row.patient, []).append(row)
    return {
        patient: tuple(sorted(group, key=lambda r: (r.nodule, r.date)))
        for patient, group in sorted(groups.items())
    }


def _read_lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as err:
        raise SiteDataError(
            f"{path}: no such file; 'studies' in site.yaml has to name the table of studies",
            code="missing-file",
        ) from err
    except (OSError, UnicodeDecodeError) as err:
        raise SiteDataError(
            f"{path}: can't be read as UTF-8 text ({type(err).__name__})", code="studies"
        ) from err
    return text.splitlines(keepends=True)


def _header_faults(header: Sequence[str]) -> Iterator[str]:
    known = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
    missing = [name for name in REQUIRED_COLUMNS if name not in header]
    if missing == list(REQUIRED_COLUMNS) and len(header) <= 1:
        shown = header[0][:60] if header else ""
        yield f"row 1: expected '{','.join(REQUIRED_COLUMNS)}[,segment]', found '{shown}'"
        return
    for name in header:
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.7)
        if name not in known and near and near[0] not in header:
            yield f"row 1, column '{name}': unknown column; did you mean '{near[0]}'?"
            missing = [column for column in missing if column != near[0]]
    for name in missing:
        yield f"row 1, column '{name}': missing; this column is needed"
    for name in known:
        if header.count(name) > 1:
            yield f"row 1, column '{name}': given {header.count(name)} times"


def _row(
    line: int, cells: Mapping[str, str | None], base: Path
) -> tuple[StudyRow | None, list[str]]:
    """Read one row; faults as sentences with row and column."""
    values = {name: (cell or "").strip() for name, cell in cells.items() if name != "(more)"}
    faults = [
        f"row {line}, column '{name}': empty" for name in REQUIRED_COLUMNS if not values.get(name)
    ]
    if "(more)" in cells:
        faults.append(f"row {line}: more cells than columns; quote cells that hold a comma")
    date = None
    if values.get("date"):
        try:
            date = dt.datetime.strptime(values["date"], "%Y-%m-%d").date()  # noqa: DTZ007  a day
        except ValueError:
            faults.append(
                f"row {line}, column 'date': '{values['date']}' is no ISO date (YYYY-MM-DD)"
            )
    paths = {name: base / values[name] for name in ("image", "mask") if values.get(name)}
    faults += [
        f"row {line}, column '{name}': no such file or folder: {file}"
        for name, file in paths.items()
        if not file.exists()
    ]
    if faults or date is None:
        return None, faults
    row = StudyRow(
        line=line,
        patient=values["patient"],
        nodule=values["nodule"],
        date=date,
        image=paths["image"],
        mask=paths["mask"],
        segment=values.get("segment") or None,
        series=values.get("series") or None,
    )
    return row, []


def _duplicates(rows: Sequence[StudyRow]) -> Iterator[str]:
    first: dict[tuple[str, str, dt.date], int] = {}
    for row in rows:
        line = first.setdefault((row.patient, row.nodule, row.date), row.line)
        if line != row.line:
            yield (
                f"row {row.line}, column 'date': the same patient, nodule and date as in row {line}"
            )


def _faulty(path: Path, faults: Sequence[str]) -> SiteDataError:
    noun = "fault" if len(faults) == 1 else "faults"
    shown = [f"  {fault}" for fault in faults[:MOST_FAULTS_SHOWN]]
    if len(faults) > MOST_FAULTS_SHOWN:
        shown.append(f"  ... and {len(faults) - MOST_FAULTS_SHOWN} more")
    return SiteDataError("\n".join([f"{path}: {len(faults)} {noun}", *shown]), code="studies")
