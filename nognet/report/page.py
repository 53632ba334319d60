"""The page's content as plain values, so that the template only sets type."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from nognet.metrics.definitions import DEFINITIONS
from nognet.report.comparison import (
    MODEL,
    REFERENCE,
    ResultRow,
    ordered_metrics,
    pairs_of,
    result_rows,
)
from nognet.report.metrics_schema import Figure, RunMetrics, SiteRound
from nognet.report.numbers import DASH, bytes_text, count, number, seconds_text, signed
from nognet.report.withheld import count_text, is_withheld, mean_text, shares_of
from nognet.types import STRATA


@dataclass(frozen=True)
class Cell:
    """A figure in a table: mean, standard deviation, a note under it, and the note's tone."""

    text: str
    spread: str = ""
    note: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Row:
    """A predictor's line in a table; `site` is set on the first line of each site."""

    site: str
    site_note: str
    title: str
    is_model: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """Heads and rows of a table of results."""

    heads: tuple[str, ...]
    rows: tuple[Row, ...]


def metrics_table(metrics: RunMetrics) -> Table:
    """Give mean, standard deviation and difference to copying of each metric on test pairs."""
    rows = result_rows(metrics)
    names = ordered_metrics(name for row in rows for name in row.figures)
    heads = tuple(_head(name) for name in names)
    return Table(heads, tuple(_rows(rows, lambda row: tuple(_cell(row, name) for name in names))))


def strata_table(metrics: RunMetrics, metric: str = "dsc") -> Table:
    """Give one metric's mean in each growth stratum, with the pairs behind it."""
    rows = result_rows(metrics)
    return Table(
        tuple(stratum.capitalize() for stratum in STRATA),
        tuple(_rows(rows, lambda row: tuple(_stratum_cells(row, metric)))),
    )


def cohort_rows(metrics: RunMetrics) -> list[dict[str, object]]:
    """List each site's patients, pairs and mix of strata, split by split."""
    listed: list[dict[str, object]] = []
    for site, entry in sorted(metrics.sites.items()):
        for split, counts in entry.counts.items():
            shares = shares_of(counts.strata)
            listed.append(
                {
                    "site": site,
                    "split": split,
                    "patients": count_text(counts.patients),
                    "pairs": count_text(counts.pairs),
                    "strata": {s: count_text(counts.strata.get(s, 0)) for s in STRATA},
                    "shares": {s: _percent(share) for s, share in shares.items()},
                    "widths": {s: f"{100 * (share or 0):.1f}" for s, share in shares.items()},
                }
            )
    return listed


def cost_rows(metrics: RunMetrics) -> list[dict[str, str]]:
    """List seconds, bytes, loss and epsilon of each site in each round."""
    return [
        {"round": str(entry.round), "site": site, **_cost(part)}
        for entry in metrics.rounds
        for site, part in sorted(entry.sites.items())
    ]


def total_rows(metrics: RunMetrics) -> list[dict[str, str]]:
    """Sum each site's rounds, seconds and bytes, with the last epsilon."""
    totals = []
    for site in sorted({site for entry in metrics.rounds for site in entry.sites}):
        parts = [entry.sites[site] for entry in metrics.rounds if site in entry.sites]
        trained = [part.train for part in parts if part.train is not None]
        evaluated = [p.evaluate_seconds for p in parts if p.evaluate_seconds is not None]
        down = [t.bytes_down for t in trained if t.bytes_down is not None]
        up = [t.bytes_up for t in trained if t.bytes_up is not None]
        spent = [(t.epsilon, t.delta) for t in trained if t.epsilon is not None]
        epsilon, delta = spent[-1] if spent else (None, None)
        totals.append(
            {
                "site": site,
                "rounds": f"{len(trained)} of {len(metrics.rounds)}",
                "train": seconds_text(sum(t.seconds for t in trained) if trained else None),
                "evaluate": seconds_text(sum(evaluated) if evaluated else None),
                "down": bytes_text(sum(down) if down else None),
                "up": bytes_text(sum(up) if up else None),
                "epsilon": number(epsilon, 2),
                "delta": DASH if delta is None else f"{delta:g}",
            }
        )
    return totals


def configuration_rows(study: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Flatten the study to dotted keys and values; addresses and paths stay out."""
    for key, value in study.items():
        if not prefix and key in {"server", "runs"}:
            continue
        if isinstance(value, Mapping):
            yield from configuration_rows(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", DASH if value is None else str(value)


def _rows(
    rows: list[ResultRow], cells_of: Callable[[ResultRow], tuple[Cell, ...]]
) -> Iterator[Row]:
    previous = None
    for row in rows:
        first = row.site != previous
        previous = row.site
        yield Row(
            site=row.site if first else "",
            site_note=_behind(row.figures.get("dsc")) if first else "",
            title=row.title,
            is_model=row.predictor == MODEL,
            cells=cells_of(row),
        )


def _head(metric: str) -> str:
    definition = DEFINITIONS[metric]
    return f"{definition.title} ({definition.unit})" if definition.unit else definition.title


def _cell(row: ResultRow, metric: str) -> Cell:
    figure = row.figures.get(metric)
    decimals = min(DEFINITIONS[metric].decimals, 3)
    spread = number(figure.sd, decimals) if figure is not None and figure.sd is not None else ""
    difference = row.difference(metric)
    note = "" if difference is None else signed(difference, decimals)
    tone = _tone(metric, difference, decimals)
    return Cell(mean_text(figure, None, decimals), spread, note, tone)


def _stratum_cells(row: ResultRow, metric: str) -> Iterator[Cell]:
    decimals = min(DEFINITIONS[metric].decimals, 3)
    for stratum in STRATA:
        figure = row.figures.get(metric)
        difference = row.difference(metric, stratum)
        if row.predictor == REFERENCE or difference is None:
            known = not is_withheld(figure, stratum)
            note = f"{count(pairs_of(figure, stratum))} pairs" if known else ""
        else:
            note = signed(difference, decimals)
        tone = _tone(metric, difference, decimals)
        yield Cell(mean_text(figure, stratum, decimals), note=note, tone=tone)


def _tone(metric: str, difference: float | None, decimals: int) -> str:
    """Name the colour of a difference, by the digits that are shown."""
    shown = round(difference, decimals) if difference is not None else 0
    if shown == 0:
        return ""
    return "good" if (shown > 0) == DEFINITIONS[metric].higher_is_better else "bad"


def _behind(figure: Figure | None) -> str:
    if figure is None:
        return ""
    return f"{count(figure.n_patients)} patients, {count(figure.n_pairs)} pairs"


def _cost(part: SiteRound) -> dict[str, str]:
    train = part.train
    delta = train.delta if train else None
    return {
        "status": _status(part),
        "loss": number(train.loss if train else None, 4),
        "train": seconds_text(train.seconds if train else None),
        "evaluate": seconds_text(part.evaluate_seconds),
        "down": bytes_text(train.bytes_down if train else None),
        "up": bytes_text(train.bytes_up if train else None),
        "epsilon": number(train.epsilon if train else None, 2),
        "delta": DASH if delta is None else f"{delta:g}",
    }


def _status(part: SiteRound) -> str:
    if part.status == "ok":
        return "ok"
    words = "declined" if part.status == "declined" else "left out"
    return f"{words} ({part.reason or 'no reason given'})"


def _percent(share: float | None) -> str:
    return DASH if share is None else f"{100 * share:.0f} %"
