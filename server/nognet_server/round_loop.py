"""One round as functions of values: checked replies and a state in, a new state and a report out.

    replies of training   -> check_training   -> after_training (new weights)
    replies of evaluation -> check_evaluation -> finish_round   (new state, report)

Nothing here sends, waits or writes. Everything is in order of the sites' names, so that sums don't
depend on who answered first.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nognet.config import StudyConfig
from nognet.errors import WireError
from nognet.metrics.definitions import is_better
from nognet.metrics.statistics import SiteStatistics, merge_all
from nognet.types import Split
from nognet.wire.records import EvaluateReply, TrainReply
from nognet_server.grid import Delivery
from nognet_server.state import Best, ServerState
from nognet_server.strategies import aggregate, examples_of

_log = logging.getLogger("nognet.server.round")
Figures = Mapping[str, Mapping[str, Mapping[str, Any]]]
FEDERATED = "federated"


@dataclass(frozen=True)
class Training:
    """The usable replies of a round's training, sorted by site, and who was left out and why."""

    replies: tuple[TrainReply, ...]
    left_out: Mapping[str, str]
    traffic: Mapping[str, Delivery] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """The usable statistics of one split by site, and who was left out and why."""

    statistics: Mapping[str, SiteStatistics]
    seconds: Mapping[str, float]
    left_out: Mapping[str, str]

    def pooled(self) -> SiteStatistics:
        """Merge all sites, in order of their names."""
        return merge_all(self.statistics[site] for site in sorted(self.statistics))


@dataclass(frozen=True)
class RoundReport:
    """What a round came to, as `metrics.json` tells it."""

    round_number: int
    seconds: float
    sites: Mapping[str, Mapping[str, Any]]
    validation: Figures
    value: float | None
    is_best: bool

    def to_entry(self, metric: str) -> dict[str, Any]:
        """Write the entry of `metrics.json`'s ``rounds``."""
        return {
            "round": self.round_number,
            "seconds": round(self.seconds, 3),
            "sites": {site: dict(entry) for site, entry in self.sites.items()},
            "validation": self.validation,
            "selection": {"metric": metric, "value": self.value, "is_best": self.is_best},
        }


def check_training(deliveries: Iterable[Delivery], *, length: int, round_number: int) -> Training:
    """Check what sites sent after training; a bad reply is left out by name and reason."""
    replies: dict[str, TrainReply] = {}
    left_out: dict[str, str] = {}
    traffic: dict[str, Delivery] = {}
    for delivery in sorted(deliveries, key=lambda d: d.site):
        traffic[delivery.site] = replace(delivery, content=None)
        try:
            content = _content_of(delivery)
            reply = TrainReply.from_content(content, length=length)
            _check_is_answer(reply, delivery.site, round_number)
        except WireError as err:
            left_out[delivery.site] = _left_out(delivery, err, round_number, "training")
        else:
            replies[delivery.site] = reply
    return Training(tuple(replies.values()), left_out, traffic)


def check_evaluation(
    deliveries: Iterable[Delivery], *, split: Split, round_number: int
) -> Evaluation:
    """Check the statistics that sites sent; bad ones are left out by name and reason."""
    statistics: dict[str, SiteStatistics] = {}
    seconds: dict[str, float] = {}
    left_out: dict[str, str] = {}
    for delivery in sorted(deliveries, key=lambda d: d.site):
        try:
            reply = EvaluateReply.from_content(_content_of(delivery))
            _check_is_answer(reply, delivery.site, round_number, split)
            statistics[delivery.site] = SiteStatistics.from_flat(reply.statistics)
            seconds[delivery.site] = reply.seconds
        except WireError as err:
            left_out[delivery.site] = _left_out(delivery, err, round_number, f"{split} evaluation")
    return Evaluation(statistics, seconds, left_out)


def after_training(
    study: StudyConfig, state: ServerState, replies: Sequence[TrainReply]
) -> ServerState:
    """Aggregate a round's replies into new global weights.

    Raises:
        FederationError: there is no reply, or the strategy gave weights that can't be used.
    """
    number = state.round_number + 1
    weights, kept = aggregate(
        study,
        round_number=number,
        weights=state.weights,
        kept=state.strategy,
        replies=sorted(replies, key=lambda reply: reply.site),
    )
    return replace(state, round_number=number, weights=weights, strategy=kept)


def finish_round(
    study: StudyConfig,
    state: ServerState,
    *,
    training: Training,
    evaluation: Evaluation,
    seconds: float,
) -> tuple[ServerState, RoundReport]:
    """Select by validation and report.

    Args:
        study: Names the selection metric.
        state: As `after_training` gave it.
        training: The round's training.
        evaluation: Of the new weights on validation.
        seconds: Wall time of the round.

    Returns:
        The state with its best round and its history brought up to date, and the round's report.
    """
    figures = evaluation.pooled().figures()
    metric = study.selection.metric
    value = figures.get(FEDERATED, {}).get(metric, {}).get("mean")
    best = state.best
    improved = value is not None and is_better(metric, value, best.value if best else None)
    if improved and value is not None:
        best = Best(state.round_number, float(value))
    report = RoundReport(
        round_number=state.round_number,
        seconds=seconds,
        sites=_site_entries(study, training, evaluation),
        validation=figures,
        value=value,
        is_best=improved,
    )
    history = (*state.history, report.to_entry(metric))
    return replace(state, best=best, history=history), report


def _content_of(delivery: Delivery) -> Any:  # noqa: ANN401  Flower's RecordDict, checked next
    if delivery.content is None:
        raise WireError("there is no reply", code=delivery.reason or "no-reply")
    return delivery.content


def _check_is_answer(
    reply: TrainReply | EvaluateReply, site: str, round_number: int, split: Split | None = None
) -> None:
    if reply.site != site:
        raise WireError(f"the reply is signed '{reply.site}', expected '{site}'", code="site")
    if reply.round_number != round_number:
        raise WireError(
            f"the reply is for round {reply.round_number}, expected {round_number}", code="round"
        )
    if isinstance(reply, EvaluateReply) and reply.split != split:
        raise WireError(f"the reply is for {reply.split}, expected {split}", code="split")


def _left_out(delivery: Delivery, err: WireError, round_number: int, what: str) -> str:
    """Log why a site is left out and give the reason for `metrics.json`."""
    reason = delivery.reason or err.public_code
    detail = reason if delivery.reason else f"{reason}: {err}"
    _log.warning("round %d: %s is left out of %s: %s", round_number, delivery.site, what, detail)
    return reason


def _site_entries(
    study: StudyConfig, training: Training, evaluation: Evaluation
) -> dict[str, dict[str, Any]]:
    total = sum(examples_of(study, reply) for reply in training.replies)
    replies = {reply.site: reply for reply in training.replies}
    names = {*replies, *training.left_out, *evaluation.statistics, *evaluation.left_out}
    entries: dict[str, dict[str, Any]] = {}
    for site in sorted(names):
        reply = replies.get(site)
        statistics = evaluation.statistics.get(site)
        entries[site] = {
            "status": "ok" if reply else "left-out",
            "reason": training.left_out.get(site) or evaluation.left_out.get(site),
            "weight": examples_of(study, reply) / total if reply else 0.0,
            "train": _train_entry(reply, training.traffic.get(site)) if reply else None,
            "validation": statistics.figures() if statistics else {},
            "evaluate_seconds": _rounded(evaluation.seconds.get(site)),
        }
    return entries


def _train_entry(reply: TrainReply, traffic: Delivery | None) -> dict[str, Any]:
    return {
        "loss": reply.mean_loss,
        "seconds": _rounded(reply.seconds),
        "round_trip_seconds": _rounded(traffic.seconds if traffic else None),
        "steps": reply.steps,
        "n_pairs": reply.n_pairs,
        "n_patients": reply.n_patients,
        "epsilon": reply.epsilon,
        "delta": reply.delta,
        "bytes_down": traffic.bytes_down if traffic else None,
        "bytes_up": traffic.bytes_up if traffic else None,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
