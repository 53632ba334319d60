"""Train one site alone: the rounds of a study without a federation, the predictor `local`.

It is what a hospital could do by itself, and so what a federation has to beat. With FedAvg a
federation of one site gives the same weights bit for bit.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nognet.config import FedAvgConfig, SiteConfig, StudyConfig
from nognet.data.store import PreparedSite
from nognet.errors import ConfigError
from nognet.fit.budget import admit_study
from nognet.fit.evaluate import evaluate_split
from nognet.fit.outcome import RoundOutcome
from nognet.fit.train import train_round
from nognet.fit.weights import Weights, initial_weights
from nognet.metrics.definitions import is_better
from nognet.metrics.statistics import SiteStatistics
from nognet.types import Split

LOCAL = "local"
StepProgress = Callable[[int, int, int, float], None]
"""Called after each step with round, step, steps of the round, loss (NaN under privacy)."""


@dataclass(frozen=True)
class BestRound:
    """The round whose weights are kept: best by the selection metric, the last if none has any."""

    number: int
    value: float | None
    weights: Weights


@dataclass(frozen=True)
class LocalRound:
    """One round of a site alone.

    Attributes:
        number: From 1.
        outcome: Weights after the round, loss, seconds, privacy spent.
        validation: Of these weights and of both baselines.
        evaluate_seconds: Wall time of the validation.
        value: The selection metric on validation; None where it is not defined.
        is_best: Whether `value` beats all rounds before.
        best: The best round so far.
    """

    number: int
    outcome: RoundOutcome
    validation: SiteStatistics
    evaluate_seconds: float
    value: float | None
    is_best: bool
    best: BestRound


def train_alone(
    study: StudyConfig,
    site: SiteConfig,
    prepared: PreparedSite,
    *,
    first: Weights | None = None,
    progress: StepProgress | None = None,
) -> Iterator[LocalRound]:
    """Train the study's rounds at one site; yield each round when it is done.

    Ends before the last round where `training.early_stop_rounds` says so.

    Whoever stops asking for rounds keeps the last one. The study's strategy plays no part: nothing
    is averaged, and FedProx' pull to the global weights has nothing to pull to.

    Args:
        study: Rounds, steps, network, losses, selection.
        site: Its seed, device and threads.
        prepared: Its pairs.
        first: Weights to begin with, as `nognet.fit.pretraining.beginning` gives them for the
            study's `init`; None: drawn from its seed.
        progress: Called after each step.

    Raises:
        ConfigError: the pairs were cut with another ROI than the study's, or the device can't do
            its precision.
        TrainingError: there are no training pairs, or a loss is not finite.
        PrivacyError, PrivacyBudgetError: the rounds, or one of them, may not be spent.
    """
    check_same_roi(study, prepared)
    plain = study.model_copy(update={"strategy": FedAvgConfig()})
    admit_study(plain, site, prepared)
    run_token = secrets.token_hex(16)
    weights = initial_weights(study.network, study.seed) if first is None else first
    last: LocalRound | None = None
    for number in range(1, study.rounds + 1):
        outcome = train_round(
            plain,
            site,
            prepared,
            weights,
            round_number=number,
            progress=None if progress is None else _in_round(progress, number),
            run_token=run_token,
        )
        weights = outcome.weights
        started = time.perf_counter()
        validation = evaluate_local(plain, site, prepared, weights, split="validation")
        last = _judged(study, last, outcome, validation, time.perf_counter() - started)
        yield last
        if is_early_stop(study, last):
            return


def is_early_stop(study: StudyConfig, done: LocalRound) -> bool:
    """Whether training stops here: `early_stop_rounds` rounds have brought nothing better.

    Without a selection value, as without validation pairs, it never does.
    """
    patience = study.training.early_stop_rounds
    if patience is None or done.best.value is None or done.number >= study.rounds:
        return False
    return done.number - done.best.number >= patience


def evaluate_local(
    study: StudyConfig,
    site: SiteConfig,
    prepared: PreparedSite,
    weights: Weights,
    *,
    split: Split,
) -> SiteStatistics:
    """Evaluate a site's own weights, called `local`, beside both baselines."""
    found = evaluate_split(study, site, prepared, weights, split=split)
    named = {LOCAL if name == "federated" else name: s for name, s in found.predictors.items()}
    return SiteStatistics(dict(sorted(named.items())))


def check_same_roi(study: StudyConfig, prepared: PreparedSite) -> None:
    """Hold the ROI of the pairs against the study's.

    Raises:
        ConfigError: they differ.
    """
    if prepared.roi != study.roi:
        raise ConfigError(
            f"{prepared.folder}: the pairs were cut with roi {prepared.roi.canonical_json()}, the "
            f"study has roi {study.roi.canonical_json()}; write the study's roi into site.yaml and "
            "prepare again",
            code="roi-differs",
        )


def _judged(
    study: StudyConfig,
    before: LocalRound | None,
    outcome: RoundOutcome,
    validation: SiteStatistics,
    evaluate_seconds: float,
) -> LocalRound:
    """Select as the coordinator does: better by the metric; the last where nothing has a value."""
    number = 1 if before is None else before.number + 1
    metric = study.selection.metric
    mean = validation.figures().get(LOCAL, {}).get(metric, {}).get("mean")
    value = None if mean is None else float(mean)
    best = None if before is None else before.best
    is_best = value is not None and is_better(metric, value, best.value if best else None)
    if best is None or best.value is None or is_best:
        best = BestRound(number, value, outcome.weights)
    return LocalRound(number, outcome, validation, evaluate_seconds, value, is_best, best)


def _in_round(progress: StepProgress, number: int) -> Callable[[int, int, float], None]:
    return lambda step, steps, loss: progress(number, step, steps, loss)
