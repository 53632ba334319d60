"""What became of a site's pairs as lines of text and as JSON, for the site's own eyes."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nognet.commands.lines import WIDTH, advice_lines, harmless, wrapped

if TYPE_CHECKING:
    from nognet.data.pairs.outcome import PairOutcome
    from nognet.data.site.examine import Examination, SeriesRow

INDENT = " " * 10
STATUSES = ("ok", "warning", "refused", "skipped")
_HEADINGS = ("status", "rows", "patient", "nodule", "days", "volumes mm3")
_WIDEST_NAME = 24
WORTH_FOLDING = 80
"""Findings said already are said again in full where they are no longer than this."""


def pair_lines(outcomes: Sequence[PairOutcome], *, width: int = WIDTH) -> Iterator[str]:
    """Write one row a pair and below it each finding; what was said of a pair before is named."""
    return harmless(_lines(outcomes, width))


def to_do_lines(examination: Examination, *, width: int = WIDTH) -> Iterator[str]:
    """Say once a code what to do: for the pairs, then for files that no pair tells of."""
    pairs = Counter(code for o in examination.outcomes for code in {f.code for f in o.findings})
    rows = Counter(code for found in distinct(examination.series) for code in found.row.codes)
    yield from advice_lines(pairs, "pair", width=width)
    others = {code: count for code, count in rows.items() if code not in pairs}
    yield from advice_lines(others, "file", width=width)


def distinct(series: Sequence[SeriesRow]) -> list[SeriesRow]:
    """Give each series and mask once, with all lines that name it: a mask may hold many nodules."""
    merged: dict[tuple[object, ...], SeriesRow] = {}
    for found in series:
        key = (found.patient, found.row)
        known = merged.get(key)
        lines = {*found.lines, *(known.lines if known else ())}
        merged[key] = replace(found, lines=tuple(sorted(lines)))
    return list(merged.values())


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
        count = len(examination.patients_without_pair)
        words.append(f"{count} patient{'s' * (count > 1)} without a pair")
    return f"{', '.join(words)} ({examination.seconds['wall']:.1f} s)"


def counts_of(examination: Examination) -> dict[str, Any]:
    """Count rows, patients, series, pairs by status, and codes by pairs."""
    outcomes = examination.outcomes
    series: Counter[str] = Counter(found.row.status for found in distinct(examination.series))
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
        for found in distinct(examination.series)
    ]  # fmt: skip


def _lines(outcomes: Sequence[PairOutcome], width: int) -> Iterator[str]:
    if not outcomes:
        return
    cells = [_cells(outcome) for outcome in outcomes]
    columns = [_HEADINGS, *cells]
    widths = [max(len(row[i]) for row in columns) for i in range(len(_HEADINGS))]
    yield "  ".join(h.ljust(w) for h, w in zip(_HEADINGS, widths, strict=True)) + "  codes"
    hanging = " " * (sum(widths) + 2 * len(widths))
    said: dict[tuple[str, str], str] = {}
    for outcome, row in zip(outcomes, cells, strict=True):
        codes = ", ".join(dict.fromkeys(f.code for f in outcome.findings)) or "-"
        line = "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True))
        first, *more = wrapped(codes, hanging, width=width, hanging=hanging)
        yield f"{line}  {first.lstrip()}"
        yield from more
        yield from _findings(outcome, said, width)


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


def _findings(outcome: PairOutcome, said: dict[tuple[str, str], str], width: int) -> Iterator[str]:
    """Write what was found, the worst first; `said` holds where each message was told before."""
    order = ("refused", "skipped", "warning")
    found = sorted(outcome.findings, key=lambda f: order.index(f.severity))
    before = [f for f in found if (f.code, f.message) in said]
    fold = sum(len(f.message) for f in before) > WORTH_FOLDING
    for finding in found:
        if not (fold and finding in before):
            yield from wrapped(f"{finding.code}: {finding.message}", INDENT, width=width)
    for where in dict.fromkeys(said[f.code, f.message] for f in before if fold):
        codes = dict.fromkeys(f.code for f in before if said[f.code, f.message] == where)
        yield from wrapped(f"{', '.join(codes)}: as rows {where}", INDENT, width=width)
    for finding in found:
        rows = f"{outcome.lines[0]} and {outcome.lines[1]}"
        said.setdefault((finding.code, finding.message), rows)
