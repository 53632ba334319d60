"""What sites withhold, in words: never a zero, never a dash that could mean something else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nognet.metrics.definitions import DEFINITIONS, METRIC_NAMES
from nognet.report.comparison import PREDICTOR_TITLES
from nognet.report.metrics_schema import Figure, RunMetrics, StratumFigure
from nognet.report.numbers import count, number
from nognet.types import STRATA, Stratum

WITHHELD = "withheld"
_OF_TRAINING = ("isotropic", "personalised")
"""Predictors whose figures tell of training patients, too."""


def part_of(figure: Figure | None, stratum: Stratum | None) -> Figure | StratumFigure | None:
    """Take a figure, or its part of one stratum."""
    if figure is None or stratum is None:
        return figure
    return figure.strata.get(stratum)


def is_withheld(figure: Figure | None, stratum: Stratum | None = None) -> bool:
    """Say whether a figure is missing because it is withheld, everywhere."""
    part = part_of(figure, stratum)
    return part is not None and part.withheld > 0 and part.n_pairs == 0


def mean_text(figure: Figure | None, stratum: Stratum | None, decimals: int) -> str:
    """Format a mean; ``withheld`` where it is."""
    if is_withheld(figure, stratum):
        return WITHHELD
    part = part_of(figure, stratum)
    return number(None if part is None else part.mean, decimals)


def count_text(value: int | None) -> str:
    """Format a count that a site may withhold."""
    return WITHHELD if value is None else count(value)


def shares_of(strata: Mapping[Stratum, int | None]) -> dict[Stratum, float | None]:
    """Give each stratum's share of the pairs; None without pairs, or where one is withheld."""
    known = [value for value in strata.values() if value is not None]
    total = sum(known)
    if not total or len(known) < len(strata):
        return dict.fromkeys(STRATA)
    return {name: (strata.get(name) or 0) / total for name in STRATA}


def withheld_sentence(metrics: RunMetrics) -> str | None:
    """Say who withholds and why, and over how many sites the pooled figures are."""
    found = {} if metrics.final is None else metrics.final.sites
    whole = _withheld_whole(metrics)
    sites = sorted(
        site
        for site, entry in found.items()
        if any(
            _withholds(figure)
            for predictor, figures in entry.test.items()
            if site not in whole.get(predictor, ())
            for figure in figures.values()
        )
    )
    counted = {
        site
        for site, entry in metrics.sites.items()
        if any(None in (c.patients, *c.strata.values()) for c in entry.counts.values())
    }
    who = sorted({*sites, *counted})
    said = [_few_words(metrics, who)] if who else []
    if whole:
        named = "; ".join(
            f"{PREDICTOR_TITLES.get(name, name).lower()} by {', '.join(at)}"
            for name, at in sorted(whole.items())
        )
        said.append(f"Withheld as a whole, as it tells of training patients: {named}.")
    pooled = _pooled_words(metrics, whole)
    return " ".join([*said, *([pooled] if pooled else [])]) or None


def _few_words(metrics: RunMetrics, who: Sequence[str]) -> str:
    least = {site: metrics.sites[site].min_patients for site in who if site in metrics.sites}
    named = ", ".join(
        f"{site} (< {least[site]} patients)" if site in least else site for site in who
    )
    return f"Withheld by {named}: what has fewer patients behind it, or would tell of such."


def _withheld_whole(metrics: RunMetrics) -> dict[str, list[str]]:
    """Name the predictors of which a site that gives others' figures gives none, and the sites."""
    whole: dict[str, list[str]] = {}
    for site, entry in sorted(({} if metrics.final is None else metrics.final.sites).items()):
        none_of = [
            name
            for name in _OF_TRAINING
            if (figures := entry.test.get(name)) and all(map(is_withheld, figures.values()))
        ]
        for name in none_of if len(none_of) < len(entry.test) else ():
            whole.setdefault(name, []).append(site)
    return whole


def _pooled_words(metrics: RunMetrics, whole: Mapping[str, Sequence[str]]) -> str:
    """Say over how many sites pooled figures are, but for predictors that sites withhold whole."""
    final = metrics.final
    n_sites = 0 if final is None else len(final.sites)
    if final is None or final.pooled is None or n_sites < 2:
        return ""
    missing = dict.fromkeys((*STRATA, *METRIC_NAMES), 0)
    for predictor, figures in final.pooled.test.items():
        for metric, figure in figures.items():
            gone = figure.withheld - len(whole.get(predictor, ()))
            missing[metric] = max(missing[metric], gone)
            for stratum, part in figure.strata.items():
                less = part.withheld - figure.withheld  # of a metric that is withheld, they are
                missing[stratum] = max(missing[stratum], less)
    titles = {name: DEFINITIONS[name].title for name in METRIC_NAMES}
    parts = [f"{titles.get(n, n)} over {n_sites - gone}" for n, gone in missing.items() if gone]
    return f"Pooled figures: {', '.join(parts)} of {n_sites} sites." if parts else ""


def _withholds(figure: Figure) -> bool:
    return figure.withheld > 0 or any(part.withheld for part in figure.strata.values())
