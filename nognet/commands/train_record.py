"""The record of a site that trained alone: `metrics.json` in the form of a run's, and the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nognet
from nognet.config import SiteConfig, StudyConfig
from nognet.data.store import PreparedSite
from nognet.errors import NognetError
from nognet.fit.alone import LOCAL, LocalRound
from nognet.fit.model_file import save_model
from nognet.fit.outcome import RoundOutcome
from nognet.fit.pretraining.beginning import Beginning
from nognet.fit.weights import Weights
from nognet.metrics.definitions import definition_texts
from nognet.metrics.statistics import SiteStatistics
from nognet.report.metrics_file import METRICS_FILE_NAME, write_metrics
from nognet.report.metrics_schema import SCHEMA_VERSION, RunMetrics, RunStatus

MODEL_NAME = "model.nognet"
LAST_NAME = "last.nognet"


@dataclass(frozen=True)
class LocalRun:
    """What was trained where, and what it has come to so far."""

    study: StudyConfig
    site: SiteConfig
    prepared: PreparedSite
    started: str
    begun: Beginning
    rounds: tuple[Mapping[str, Any], ...] = ()
    final: Mapping[str, Any] | None = field(default=None)

    def with_round(self, done: LocalRound) -> LocalRun:
        """Add a finished round."""
        return replace(self, rounds=(*self.rounds, _round_entry(self, done)))

    def with_test(self, number: int, test: SiteStatistics) -> LocalRun:
        """Add the test figures of the round that was chosen."""
        entry = {"test": test.figures()}
        final = {"round": number, "sites": {self.site.name: entry}, "pooled": entry}
        return replace(self, final=final)

    def metrics(self, status: RunStatus, seconds: float) -> RunMetrics:
        """Make the document; its schema holds every number to be finite or None."""
        return RunMetrics.model_validate(
            {
                "schema_version": SCHEMA_VERSION,
                "nognet_version": nognet.__version__,
                "began_with": dict(self.begun.lineage),
                "study": self.study.model_dump(mode="json", exclude={"server", "runs"}),
                "status": status,
                "started": self.started,
                "ended": None if status == "running" else utc_now(),
                "seconds": round(seconds, 3),
                "definitions": definition_texts(),
                "sites": {self.site.name: {"counts": self.prepared.counts()}},
                "rounds": self.rounds,
                "final": self.final,
            }
        )


def utc_now() -> str:
    """Give the time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def check_folder_is_free(out: Path, names: tuple[str, ...], *, force: bool) -> None:
    """Refuse to write over results.

    Raises:
        NognetError: one of the files is there and `force` is not given.
    """
    there = [name for name in names if (out / name).exists()]
    if there and not force:
        raise NognetError(
            f"{out}: holds {', '.join(there)} already; give another folder, or --force to replace "
            "them",
            code="out-exists",
        )


def save_round(out: Path, run: LocalRun, done: LocalRound, seconds: float) -> None:
    """Keep the last round's weights, the best ones if they are new, and the figures."""
    _save(out / LAST_NAME, run, done.outcome.weights, (done.number, done.value))
    if done.best.number == done.number:
        _save(out / MODEL_NAME, run, done.best.weights, (done.best.number, done.best.value))
    write_metrics(out / METRICS_FILE_NAME, run.metrics("running", seconds))


def _save(path: Path, run: LocalRun, weights: Weights, chosen: tuple[int, float | None]) -> None:
    number, value = chosen
    save_model(
        path,
        weights,
        network=run.study.network,
        roi=run.study.roi,
        provenance={
            "predictor": LOCAL,
            "study": run.study.name,
            "round": number,
            "selection": {"metric": run.study.selection.metric, "value": value},
            "sites": [run.site.name],
            "began_with": dict(run.begun.lineage),
            "nognet_version": nognet.__version__,
        },
    )


def _round_entry(run: LocalRun, done: LocalRound) -> dict[str, Any]:
    figures = done.validation.figures()
    site = {
        "status": "ok",
        "weight": 1.0,
        "train": _train_entry(done.outcome),
        "validation": figures,
        "evaluate_seconds": round(done.evaluate_seconds, 3),
    }
    return {
        "round": done.number,
        "seconds": round(done.outcome.seconds + done.evaluate_seconds, 3),
        "sites": {run.site.name: site},
        "validation": figures,
        "selection": {
            "metric": run.study.selection.metric,
            "value": done.value,
            "is_best": done.is_best,
        },
    }


def _train_entry(outcome: RoundOutcome) -> dict[str, Any]:
    return {
        "loss": outcome.mean_loss,
        "seconds": round(outcome.seconds, 3),
        "steps": outcome.steps,
        "n_pairs": outcome.n_pairs,
        "n_patients": outcome.n_patients,
        "epsilon": outcome.epsilon,
        "delta": outcome.delta,
    }
