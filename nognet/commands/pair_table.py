"""What became of a site's pairs as lines of text and as JSON, for the site's own eyes."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nognet.data.pairs.outcome import PairOutcome
    from nognet.data.site.examine import Examination

WIDTH = 120
INDENT = " " * 10
STATUSES = ("ok", "warning", "refused", "skipped")
_HEADINGS = ("status", "rows", "patient", "nodule", "days", "volumes mm3")
_WIDEST_NAME = 24


def pair_lines(outcomes: Sequence[PairOutcome]) -> Iterator[str]:
    """Write one row a pair; below it each finding and what to do about it."""
    for line in _lines(outcomes):
        # names of the table could hold what steers a terminal
        yield "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)


def one_line(examination: Examination) -> str:
    """Sum up what became of the pairs."""
    outcomes = examination.outcomes
    counts: Counter[str] = Counter(outcome.status for outcome in outcomes)
    reused = sum(outcome.reused for outcome in outcomes)
    words = [f"{len(outcomes)} pairs"]
    words += [f"{counts[s]} {s}" for s in STATUSES if counts[s] or s != "skipped"]
    if reused:
        words.append(f"{reused} reused")
    if examination.patients_without_pair:
        words.append(f"{len(examination.patients_without_pair)} patients without a second date")
    return f"{', '.join(words)} ({examination.seconds['wall']:.1f} s)"


def counts_of(examination: Examination) -> dict[str, Any]:
    """Count rows, patients, series, pairs by status, and codes by pairs."""
    outcomes = examination.outcomes
    series: Counter[str] = Counter(found.row.status for found in examination.series)
    codes = Counter(code for o in outcomes for code in {f.code for f in o.findings})
    return {
        "rows": examination.rows,
        "patients": len({found.patient for found in examination.series}),
        "patients_without_pair": len(examination.patients_without_pair),
        "series": {status: series[status] for status in STATUSES},
        "pairs": {s: sum(o.status == s for o in outcomes) for s in STATUSES},
        "codes": dict(sorted(codes.items())),
    }


def series_json(examination: Examination) -> list[dict[str, Any]]:
    """Give one row a series and mask as JSON values, with the lines of the table."""
    from nognet.data.pairs.gate import advice_for

    return [
        {
            "lines": list(found.lines),
            "patient": found.patient,
            **found.row.as_json(),
            "findings": [
                {
                    "code": f.code, "severity": f.severity, "message": f.message,
                    "advice": advice_for(f.code),
                }
                for f in found.row.findings
            ],
        }
        for found in examination.series
    ]  # fmt: skip


def _lines(outcomes: Sequence[PairOutcome]) -> Iterator[str]:
    cells = [_cells(outcome) for outcome in outcomes]
    columns = [_HEADINGS, *cells]
    widths = [max(len(row[i]) for row in columns) for i in range(len(_HEADINGS))]
    yield "  ".join(h.ljust(w) for h, w in zip(_HEADINGS, widths, strict=True)) + "  codes"
    for outcome, row in zip(outcomes, cells, strict=True):
        codes = ", ".join(dict.fromkeys(f.code for f in outcome.findings)) or "-"
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"{line}  {codes}"
        yield from _findings(outcome)


def _cells(outcome: PairOutcome) -> tuple[str, ...]:
    volumes = outcome.volumes_mm3
    return (
        outcome.status,
        f"{outcome.lines[0]} and {outcome.lines[1]}",
        textwrap.shorten(outcome.patient, _WIDEST_NAME, placeholder="..."),
        textwrap.shorten(outcome.nodule, _WIDEST_NAME, placeholder="..."),
        str(outcome.interval_days),
        f"{volumes[0]:.0f} -> {volumes[1]:.0f}" if volumes else "-",
    )


def _findings(outcome: PairOutcome) -> Iterator[str]:
    """Write what was found, the worst first, and what to do about it."""
    from nognet.data.pairs.gate import advice_for

    order = ("refused", "skipped", "warning")
    for finding in sorted(outcome.findings, key=lambda f: order.index(f.severity)):
        advice = advice_for(finding.code)
        text = f"{finding.code}: {finding.message}" + (f" -> {advice}" if advice else "")
        yield from textwrap.wrap(
            text, WIDTH, initial_indent=INDENT, subsequent_indent=f"{INDENT}  ",
            break_on_hyphens=False,
        )  # fmt: skip
