"""The results as a terminal shows them at the end of a run, in colour or as plain text."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nognet.metrics.definitions import (
    AVERAGING_TEXT,
    DEFINITIONS,
    NOT_COMPARABLE_TEXT,
    STRATUM_TEXTS,
)
from nognet.report.comparison import MODEL, ResultRow, compare_sites, result_rows
from nognet.report.intervals import interval_sentences
from nognet.report.metrics_schema import RunMetrics
from nognet.report.numbers import signed
from nognet.report.personal import personal_sentence, visits_sentence
from nognet.report.summary import (
    absence_sentence,
    caution_sentence,
    rehearsal_sentence,
    result_sentence,
)
from nognet.report.withheld import count_text, is_withheld, mean_text, shares_of, withheld_sentence
from nognet.types import STRATA, Stratum

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

CONSOLE_METRICS = ("psnr", "ssim", "dsc", "volume_error", "growth_auc")
PLAIN_WIDTH = 112
_TITLES_WIDTH = 24
Columns = tuple[tuple[str, Stratum | None, str], ...]
_COLUMNS: Columns = (
    ("psnr", None, "PSNR dB"),
    ("ssim", None, "SSIM"),
    ("dsc", None, "DSC"),
    ("dsc", "growing", "growing"),
    ("dsc", "stable", "stable"),
    ("dsc", "shrinking", "shrinking"),
    ("volume_error", None, "Vol. error"),
    ("growth_auc", None, "Growth AUC"),
)


def print_results(metrics: RunMetrics, console: Console | None = None) -> None:
    """Print summary, table, the cohort's mix and the definitions, by default to stdout."""
    from rich.console import Console
    from rich.text import Text

    out = console if console is not None else Console()
    out.print(Text(result_sentence(metrics), style="bold"))
    if metrics.final is not None:
        out.print(results_table(metrics, width=out.width))
    for line in _lines_below(metrics):
        out.print(Text(line))


def plain_text(metrics: RunMetrics, *, width: int = PLAIN_WIDTH) -> str:
    """Give the same as text without colour."""
    from rich.console import Console

    buffer = io.StringIO()
    print_results(metrics, Console(file=buffer, width=width, color_system=None))
    return buffer.getvalue()


def results_table(metrics: RunMetrics, *, width: int = PLAIN_WIDTH) -> Table:
    """Build the table of test results: a line a site and predictor, with differences to copying."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"Test patients, model of round {metrics.final.round if metrics.final else 0}",
        caption="Mean over pairs; under it the difference to copying the baseline. "
        "growing, stable, shrinking: DSC in that stratum.",
        pad_edge=False,
    )
    table.add_column("Predictor", no_wrap=True)
    columns = _columns_that_fit(width)
    for _, _, title in columns:
        table.add_column(title, justify="right", no_wrap=True)
    previous = None
    for row in result_rows(metrics):
        if row.site != previous:
            table.add_section()
            table.add_row(Text(row.site, style="bold"), *_pairs_behind(row, columns))
        previous = row.site
        style = "bold" if row.predictor == MODEL else ""
        table.add_row(
            Text(f"  {row.title}", style=style), *(_cell(row, m, s) for m, s, _ in columns)
        )
    return table


def cohort_lines(metrics: RunMetrics) -> Iterator[str]:
    """Say each site's test patients, pairs and mix of strata in a line."""
    for site, entry in sorted(metrics.sites.items()):
        counts = entry.counts.get("test")
        if counts is None:
            continue
        shares = shares_of(counts.strata)
        mix = ", ".join(
            f"{name} {count_text(counts.strata.get(name, 0))}"
            + ("" if (share := shares[name]) is None else f" ({100 * share:.0f} %)")
            for name in STRATA
        )
        yield (
            f"  {site}: {count_text(counts.patients)} patients, {count_text(counts.pairs)} pairs; "
            f"{mix}"
        )


def _columns_that_fit(width: int) -> Columns:
    """Leave out what is least missed until the table fits a narrow terminal."""
    columns = list(_COLUMNS)
    for metric in ("volume_error", "growth_auc", "ssim"):
        if _TITLES_WIDTH + sum(max(len(title), 7) + 3 for _, _, title in columns) <= width:
            break
        columns = [column for column in columns if column[0] != metric]
    return tuple(columns)


def _cell(row: ResultRow, metric: str, stratum: Stratum | None) -> Text:
    from rich.text import Text

    decimals = min(DEFINITIONS[metric].decimals, 3)
    text = Text(mean_text(row.figures.get(metric), stratum, decimals))
    if row.predictor == MODEL:
        text.stylize("bold")
    difference = row.difference(metric, stratum)
    if difference is not None:
        shown = round(difference, decimals)
        is_good = (shown > 0) == DEFINITIONS[metric].higher_is_better
        colour = "dim" if shown == 0 else "blue" if is_good else "red"
        text.append(f"\n{signed(difference, decimals)}", style=colour)
    return text


def _pairs_behind(row: ResultRow, columns: Columns) -> Iterator[str]:
    """Give the pairs behind each column, and the patients behind the first."""
    for metric, stratum, _ in columns:
        figure = row.figures.get(metric)
        if figure is None or is_withheld(figure, stratum):
            yield ""
        elif stratum is None:
            yield f"{figure.n_patients} pat." if metric == "psnr" else f"n {figure.n_pairs}"
        else:
            part = figure.strata.get(stratum)
            yield f"n {part.n_pairs if part else 0}"


def _lines_below(metrics: RunMetrics) -> Iterator[str]:
    cohort = list(cohort_lines(metrics))
    if cohort:
        yield "Test cohort:"
        yield from cohort
    strata = "; ".join(f"{name}: {STRATUM_TEXTS[name]}" for name in STRATA)
    yield f"  ({strata})"
    intervals = interval_sentences(metrics)
    if intervals:
        yield "Intervals:"
        yield from (f"  {sentence}" for sentence in intervals)
    caution = caution_sentence(compare_sites(metrics))
    own = rehearsal_sentence(metrics), personal_sentence(metrics), visits_sentence(metrics)
    said = (*own, withheld_sentence(metrics), absence_sentence(metrics), caution)
    yield from (line for line in said if line)
    yield "Definitions:"
    for name in CONSOLE_METRICS:
        yield f"  {DEFINITIONS[name].title}: {DEFINITIONS[name].short}"
    yield AVERAGING_TEXT
    yield NOT_COMPARABLE_TEXT
    yield "Research use only; not a medical device."
