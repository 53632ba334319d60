"""What the figures say: rows per site and predictor, and the model against copying the baseline."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Literal

from nognet.metrics.definitions import DEFINITIONS, METRIC_NAMES
from nognet.report.metrics_schema import Figure, Figures, RunMetrics, StratumFigure
from nognet.types import Stratum

MODEL = "federated"
LOCAL = "local"
REFERENCE = "copy"
ALL_SITES = "all sites"
PREDICTOR_TITLES = {
    "federated": "Federated model",
    "personalised": "Personalised model",
    "local": "Local model",
    "centralised": "Centralised model",
    "copy": "Copy of the baseline",
    "isotropic": "Isotropic growth",
}
# "mixed" also where a headline could not be measured, so that "better" is never said too early.
Verdict = Literal["better", "mixed", "equal", "worse", "unknown"]
_VERDICTS: dict[int, Verdict] = {1: "better", 0: "equal", -1: "worse"}


@dataclass(frozen=True)
class Headline:
    """One of the comparisons by which a run is judged: a metric, of all pairs or one stratum."""

    metric: str
    stratum: Stratum | None
    title: str
    decimals: int
    unit: str = ""


HEADLINES = (
    Headline("dsc", "growing", "DSC, growing", 3),
    Headline("dsc", None, "DSC", 3),
    Headline("psnr", None, "PSNR", 2, "dB"),
)


@dataclass(frozen=True)
class Difference:
    """The model and the reference on the same pairs, for one headline."""

    headline: Headline
    model: float | None
    reference: float | None
    n_pairs: int
    withheld: int = 0
    """Sites whose pairs are not in it (`nognet.report.withheld`)."""

    @property
    def value(self) -> float | None:
        """Model minus reference; None where either is missing."""
        if self.model is None or self.reference is None:
            return None
        return self.model - self.reference

    @property
    def sign(self) -> int | None:
        """1, 0 or -1 for better, equal or worse, by the digits that are shown."""
        if self.value is None:
            return None
        shown = round(self.value, self.headline.decimals)
        direction = 1 if DEFINITIONS[self.headline.metric].higher_is_better else -1
        return direction * ((shown > 0) - (shown < 0))


@dataclass(frozen=True)
class SiteComparison:
    """One site's (or all sites') headlines and what they amount to."""

    site: str
    n_patients: int
    n_pairs: int
    differences: tuple[Difference, ...]

    @property
    def verdict(self) -> Verdict:
        """Better or worse only if every headline was measured and is; unknown if none was."""
        signs = [d.sign for d in self.differences if d.sign is not None]
        if not signs:
            return "unknown"
        if len(signs) < len(self.differences) or min(signs) != max(signs):
            return "mixed"
        return _VERDICTS[signs[0]]


@dataclass(frozen=True)
class ResultRow:
    """One predictor at one site: its figures by metric."""

    site: str
    predictor: str
    figures: dict[str, Figure]
    reference: dict[str, Figure]

    @property
    def title(self) -> str:
        """The predictor in words."""
        return PREDICTOR_TITLES.get(self.predictor, self.predictor)

    def difference(self, metric: str, stratum: Stratum | None = None) -> float | None:
        """Mean minus the reference's; None for the reference itself or a missing figure."""
        if self.predictor == REFERENCE:
            return None
        mine, theirs = (
            mean_of(figures.get(metric), stratum) for figures in (self.figures, self.reference)
        )
        return None if mine is None or theirs is None else mine - theirs


def model_of(figures: Container[str]) -> str:
    """Name the predictor that a run is about: the federated model, or that of a site alone.

    >>> model_of({"federated", "local", "copy"}), model_of({"local", "copy"})
    ('federated', 'local')
    """
    return LOCAL if LOCAL in figures and MODEL not in figures else MODEL


def is_alone(metrics: RunMetrics) -> bool:
    """Tell whether one site trained alone (`nognet train`), without a federation."""
    tested = metrics.final.sites.values() if metrics.final else ()
    found = [part.validation for entry in metrics.rounds for part in entry.sites.values()]
    found += [entry.test for entry in tested]
    return model_of({name for figures in found for name in figures}) == LOCAL


def mean_of(figure: Figure | None, stratum: Stratum | None = None) -> float | None:
    """Take a figure's mean, of all pairs or of one stratum; None where it is missing."""
    part = _part_of(figure, stratum)
    return None if part is None else part.mean


def pairs_of(figure: Figure | None, stratum: Stratum | None = None) -> int:
    """Count the pairs behind a figure or one of its strata."""
    part = _part_of(figure, stratum)
    return 0 if part is None else part.n_pairs


def withheld_of(figure: Figure | None, stratum: Stratum | None = None) -> int:
    """Count the sites that withhold their part of a figure or of one of its strata."""
    part = _part_of(figure, stratum)
    return 0 if part is None else part.withheld


def _part_of(figure: Figure | None, stratum: Stratum | None) -> Figure | StratumFigure | None:
    return figure if figure is None or stratum is None else figure.strata.get(stratum)


def final_figures(metrics: RunMetrics) -> dict[str, Figures]:
    """Give each site's test figures in the order of names, all sites pooled last."""
    if metrics.final is None:
        return {}
    by_site = {site: entry.test for site, entry in sorted(metrics.final.sites.items())}
    if metrics.final.pooled is not None and len(by_site) > 1:
        by_site[ALL_SITES] = metrics.final.pooled.test
    return by_site


def result_rows(metrics: RunMetrics) -> list[ResultRow]:
    """List site by site each predictor's test figures, models before baselines."""
    return [
        ResultRow(site, predictor, figures[predictor], figures.get(REFERENCE, {}))
        for site, figures in final_figures(metrics).items()
        for predictor in ordered_predictors(figures)
    ]


def compare_sites(metrics: RunMetrics) -> list[SiteComparison]:
    """Compare model and reference on test patients at each site and over all."""
    return [_compare(site, figures) for site, figures in final_figures(metrics).items()]


def ordered_predictors(names: Iterable[str]) -> list[str]:
    """Order predictors as the titles are, unknown ones last by name."""
    known = list(PREDICTOR_TITLES)
    return sorted(names, key=lambda n: (known.index(n) if n in known else len(known), n))


def ordered_metrics(names: Iterable[str]) -> list[str]:
    """Keep the defined metrics, in the order of their definitions."""
    present = set(names)
    return [name for name in METRIC_NAMES if name in present]


def _compare(site: str, figures: Figures) -> SiteComparison:
    model, reference = figures.get(model_of(figures), {}), figures.get(REFERENCE, {})
    counted = model.get("dsc")
    differences = tuple(
        Difference(
            headline,
            mean_of(model.get(headline.metric), headline.stratum),
            mean_of(reference.get(headline.metric), headline.stratum),
            pairs_of(model.get(headline.metric), headline.stratum),
            withheld_of(model.get(headline.metric), headline.stratum),
        )
        for headline in HEADLINES
    )
    return SiteComparison(
        site=site,
        n_patients=counted.n_patients if counted else 0,
        n_pairs=counted.n_pairs if counted else 0,
        differences=differences,
    )
