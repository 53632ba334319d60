"""Curves over rounds and the test results, as SVG text to put into the page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from nognet.metrics.definitions import DEFINITIONS
from nognet.report.cases import Case, case_png
from nognet.report.comparison import (
    HEADLINES,
    MODEL,
    REFERENCE,
    Headline,
    final_figures,
    mean_of,
    model_of,
    ordered_predictors,
)
from nognet.report.comparison import PREDICTOR_TITLES as TITLES
from nognet.report.metrics_schema import Figures, RoundEntry, RunMetrics
from nognet.report.style import (
    OTHER_INK,
    PREDICTOR_MARKERS,
    figure_style,
    predictor_ink,
    site_dashes,
    site_ink,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

__all__ = ["Case", "case_png", "curves_svg", "results_svg"]

CURVE_METRICS = ("dsc", "psnr", "ssim")
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
_PROLOGUE = re.compile(r"^.*?(?=<svg)", re.DOTALL)


def curves_svg(metrics: RunMetrics) -> str | None:
    """Draw validation metrics and training loss over rounds, a line a site; None without rounds."""
    if not metrics.rounds:
        return None
    sites = sorted({site for entry in metrics.rounds for site in entry.sites})

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots(2, 2).ravel()
        for axis, metric in zip(axes, CURVE_METRICS, strict=False):
            _draw_metric(axis, metrics, sites, metric)
        _draw_loss(axes[-1], metrics, sites)
        axes[0].plot([], [], ":", color=OTHER_INK, linewidth=1.2, label="copy of the baseline")
        handles, labels = axes[0].get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)

    return _svg(draw, width=9.6, height=5.4)


def results_svg(metrics: RunMetrics) -> str | None:
    """Draw each site's test results of all predictors on one line a site; None without results."""
    by_site = final_figures(metrics)
    if not by_site:
        return None

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots(1, len(HEADLINES), sharey=True)
        for axis, headline in zip(axes, HEADLINES, strict=True):
            _draw_headline(axis, by_site, headline)
        names = list(by_site)
        axes[0].set_yticks(range(len(names)), names)
        axes[0].set_ylim(len(names) - 0.5, -0.5)
        handles, labels = axes[-1].get_legend_handles_labels()
        canvas.legend(
            handles[::-1], labels[::-1], loc="outside lower center", ncols=6, frameon=False
        )

    return _svg(draw, width=9.6, height=1.15 + 0.36 * len(by_site))


def _svg(draw: Callable[[Canvas], None], *, width: float, height: float) -> str:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    with figure_style():
        canvas = Canvas(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(canvas)
        draw(canvas)
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    # Inline in a page neither the XML prologue nor the metadata (which names outside addresses).
    return _METADATA.sub("", _PROLOGUE.sub("", buffer.getvalue(), count=1))


def _draw_metric(axis: Axes, metrics: RunMetrics, sites: list[str], metric: str) -> None:
    for index, site in enumerate(sites):
        ink, style = site_ink(index), site_dashes(index)
        rounds, values = _series(metrics, site, lambda part: _mean(part, None, metric))
        axis.plot(rounds, values, style, color=ink, linewidth=1.6, marker="o", ms=3, label=site)
        _, copies = _series(metrics, site, lambda part: _mean(part, REFERENCE, metric))
        if copies:
            axis.axhline(copies[-1], color=ink, linewidth=0.9, linestyle=":")
    definition = DEFINITIONS[metric]
    unit = f" ({definition.unit})" if definition.unit else ""
    _finish_curve(axis, metrics, f"Validation {definition.title}{unit}")


def _draw_loss(axis: Axes, metrics: RunMetrics, sites: list[str]) -> None:
    for index, site in enumerate(sites):
        rounds, values = _series(metrics, site, lambda part: part.train and part.train.loss)
        style = site_dashes(index)
        axis.plot(rounds, values, style, color=site_ink(index), linewidth=1.6, marker="o", ms=3)
    _finish_curve(axis, metrics, "Training loss")


def _series(
    metrics: RunMetrics, site: str, value_of: Callable[[Any], float | None]
) -> tuple[list[int], list[float]]:
    """Collect the rounds in which a site has a value, and the values."""
    rounds, values = [], []
    for entry in metrics.rounds:
        part = entry.sites.get(site)
        value = None if part is None else value_of(part)
        if value is not None:
            rounds.append(entry.round)
            values.append(value)
    return rounds, values


def _mean(part: Any, predictor: str | None, metric: str) -> float | None:  # noqa: ANN401  SiteRound
    """Give a predictor's mean on validation; None stands for the model that the run is about."""
    named = predictor or model_of(part.validation)
    return mean_of(part.validation.get(named, {}).get(metric))


def _finish_curve(axis: Axes, metrics: RunMetrics, title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    if not any(np.size(line.get_xdata()) for line in axis.lines):
        axis.text(0.5, 0.5, "no values", transform=axis.transAxes, ha="center", color=OTHER_INK)
        axis.set_yticks([])
    best = _best_round(metrics)
    if best is not None:
        axis.axvline(best.round, color="#9AA0A6", linewidth=0.8, zorder=0)
        axis.annotate(
            "best",
            (best.round, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            fontsize=7,
            color="#5F6368",
            ha="center",
            va="bottom",
        )
    axis.set_title(title)
    axis.set_xlabel("Round")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(visible=True, axis="y")
    axis.set_axisbelow(True)


def _best_round(metrics: RunMetrics) -> RoundEntry | None:
    chosen = [entry for entry in metrics.rounds if entry.selection and entry.selection.is_best]
    return chosen[-1] if chosen else None


def _draw_headline(axis: Axes, by_site: dict[str, Figures], headline: Headline) -> None:
    predictors = ordered_predictors({name for figures in by_site.values() for name in figures})
    for row, figures in enumerate(by_site.values()):
        means = {
            name: mean_of(figures.get(name, {}).get(headline.metric), headline.stratum)
            for name in predictors
        }
        model, reference = means.get(model_of(figures)), means.get(REFERENCE)
        if model is not None and reference is not None:
            axis.plot([reference, model], [row, row], color=predictor_ink(MODEL), lw=2, alpha=0.35)
        for name in reversed(predictors):
            mean = means[name]
            if mean is not None:
                axis.plot(
                    mean,
                    row,
                    PREDICTOR_MARKERS.get(name, "x"),
                    color=predictor_ink(name),
                    markerfacecolor=predictor_ink(name) if name == MODEL else "white",
                    markersize=6.5 if name == MODEL else 5.5,
                    label=TITLES.get(name, name) if row == 0 else None,
                    linestyle="none",
                )
    unit = f" ({headline.unit})" if headline.unit else ""
    axis.set_title(f"{headline.title}{unit}")
    axis.grid(visible=True, axis="x")
    axis.set_axisbelow(True)
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.margins(x=0.12)
