"""Read `studies.csv`: one row a nodule and time point; every fault is reported at once."""

from __future__ import annotations

import codecs
import csv
import datetime as dt
import difflib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nognet.errors import SiteDataError

REQUIRED_COLUMNS = ("patient", "nodule", "date", "image", "mask")
OPTIONAL_COLUMNS = ("segment", "series")
EVERY_NODULE = "*"
"""In the column 'nodule': every nodule of the mask, matched across time by its place."""
MOST_FAULTS_SHOWN = 50
MOST_SHOWN_OF_A_CELL = 120
_MAY_BE_EMPTY = ("mask",)
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_OTHER_ENCODINGS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}
_EXCEL_DAYS = range(10_000, 80_000)


@dataclass(frozen=True)
class StudyRow:
    """One nodule at one time.

    Attributes:
        line: Line in the file, the header being line 1.
        patient: Name of the patient as the site writes it.
        nodule: Name of the nodule, the same at all times; ``*`` for every nodule of the mask.
        date: Day of the CT.
        image: CT: a folder of DICOM, or a file.
        mask: Mask: DICOM SEG, RTSTRUCT, or an image file; None where the cell is empty.
        segment: Label, name or number of the nodule in the mask; None where there is only one.
        series: SeriesInstanceUID of the CT; None where the folder holds only one.
    """

    line: int
    patient: str
    nodule: str
    date: dt.date
    image: Path
    mask: Path | None
    segment: str | None = None
    series: str | None = None


def read_studies(path: Path) -> tuple[StudyRow, ...]:
    """Read and check the table; paths in it are relative to its folder.

    Raises:
        SiteDataError: the file is missing, holds no rows, or has faults (all are listed).
    """
    reader = csv.DictReader(io.StringIO(_read_text(path), newline=""), strict=True)
    try:
        header = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = header
        values = [(reader.line_num, row) for row in reader]
    except csv.Error as err:
        raise SiteDataError(
            f"{path}: not a CSV table: row {reader.line_num + 1}: {err}; write it as CSV with "
            "commas, cells with a comma or a line break in double quotes",
            code="studies",
        ) from err
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


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError as err:
        raise SiteDataError(
            f"{path}: no such file; 'studies' in site.yaml has to name the table of studies",
            code="missing-file",
        ) from err
    except (OSError, ValueError) as err:  # ValueError: a NUL in the path
        reason = getattr(err, "strerror", None) or type(err).__name__
        raise SiteDataError(
            f"{_shown(str(path))}: the table can't be read ({reason}); 'studies' in site.yaml has "
            "to name a CSV file",
            code="studies",
        ) from err
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        found = next((name for mark, name in _OTHER_ENCODINGS.items() if raw.startswith(mark)), "")
        row = raw.count(b"\n", 0, err.start) + 1
        why = f"it is {found}" if found else f"row {row} is in another encoding"
        raise SiteDataError(
            f"{path}: can't be read as UTF-8 text: {why}; save it as 'CSV UTF-8'",
            code="studies",
        ) from err


def _header_faults(header: Sequence[str]) -> Iterator[str]:
    known = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
    missing = [name for name in REQUIRED_COLUMNS if name not in header]
    if missing == list(REQUIRED_COLUMNS) and len(header) <= 1:
        found = header[0] if header else ""
        other = next((word for mark, word in _OTHER_SEPARATORS.items() if mark in found), "")
        advice = f"; cells are parted by {other}: save the table with commas" if other else ""
        wanted = ",".join(REQUIRED_COLUMNS)
        yield f"row 1: expected '{wanted}[,segment][,series]', found '{_shown(found)}'{advice}"
        return
    for name in header:
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.7)
        if name not in known and near and near[0] not in header:
            yield f"row 1, column '{_shown(name)}': unknown column; did you mean '{near[0]}'?"
            missing = [column for column in missing if column != near[0]]
    for name in missing:
        yield f"row 1, column '{name}': missing; this column is needed"
    for name in known:
        if header.count(name) > 1:
            yield f"row 1, column '{name}': given {header.count(name)} times"


def _row(
    line: int, cells: Mapping[str | None, str | None], base: Path
) -> tuple[StudyRow | None, list[str]]:
    """Read one row; faults as sentences with row and column."""
    values = {name: (cell or "").strip() for name, cell in cells.items() if name is not None}
    faults = [
        f"row {line}, column '{name}': empty"
        for name in REQUIRED_COLUMNS
        if not values.get(name) and name not in _MAY_BE_EMPTY
    ]
    if None in cells:
        faults.append(f"row {line}: more cells than columns; quote cells that hold a comma")
    date = None
    if values.get("date"):
        date, fault = _date(values["date"])
        faults += [f"row {line}, column 'date': {fault}"] if fault else []
    paths = {name: base / values[name] for name in ("image", "mask") if values.get(name)}
    for name, file in paths.items():
        fault = _absent(file)
        faults += [f"row {line}, column '{name}': {fault}"] if fault else []
    if faults or date is None:
        return None, faults
    row = StudyRow(
        line=line,
        patient=values["patient"],
        nodule=values["nodule"],
        date=date,
        image=paths["image"],
        mask=paths.get("mask"),
        segment=values.get("segment") or None,
        series=values.get("series") or None,
    )
    return row, []


def _date(text: str) -> tuple[dt.date | None, str]:
    """Read a day; else say what is wrong with it."""
    try:
        return dt.datetime.strptime(text, "%Y-%m-%d").date(), ""  # noqa: DTZ007  a day
    except ValueError:
        fault = f"'{_shown(text)}' is no ISO date (YYYY-MM-DD)"
    if text.isascii() and text.isdigit() and len(text) == 5 and int(text) in _EXCEL_DAYS:
        return None, f"{fault}: Excel's number of a day; format the column as YYYY-MM-DD"
    return None, fault


def _absent(path: Path) -> str:
    """Say why there is nothing to read at a path; empty where there is."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the path
        return f"no such file or folder: {_shown(str(path))}"
    except OSError as err:
        return f"can't be reached ({err.strerror}): {_shown(str(path))}"
    return ""


def _shown(text: str) -> str:
    """Cut a cell short and leave out what a terminal would act on."""
    clean = "".join(c if c.isprintable() else "?" for c in text[: MOST_SHOWN_OF_A_CELL + 1])
    return clean if len(clean) <= MOST_SHOWN_OF_A_CELL else clean[:MOST_SHOWN_OF_A_CELL] + "..."


def _duplicates(rows: Sequence[StudyRow]) -> Iterator[str]:
    """Find rows that say the same twice; several CTs of one day are no fault."""
    first: dict[tuple[object, ...], int] = {}
    for row in rows:
        key = (row.patient, row.nodule, row.date, row.image, row.series)
        line = first.setdefault(key, row.line)
        if line != row.line:
            yield (
                f"row {row.line}, column 'date': the same patient, nodule, date and image as in "
                f"row {line}"
            )


def _faulty(path: Path, faults: Sequence[str]) -> SiteDataError:
    noun = "fault" if len(faults) == 1 else "faults"
    shown = [f"  {fault}" for fault in faults[:MOST_FAULTS_SHOWN]]
    if len(faults) > MOST_FAULTS_SHOWN:
        shown.append(f"  ... and {len(faults) - MOST_FAULTS_SHOWN} more")
    return SiteDataError("\n".join([f"{path}: {len(faults)} {noun}", *shown]), code="studies")
