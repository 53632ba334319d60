"""Flower's strategies by the names of `study.yaml`; a new one is one function and one line.

A strategy object lives for one aggregation only: it is built from the study, given the arrays it
kept (`ServerState.strategy`), used, and asked for them again: a round is a function of its state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg, FedProx

from nognet.config import FedAdamConfig, FedAvgConfig, FedProxConfig, StudyConfig
from nognet.errors import FederationError
from nognet.wire.flat import FlatWeights
from nognet.wire.records import ARRAYS, CONFIG, METRICS, WEIGHTS, TrainReply, weights_record
from nognet_server.flower_adapter import Chosen, reply_of
from nognet_server.state import StrategyState

_EXAMPLES = "num-examples"
_EVERY_SITE: dict[str, Any] = {
    "fraction_train": 1.0,
    "min_train_nodes": 0,
    "min_available_nodes": 0,
    "weighted_by_key": _EXAMPLES,
    "arrayrecord_key": ARRAYS,
    "configrecord_key": CONFIG,
}


@dataclass(frozen=True)
class Recipe:
    """How a strategy is built from its configuration, and the arrays it keeps between rounds."""

    build: Callable[[Any], FedAvg]
    keeps: tuple[str, ...] = ()


def _fedavg(_: FedAvgConfig) -> FedAvg:
    return FedAvg(**_EVERY_SITE)


def _fedprox(config: FedProxConfig) -> FedAvg:
    return FedProx(**_EVERY_SITE, proximal_mu=config.proximal_mu)


def _fedadam(config: FedAdamConfig) -> FedAvg:
    return FedAdam(
        **_EVERY_SITE,
        eta=config.server_learning_rate,
        beta_1=config.beta_1,
        beta_2=config.beta_2,
        tau=config.tau,
    )


RECIPES: dict[str, Recipe] = {
    "fedavg": Recipe(_fedavg),
    "fedprox": Recipe(_fedprox),
    "fedadam": Recipe(_fedadam, keeps=("m_t", "v_t")),
}


def build_strategy(study: StudyConfig, kept: StrategyState) -> FedAvg:
    """Build the study's strategy and give it the arrays that it kept."""
    recipe = RECIPES[study.strategy.name]
    strategy = recipe.build(study.strategy)
    for name in recipe.keeps:
        if name in kept:
            setattr(strategy, name, {WEIGHTS: kept[name]})
    return strategy


def kept_by(study: StudyConfig, strategy: FedAvg) -> StrategyState:
    """Take the arrays that the strategy keeps for the next round."""
    kept: dict[str, FlatWeights] = {}
    for name in RECIPES[study.strategy.name].keeps:
        arrays: Mapping[str, FlatWeights] | None = getattr(strategy, name)
        if arrays is not None:
            kept[name] = np.array(arrays[WEIGHTS])
    return kept


def examples_of(study: StudyConfig, reply: TrainReply) -> int:
    """Say how much a reply counts: by pairs, by patients, or each site alike."""
    weighting = study.strategy.weighting
    if weighting == "equal":
        return 1
    return reply.n_pairs if weighting == "pairs" else reply.n_patients


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
        replies: At least one, checked, sorted by site.

    Returns:
        New global weights as float32 (Flower's FedAdam gives float64, since its bias correction is
        a NumPy float64 number), and the arrays that the strategy keeps.

    Raises:
        FederationError: there is no reply, or the new weights are not finite.
    """
    if not replies:
        raise FederationError(
            f"round {round_number}: no usable reply to aggregate", code="no-usable-reply"
        )
    strategy = build_strategy(study, kept)
    strategy.configure_train(round_number, weights_record(weights), ConfigRecord(), Chosen(()))
    messages = [reply_of(_weighted(study, reply)) for reply in replies]
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found below
        record, _ = strategy.aggregate_train(round_number, messages)
        if record is None:
            raise FederationError(
                f"round {round_number}: {study.strategy.name} gave no weights", code="no-weights"
            )
        new = np.array(record[WEIGHTS].numpy(), dtype=np.float32)
    keeps = kept_by(study, strategy)
    for name, array in (("weights", new), *keeps.items()):
        if array.shape != weights.shape or not np.isfinite(array).all():
            raise FederationError(
                f"round {round_number}: {study.strategy.name} gave {name} that are not finite or "
                "not of the network's size; lower the learning rates",
                code="not-finite",
            )
    return new, keeps


def _weighted(study: StudyConfig, reply: TrainReply) -> RecordDict:
    arrays: ArrayRecord = weights_record(reply.weights)
    metrics = MetricRecord({_EXAMPLES: examples_of(study, reply)})
    return RecordDict({ARRAYS: arrays, METRICS: metrics})
