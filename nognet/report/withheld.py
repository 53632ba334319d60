"""What sites withhold, in words: never a zero, never a dash that could mean something else."""

from __future__ import annotations

from collections.abc import Mapping

from nognet.metrics.definitions import DEFINITIONS, METRIC_NAMES
from nognet.report.metrics_schema import Figure, RunMetrics, StratumFigure
from nognet.report.numbers import count, number
from nognet.types import STRATA, Stratum

WITHHELD = "withheld"


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
    sites = sorted(
        site
        for site, entry in found.items()
        if any(_withholds(f) for figures in entry.test.values() for f in figures.values())
    )
    counted = {
        site
        for site, entry in metrics.sites.items()
        if any(None in (c.patients, *c.strata.values()) for c in entry.counts.values())
    }
    who = sorted({*sites, *counted})
    if not who:
        return None
    least = {site: metrics.sites[site].min_patients for site in who if site in metrics.sites}
    named = ", ".join(
        f"{site} (< {least[site]} patients)" if site in least else site for site in who
    )
    return (
        f"Withheld by {named}: what has fewer patients behind it, or would tell of such."
        f"{_pooled_words(metrics, len(found))}"
    )


def _pooled_words(metrics: RunMetrics, n_sites: int) -> str:
    pooled = None if metrics.final is None else metrics.final.pooled
    if pooled is None or n_sites < 2:
        return ""
    by_metric = [item for figures in pooled.test.values() for item in figures.items()]
    missing = dict.fromkeys((*STRATA, *METRIC_NAMES), 0)
    for metric, figure in by_metric:
        missing[metric] = max(missing[metric], figure.withheld)
        for stratum, part in figure.strata.items():
            less = part.withheld - figure.withheld  # of a metric that is withheld, the strata are
            missing[stratum] = max(missing[stratum], less)
    titles = {name: DEFINITIONS[name].title for name in METRIC_NAMES}
    parts = [f"{titles.get(n, n)} over {n_sites - gone}" for n, gone in missing.items() if gone]
    return f" Pooled figures: {', '.join(parts)} of {n_sites} sites." if parts else ""


def _withholds(figure: Figure) -> bool:
    return figure.withheld > 0 or any(part.withheld for part in figure.strata.values())
