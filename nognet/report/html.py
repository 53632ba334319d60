"""`report.html`: one page that needs nothing but itself: no script, nothing from outside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nognet.files import write_text_atomic
from nognet.metrics.definitions import (
    AVERAGING_TEXT,
    DEFINITIONS,
    NOT_COMPARABLE_TEXT,
    STRATUM_TEXTS,
)
from nognet.report.cases import Case
from nognet.report.comparison import ALL_SITES, compare_sites, is_alone
from nognet.report.drawn import DrawnCase, draw_cases, read_drawn, write_drawn
from nognet.report.figures import curves_svg, results_svg
from nognet.report.intervals import interval_sentences
from nognet.report.metrics_file import read_metrics
from nognet.report.metrics_schema import RunMetrics
from nognet.report.numbers import compact, number, seconds_text, signed
from nognet.report.page import (
    cohort_rows,
    configuration_rows,
    cost_rows,
    metrics_table,
    strata_table,
    total_rows,
)
from nognet.report.personal import personal_sentence, visit_tables, visits_sentence
from nognet.report.summary import (
    absence_sentence,
    caution_sentence,
    privacy_sentence,
    rehearsal_sentence,
    result_sentence,
    training_sentence,
    verdict_words,
)
from nognet.report.withheld import withheld_sentence
from nognet.types import STRATA

if TYPE_CHECKING:
    from jinja2 import Environment

REPORT_FILE_NAME = "report.html"


def build_report(run_folder: Path, cases: Sequence[Case] = (), *, out: Path | None = None) -> Path:
    """Write a run's report from its `metrics.json`.

    Args:
        run_folder: The folder that holds `metrics.json`.
        cases: Nodules to draw; give them only where the report stays with the images' owner. They
            are kept as drawn in `cases.json` beside, so that a report built again still has them.
        out: Where to write; by default `report.html` in the run folder.

    Returns:
        The path written.

    Raises:
        WireError: `metrics.json` is missing or damaged.
        OSError: the report can't be written.
    """
    path = out if out is not None else run_folder / REPORT_FILE_NAME
    metrics = read_metrics(run_folder)
    if cases:
        write_drawn(run_folder, draw_cases(cases))
    write_text_atomic(path, render_report(metrics, read_drawn(run_folder)))
    return path


def render_report(metrics: RunMetrics, cases: Sequence[DrawnCase] = ()) -> str:
    """Render the page's HTML."""
    return _environment().get_template("report.html.j2").render(_content(metrics, cases))


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("nognet.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, compact=compact, signed=signed, seconds=seconds_text)
    return environment


def _content(metrics: RunMetrics, cases: Sequence[DrawnCase]) -> dict[str, Any]:
    from markupsafe import Markup

    comparisons = compare_sites(metrics)
    results, curves = results_svg(metrics), curves_svg(metrics)
    return {
        "run": metrics,
        "name": str(metrics.study.get("name", "unnamed")),
        "training_sentence": training_sentence(metrics),
        "result_sentence": result_sentence(metrics),
        "privacy_sentence": privacy_sentence(metrics),
        "personal_sentence": personal_sentence(metrics),
        "withheld": withheld_sentence(metrics),
        "visit_tables": visit_tables(metrics),
        "visits_sentence": visits_sentence(metrics),
        "alone": is_alone(metrics),
        "absence": absence_sentence(metrics),
        "rehearsal": rehearsal_sentence(metrics),
        "caution": caution_sentence(comparisons),
        "comparisons": comparisons,
        "interval_sentences": interval_sentences(metrics),
        "verdict_words": verdict_words,
        "all_sites": ALL_SITES,
        "results": metrics_table(metrics),
        "strata_results": strata_table(metrics),
        "strata": STRATA,
        "stratum_texts": STRATUM_TEXTS,
        # matplotlib escapes every name it writes into an SVG, so the text is safe as it is.
        "results_svg": Markup(results) if results else None,  # noqa: S704  our own SVG
        "curves_svg": Markup(curves) if curves else None,  # noqa: S704  our own SVG
        "cohort": cohort_rows(metrics),
        "cases": cases,
        "configuration": list(configuration_rows(metrics.study)),
        "costs": cost_rows(metrics),
        "totals": total_rows(metrics),
        "definitions": [
            (DEFINITIONS[name].title if name in DEFINITIONS else name, name, text)
            for name, text in metrics.definitions.items()
        ],
        "averaging": AVERAGING_TEXT,
        "not_comparable": NOT_COMPARABLE_TEXT,
    }
