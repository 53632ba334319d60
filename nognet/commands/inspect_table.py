"""Rows of an inspection as lines of text."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from nognet.commands.lines import WIDTH, advice_lines, harmless, wrapped
from nognet.data.inspection import Inspected, Kind

INDENT = " " * 9
PATH_AT_LEAST = 20
LINES_OF_A_REASON = 12
"""So many folders of files left aside for one reason are listed, the others counted."""
_HEADINGS = ("status", "what", "size", "spacing mm", "plane", "kernel", "HU")
_NOUNS: dict[Kind, tuple[str, str]] = {
    "ct": ("CT series", "CT series"),
    "mask": ("mask", "masks"),
    "image": ("other image series", "other image series"),
    "file": ("other file", "other files"),
    "archive": ("unopened archive", "unopened archives"),
}


def as_table(
    rows: Sequence[Inspected], path: Path, *, width: int = WIDTH, advice: bool = True
) -> Iterator[str]:
    """Write the table, what was left aside, what to do, and a line that sums it up.

    Args:
        rows: What was found.
        path: Paths are shown from here.
        width: Columns.
        advice: Whether to say what to do.
    """
    return harmless(_lines(rows, path, width, advice=advice))


def _lines(rows: Sequence[Inspected], path: Path, width: int, *, advice: bool) -> Iterator[str]:
    told = [row for row in rows if row.status != "skipped"]
    skipped = [row for row in rows if row.status == "skipped"]
    if told:
        yield from _table(told, path, width)
        yield ""
    if skipped:
        yield "Left aside:"
        yield from _left_aside(skipped, path, width)
        yield ""
    counts = Counter(code for row in told for code in row.codes)
    to_do = list(advice_lines(counts, "row", width=width)) if advice else []
    if to_do:
        yield from to_do
        yield ""
    yield summary(rows, path)


def summary(rows: Sequence[Inspected], path: Path) -> str:
    """Count kinds and outcomes in one line."""
    kinds = Counter(row.kind for row in rows)
    found = [f"{kinds[k]} {_NOUNS[k][kinds[k] != 1]}" for k in _NOUNS if kinds[k] or k == "ct"]
    outcomes = Counter(row.status for row in rows)
    shown = [f"{outcomes[status]} {status}" for status in ("ok", "warning", "refused", "skipped")]
    return f"{path}: {', '.join(found)}: {', '.join(shown)}"


def _table(rows: Sequence[Inspected], root: Path, width: int) -> Iterator[str]:
    """Align the columns, the path last and wrapped; each row's findings follow it."""
    cells = [_cells(row) for row in rows]
    widths = [max(len(heading), *(len(c[i]) for c in cells)) for i, heading in enumerate(_HEADINGS)]
    left = max(PATH_AT_LEAST, width - sum(widths) - 2 * len(widths))
    before = " " * (sum(widths) + 2 * len(widths))
    headings = "  ".join(h.ljust(w) for h, w in zip(_HEADINGS, widths, strict=True))
    yield f"{headings}  path"
    shared = Counter(path for path, _ in {(r.path, r.series_uid) for r in rows if r.kind == "ct"})
    for row, columns in zip(rows, cells, strict=True):
        line = "  ".join(cell.ljust(w) for cell, w in zip(columns, widths, strict=True))
        first, *more = _path_lines(_below(row.path, root), left)
        yield f"{line}  {first}"
        yield from (f"{before}{part}" for part in more)
        if row.kind == "ct" and shared[row.path] > 1:  # what the column 'series' needs
            yield f"{INDENT}series {row.series_uid}"
        yield from _said(row, width)


def _path_lines(path: str, width: int) -> list[str]:
    """Break a path, after a slash where one is near."""
    lines = []
    while len(path) > width:
        slash = path.rfind("/", width // 3, width)
        cut = slash + 1 if slash >= 0 else width
        lines.append(path[:cut])
        path = path[cut:]
    return [*lines, path]


def _said(row: Inspected, width: int) -> Iterator[str]:
    """Write the findings below a row, the worst first, each under its code."""
    findings = sorted(row.findings, key=lambda f: row.codes.index(f.code))
    said = [f"{f.code}: {_without_code(f.message, f.code)}" for f in findings]
    for text in dict.fromkeys([*said, *([f"note: {row.note}"] if row.note else [])]):
        yield from wrapped(text, INDENT, width=width)


def _without_code(message: str, code: str) -> str:
    """Leave out a message's first words where they only repeat the code."""
    return message.removeprefix(f"{code.replace('-', ' ')}: ")


def _cells(row: Inspected) -> tuple[str, ...]:
    images = f"{row.slices} image{'s' * (row.slices > 1)}" if row.slices else ""
    return (
        row.status,
        row.modality if row.modality in ("CT", "SEG", "RTSTRUCT") else _what(row),
        "x".join(map(str, row.size)) if row.size else images,
        "x".join(f"{value:.2f}".rstrip("0").rstrip(".") for value in row.spacing_mm or ()),
        row.orientation,
        _shortened(row.kernel, 9),
        "{:.0f}..{:.0f}".format(*row.hu_range) if row.hu_range else "",
    )


def _what(row: Inspected) -> str:
    kind = "CT" if row.kind == "ct" else row.kind
    return f"{kind} {row.modality}".rstrip()


def _left_aside(rows: Sequence[Inspected], root: Path, width: int) -> Iterator[str]:
    """Fold rows of one folder and one reason into a line."""
    reasons: dict[tuple[str, str], dict[str, list[Inspected]]] = {}
    for row in rows:
        first = row.findings[0]
        folders = reasons.setdefault((first.code, first.message), defaultdict(list))
        folders[_below(str(Path(row.path).parent), root)].append(row)
    for (code, message), folders in reasons.items():
        count = sum(map(len, folders.values()))
        yield from wrapped(f"{code}: {message} ({count})", "  ", width=width)
        for folder, members in list(folders.items())[:LINES_OF_A_REASON]:
            yield f"    {_place(folder, members, root)}"
        if len(folders) > LINES_OF_A_REASON:
            more = list(folders.values())[LINES_OF_A_REASON:]
            yield f"    ... and {sum(map(len, more))} in {len(more)} more folders (see --json)"


def _place(folder: str, members: Sequence[Inspected], root: Path) -> str:
    if len(members) == 1:
        row = members[0]
        images = f" ({row.slices} images)" if row.slices > 1 else ""
        return f"{_below(row.path, root)}{images}"
    kinds = Counter(row.kind for row in members)
    counted = [f"{n} {_NOUNS[kind][n != 1]}" for kind, n in kinds.items()]
    return f"{', '.join(counted)} in {folder}"


def _below(path: str, root: Path) -> str:
    """Shorten a path to what lies below the root."""
    head = str(root)
    if path == head:
        return root.name or path
    if path.startswith(f"{head}!"):
        return f"{root.name}{path[len(head) :]}"
    return path.removeprefix(f"{head.rstrip('/')}/") if head != "." else path


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}\N{HORIZONTAL ELLIPSIS}"
