"""Test figures of `nognet benchmark privacy`: of a run, and of predictors that spend no patient."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nognet.config import StudyConfig
from nognet.errors import FederationError
from nognet.fit.contest.judge import judge
from nognet.fit.predictors import network_predictor
from nognet.fit.pretraining.beginning import beginning
from nognet.fit.pretraining.train import Progress
from nognet.fit.weights import network_with
from nognet.report.metrics_file import read_metrics
from nognet.report.privacy_costs import METRICS, CellResult, Figures
from nognet.types import RoiPair

ALL_SITES = "all sites"


def result_of(run: Path, init: str, epsilon: float | None, seed: int, seconds: float) -> CellResult:
    """Read a run's test figures.

    Raises:
        FederationError: it has none.
    """
    metrics = read_metrics(run)
    if metrics.final is None or metrics.final.pooled is None:
        raise FederationError(f"{run}: the run has no test figures", code="cell-failed")
    tests = {site: entry.test for site, entry in metrics.final.sites.items()}
    tests[ALL_SITES] = metrics.final.pooled.test
    spent = [site.train.epsilon for e in metrics.rounds for site in e.sites.values() if site.train]
    return CellResult(
        kind=init,
        epsilon=epsilon,
        seed=seed,
        seconds=round(seconds, 1),
        spent=max((value for value in spent if value is not None), default=None),
        figures={site: _figures(test["federated"]) for site, test in tests.items()},
        copy={site: _figures(test["copy"]) for site, test in tests.items()},
    )


def _figures(test: Mapping[str, Any]) -> Figures:
    found: Figures = {}
    for metric, stratum in METRICS:
        figure = test.get(metric)
        if stratum is not None and figure is not None:
            figure = figure.strata.get(stratum)
        found[_key(metric, stratum)] = None if figure is None else figure.mean
    return found


def _key(metric: str, stratum: str | None) -> str:
    return metric if stratum is None else f"{metric}_{stratum}"


def copied(results: Sequence[CellResult]) -> CellResult:
    """Give the row of copying the baseline: the same in all runs."""
    return CellResult("copy", 0.0, 0, 0.0, None, results[0].copy, results[0].copy)


def pretrained_alone(
    study: StudyConfig, pairs: Mapping[str, Sequence[RoiPair]], progress: Progress
) -> CellResult:
    """Pre-train once for all runs, and test that: what no patient has been spent on yet.

    Args:
        study: Of a run that begins from phantoms.
        pairs: Test pairs of each site.
        progress: Told of every step of the pre-training.
    """
    begun = beginning(study, study.runs / ".pretrained", progress)
    device = torch.device("cpu")
    predict = network_predictor(network_with(study.network, begun.weights, device), device)
    pooled = [pair for found in pairs.values() for pair in found]

    def figures(found: Sequence[RoiPair]) -> Figures:
        rows = list(judge("pretrained", None, predict, found))
        return {
            _key(metric, stratum): _mean(
                row.metrics[metric] for row in rows if stratum in {None, row.stratum}
            )
            for metric, stratum in METRICS
        }

    shown = {site: figures(found) for site, found in {**pairs, ALL_SITES: pooled}.items()}
    return CellResult("pretrained", 0.0, 0, 0.0, None, shown, {})


def _mean(values: Iterable[float]) -> float | None:
    defined = [value for value in values if math.isfinite(value)]
    return math.fsum(defined) / len(defined) if defined else None
