"""Flower's own strategies, each for one aggregation: given its state, used, asked for it again."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from nognet.errors import FederationError
from nognet.wire.records import ARRAYS, CONFIG, METRICS, WEIGHTS, weights_record
from nognet_server.flower_adapter import Chosen, reply_of
from nognet_server.strategies.rule import RoundInput

_EXAMPLES = "num-examples"
EVERY_SITE: dict[str, Any] = {
    "fraction_train": 1.0,
    "min_train_nodes": 0,
    "min_available_nodes": 0,
    "weighted_by_key": _EXAMPLES,
    "arrayrecord_key": ARRAYS,
    "configrecord_key": CONFIG,
}
"""Arguments of any strategy of Flower's: all sites that are there, our records' names."""


def aggregated(strategy: FedAvg, given: RoundInput) -> NDArray[Any]:
    """Let a strategy of Flower's aggregate a round; it is changed.

    Raises:
        FederationError: it gave no weights.
    """
    sent = weights_record(given.weights)
    strategy.configure_train(given.number, sent, ConfigRecord(), Chosen(()))
    replies = [
        reply_of(
            RecordDict(
                {
                    ARRAYS: weights_record(reply.weights),
                    METRICS: MetricRecord({_EXAMPLES: count}),
                }
            )
        )
        for reply, count in zip(given.replies, given.counts, strict=True)
    ]
    record, _ = strategy.aggregate_train(given.number, replies)
    if record is None:
        raise FederationError(
            f"round {given.number}: {type(strategy).__name__} gave no weights", code="no-weights"
        )
    return np.array(record[WEIGHTS].numpy())
