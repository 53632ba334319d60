"""One round as functions of values: checked replies and a state in, a new state and a report out.

    replies of training   -> replies.check_training   -> after_training (new weights)
    replies of evaluation -> replies.check_evaluation -> finish_round   (new state, report)

Nothing here sends, waits or writes. Everything is in order of the sites' names, so that sums don't
depend on who answered first.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nognet.config import StudyConfig
from nognet.errors import FederationError
from nognet.metrics.definitions import is_better
from nognet.wire.records import TrainReply
from nognet_server.rounds.entries import site_entries, sum_entry
from nognet_server.rounds.replies import Evaluation, Training
from nognet_server.runs.state import Best, ServerState
from nognet_server.strategies import aggregate

_log = logging.getLogger("nognet.server.round")
Figures = Mapping[str, Mapping[str, Mapping[str, Any]]]
FEDERATED = "federated"
QUARANTINED = "quarantined"
WITHDRAWN = "withdrawn"
_ROUNDS_COMPARED = 5


@dataclass(frozen=True)
class RoundReport:
    """What a round came to, as `metrics.json` tells it."""

    round_number: int
    seconds: float
    sites: Mapping[str, Mapping[str, Any]]
    validation: Figures
    value: float | None
    is_best: bool
    secure_sum: Mapping[str, Any] | None = None

    def to_entry(self, metric: str) -> dict[str, Any]:
        """Write the entry of `metrics.json`'s ``rounds``."""
        return {
            "round": self.round_number,
            "seconds": round(self.seconds, 3),
            "sites": {site: dict(entry) for site, entry in self.sites.items()},
            "validation": self.validation,
            "selection": {"metric": metric, "value": self.value, "is_best": self.is_best},
            **({"secure_sum": self.secure_sum} if self.secure_sum else {}),
        }


class RoundFailedError(FederationError):
    """A round has too few usable replies; it tells which sites sent something unusable."""

    def __init__(self, message: str, *, code: str, faulty: frozenset[str]) -> None:
        """Keep the sites at fault beside message and code."""
        super().__init__(message, code=code)
        self.faulty = faulty


def check_enough(
    study: StudyConfig, training: Training, *, asked: int, round_number: int, folder: Path
) -> None:
    """Hold the usable replies against what the study wants of a round.

    Args:
        study: `minimum_sites` and `quorum`.
        training: Of the round.
        asked: Sites that were asked.
        round_number: For the message.
        folder: The run's, for the message.

    Raises:
        RoundFailedError: they are too few.
    """
    limits, usable = study.federation, len(training.counted)
    needed = replies_needed(study, asked)
    if usable >= needed:
        return
    raise RoundFailedError(
        f"round {round_number}: {usable} usable replies of {asked} sites asked, expected {needed} "
        f"(federation.minimum_sites is {limits.minimum_sites}, quorum {limits.quorum:g}); left "
        f"out: {reasons_text(training.left_out)}. The state after round {round_number - 1} is "
        f"kept; mend the sites and resume with --resume {folder}",
        code="too-few-replies",
        faulty=training.faulty,
    )


def replies_needed(study: StudyConfig, asked: int) -> int:
    """Count the usable replies that a round wants of so many sites asked."""
    limits = study.federation
    return max(limits.minimum_sites, math.ceil(limits.quorum * asked - 1e-9))


def reasons_text(left_out: Mapping[str, str]) -> str:
    """Say who was left out and why.

    >>> reasons_text({"site_b": "timeout"})
    'site_b (timeout)'
    """
    return ", ".join(f"{site} ({reason})" for site, reason in sorted(left_out.items())) or "nobody"


def recent_norms(state: ServerState) -> tuple[float, ...]:
    """Lengths of the updates that counted in the last rounds; the weights' own before the first."""
    entries = [
        site["train"]
        for entry in state.history[-_ROUNDS_COMPARED:]
        for site in entry["sites"].values()
        if site["status"] == "ok" and site["train"]
    ]
    norms = tuple(float(entry["update_norm"]) for entry in entries if entry.get("update_norm"))
    return norms or (float(np.linalg.norm(state.weights.astype(np.float64))),)


def barred_sites(study: StudyConfig, state: ServerState) -> dict[str, str]:
    """Name the sites that are asked no more, and why."""
    most = study.federation.quarantine_after
    bad = {site: QUARANTINED for site, count in state.strikes.items() if count >= most}
    return {**bad, **dict.fromkeys(state.withdrawn, WITHDRAWN)}


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
        sites=site_entries(study, training, evaluation),
        validation=figures,
        value=value,
        is_best=improved,
        secure_sum=sum_entry(training.summed) if training.summed else None,
    )
    return (
        replace(
            struck(study, state, training.faulty | evaluation.faulty),
            best=best,
            history=(*state.history, report.to_entry(metric)),
            lineage={
                **dict.fromkeys(training.counted, state.round_number),
                **state.lineage,
            },
        ),
        report,
    )


def struck(study: StudyConfig, state: ServerState, faulty: frozenset[str]) -> ServerState:
    """Count the rounds in which each site was at fault, and say who is asked no more."""
    most, strikes = study.federation.quarantine_after, state.strikes
    counted = {site: strikes.get(site, 0) + (site in faulty) for site in {*strikes, *faulty}}
    for site in sorted(faulty):
        if counted[site] == most:
            _log.warning(
                "%s is quarantined: its replies could not be used in %d rounds; it is asked no "
                "more in this run. Find out why from its log and this one's reasons, then start a "
                "new run, or: nognet-server release %s --run FOLDER",
                site,
                most,
                site,
            )
    return replace(state, strikes=dict(sorted(counted.items())))
