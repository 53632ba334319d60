"""What a run's sites have of their own: sentences, and the table of models at one another's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nognet.metrics.definitions import DEFINITIONS
from nognet.report.comparison import HEADLINES, Headline
from nognet.report.metrics_schema import RunMetrics
from nognet.report.withheld import mean_text

_PARTS = {
    "norms": "The normalisation layers",
    "head": "The growth head's output layers",
    "norms+head": "The normalisation layers and the growth head's output layers",
}
_NOT_SHARED = "not-shared"


@dataclass(frozen=True)
class VisitRow:
    """One site's model: its mean at each test site."""

    model_of: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class VisitTable:
    """One headline: a row a model's site, a column a test site."""

    title: str
    sites: tuple[str, ...]
    rows: tuple[VisitRow, ...]


def personal_sentence(metrics: RunMetrics) -> str | None:
    """Say which parameters stayed at the sites, and what the personalised model is."""
    wanted = _wanted(metrics)
    said = []
    parts = _PARTS.get(str(wanted.get("local")))
    if parts is not None:
        said.append(
            f"{parts} stayed at each site: at a site the federated model has the site's own. The "
            "run's model.nognet has their first values, so each site predicts with the "
            "personal.nognet in its own state folder."
        )
    steps, strength = wanted.get("fine_tune_steps"), wanted.get("ditto_lambda")
    if steps:
        said.append(f"Personalised: trained by {steps} steps more at the site, after the run.")
    if strength is not None:
        said.append(
            f"Personalised: a second model of the site's own, pulled to the global one (Ditto, "
            f"lambda {strength:g})."
        )
    if (steps or strength is not None) and _spends_epsilon(metrics):
        said.append(
            "Personalised models are trained without noise and stay at their sites; where privacy "
            "holds so do their figures on test patients, which no epsilon would cover: they stand "
            "here as withheld, and in each site's own log."
        )
    return " ".join(said) or None


def visit_tables(metrics: RunMetrics) -> list[VisitTable]:
    """Give a table a headline: models' sites below one another, test sites side by side."""
    if metrics.final is None or not metrics.final.cross_site:
        return []
    return [_table(metrics, headline) for headline in HEADLINES]


def visits_sentence(metrics: RunMetrics) -> str | None:
    """Say whose models visited, and which sites are missing and why."""
    kind = _wanted(metrics).get("cross_site", "none")
    if metrics.final is None or kind == "none":
        return None
    absent = metrics.final.cross_site_absent
    unwilling = sorted(site for site, reason in absent.items() if reason == _NOT_SHARED)
    gaps = [f"{site} ({r})" for site, r in sorted(absent.items()) if r != _NOT_SHARED]
    model = "personalised model" if kind == "personalised" else "model as it last trained it"
    said = [f"Each sharing site's {model} on the test patients of every sharing site."]
    if unwilling:
        said.append(f"Not sharing: {', '.join(unwilling)}.")
    if gaps:
        said.append(f"With gaps: {', '.join(gaps)}.")
    return " ".join(said)


def _table(metrics: RunMetrics, headline: Headline) -> VisitTable:
    found = metrics.final.cross_site if metrics.final is not None else {}
    models = sorted(found)
    sites = tuple(sorted({*models, *(site for at in found.values() for site in at)}))
    rows = []
    for model_of in models:
        figures = [found[model_of].get(site, {}).get(headline.metric) for site in sites]
        cells = (mean_text(f, headline.stratum, headline.decimals) for f in figures)
        rows.append(VisitRow(model_of, tuple(cells)))
    unit = DEFINITIONS[headline.metric].unit
    title = f"{headline.title} ({unit})" if unit else headline.title
    return VisitTable(title, sites, tuple(rows))


def _spends_epsilon(metrics: RunMetrics) -> bool:
    parts = [part for entry in metrics.rounds for part in entry.sites.values()]
    return any(part.train is not None and part.train.epsilon is not None for part in parts)


def _wanted(metrics: RunMetrics) -> Mapping[str, Any]:
    found = metrics.study.get("personalisation")
    return found if isinstance(found, Mapping) else {}
