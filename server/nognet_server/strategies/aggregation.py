"""From a round's checked replies to its new global weights, by the study's strategy."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from nognet.config import StudyConfig
from nognet.errors import FederationError
from nognet.wire.flat import MAX_ABS_WEIGHT, FlatWeights
from nognet.wire.records import TrainReply
from nognet_server.runs.state import StrategyState
from nognet_server.strategies.registry import RULES
from nognet_server.strategies.rule import Combined, RoundInput

_log = logging.getLogger("nognet.server.strategies")


def examples_of(study: StudyConfig, reply: TrainReply) -> int:
    """Say how much a reply counts: by pairs, by patients, or each site alike.

    Central privacy lets no site count by more than its `max_weight`.
    """
    by = study.strategy.counts_by
    if by == "equal":
        return 1
    count = reply.n_pairs if by == "pairs" else reply.n_patients
    return count if study.central_privacy is None else min(count, study.central_privacy.max_weight)


def shares_of(study: StudyConfig, replies: Sequence[TrainReply]) -> dict[str, float]:
    """Say what part of a weighted mean each site is.

    Under central privacy of the fixed weight that the sum is divided by; else of what the replies
    count together.
    """
    counts = {reply.site: examples_of(study, reply) for reply in replies}
    total = _fixed_weight(study) or sum(counts.values())
    return {site: count / total for site, count in counts.items()}


def aggregate(
    study: StudyConfig,
    *,
    round_number: int,
    weights: FlatWeights,
    kept: StrategyState,
    replies: Sequence[TrainReply],
) -> tuple[FlatWeights, StrategyState]:
    """Let the study's strategy make new global weights of the sites' replies.

    Args:
        study: Names the strategy and the weighting.
        round_number: From 1.
        weights: The global weights that the sites started from.
        kept: Arrays the strategy kept after the round before.
        replies: At least one, checked; their order doesn't matter.

    Returns:
        New global weights, and the arrays that the strategy keeps, as float32.

    Raises:
        FederationError: there are fewer replies than the strategy needs, or what it gave is not
            finite.
    """
    _check_enough(study, replies, round_number)
    ordered = tuple(sorted(replies, key=lambda reply: reply.site))
    counts = tuple(examples_of(study, reply) for reply in ordered)
    given = RoundInput(round_number, weights, kept, ordered, counts)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found below
        combined = RULES[study.strategy.name](study.strategy, given)
        new = combined.weights.astype(np.float32)
        keeps = {name: np.array(a, dtype=np.float32) for name, a in combined.kept.items()}
    _check_usable(study, {"weights": new, **keeps}, weights.shape, round_number)
    _tell(study, combined, round_number)
    return new, keeps


def _fixed_weight(study: StudyConfig) -> int | None:
    privacy, sites = study.central_privacy, study.federation.expected_sites
    return None if privacy is None or sites is None else sites * privacy.max_weight


def _check_enough(study: StudyConfig, replies: Sequence[TrainReply], round_number: int) -> None:
    if not replies:
        raise FederationError(
            f"round {round_number}: no usable reply to aggregate", code="no-usable-reply"
        )
    name, needed = study.strategy.name, study.strategy.sites_needed
    if len(replies) < needed:
        raise FederationError(
            f"round {round_number}: found {len(replies)} usable replies, strategy {name} needs "
            f"{needed} to keep what it promises; bring more sites in and resume, or start a new "
            "run with a strategy that needs fewer",
            code="too-few-for-strategy",
        )


def _check_usable(
    study: StudyConfig, arrays: StrategyState, shape: tuple[int, ...], round_number: int
) -> None:
    """Refuse what a checkpoint could not be read with again."""
    for name, array in arrays.items():
        sized = array.shape == shape or (name != "weights" and array.shape == (1,))
        if not sized or not (np.abs(array) <= MAX_ABS_WEIGHT).all():
            raise FederationError(
                f"round {round_number}: {study.strategy.name} gave {name} that are not finite, "
                f"larger than {MAX_ABS_WEIGHT:g} or not of the network's size; lower the learning "
                "rates",
                code="not-finite",
            )


def _tell(study: StudyConfig, combined: Combined, round_number: int) -> None:
    if combined.used is not None:
        sites = ", ".join(combined.used)
        _log.info("round %d: %s took %s", round_number, study.strategy.name, sites)
