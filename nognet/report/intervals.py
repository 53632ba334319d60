"""The intervals of the predicted volume in plain words: what they promise beside what was found."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from nognet.report.comparison import ALL_SITES, final_figures, model_of
from nognet.report.metrics_schema import Figure, RunMetrics
from nognet.report.numbers import count, number
from nognet.report.withheld import is_withheld


def interval_sentences(metrics: RunMetrics) -> tuple[str, ...]:
    """Say for each site, and over all, how many test pairs the model's intervals covered.

    Sites without intervals are named together, last; nothing is said of a site whose figures know
    none (runs of older versions). The width is the geometric mean, for a median can't be told from
    the sums that leave a site.
    """
    return tuple(_sentences(metrics))


def _sentences(metrics: RunMetrics) -> Iterator[str]:
    promised = _nominal(metrics.study)
    without: list[str] = []
    for site, figures in final_figures(metrics).items():
        model = figures.get(model_of(figures), {})
        coverage, width = model.get("interval_coverage"), model.get("interval_width")
        if coverage is not None and coverage.mean is not None:
            yield f"{site}: {_found(promised, coverage.mean, coverage, width)}"
        elif coverage is not None and site != ALL_SITES and not is_withheld(coverage):
            without.append(site)
    if without:
        yield (
            f"{', '.join(without)}: no intervals of the predicted volume (nominal {promised}): too "
            "few validation patients for that level, or the model gives no spread."
        )


def _found(promised: str, share: float, coverage: Figure, width: Figure | None) -> str:
    behind = f"{_plural(coverage.n_pairs, 'test pair')} ({_plural(coverage.n_patients, 'patient')})"
    wide = "" if width is None or width.mean is None else f", {_wide(width.mean)}"
    return (
        f"predicted volume intervals: nominal {promised}, found {100 * share:.0f} % of "
        f"{behind}{wide}."
    )


def _wide(log_ratio: float) -> str:
    """Say a mean of ln(upper / lower) as the ratio it is the geometric mean of."""
    try:
        ratio = math.exp(log_ratio)
    except OverflowError:
        return "of no practical bound"
    return f"upper over lower volume x{number(ratio, 1)} (geometric mean)"


def _nominal(study: Mapping[str, object]) -> str:
    uncertainty = study.get("uncertainty")
    value = uncertainty.get("coverage") if isinstance(uncertainty, Mapping) else None
    return f"{100 * value:.3g} %" if isinstance(value, int | float) else "not recorded"


def _plural(amount: int, noun: str) -> str:
    return f"{count(amount)} {noun}{'' if amount == 1 else 's'}"
