"""SCAFFOLD (Karimireddy et al. 2020, algorithm 1): local steps without client drift.

    site:    g = gradient(y) + (c - c_i) at each step; c_i+ = mean of its own gradients
    server:  w = w + eta sum p_i (y_i - w); c = sum p_i c_i over all sites ever heard of

With plain SGD the mean of the gradients *is* the paper's option II, ``c_i - c + (w - y_i) / (K
eta_l)``; with AdamW, clipping and a warm-up only the mean still is (docs/decisions/0010).

The server keeps every c_i, and each site gets its own ``c - c_i``: a site has no state that a
crash, a message sent twice, a reply that is left out or a resumed run could put out of step.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nognet.config import FedAvgConfig, ScaffoldConfig
from nognet.errors import FederationError
from nognet.wire.flat import FlatWeights
from nognet_server.runs.state import StrategyState
from nognet_server.strategies.averaging import fedavg
from nognet_server.strategies.rule import Combined, RoundInput

_CONTROL, _COUNT = "control.", "count."


def scaffold(config: ScaffoldConfig, given: RoundInput) -> Combined:
    """Average the weights, and note each site's control variate and what it counts by.

    Raises:
        FederationError: a reply has no control variate.
    """
    kept = dict(given.kept)
    for reply, count in zip(given.replies, given.counts, strict=True):
        if reply.control is None:
            raise FederationError(
                f"round {given.number}: the reply of {reply.site} has no control variate; privacy "
                "at the site forbids it to be sent",
                code="no-control",
            )
        kept[_CONTROL + reply.site] = reply.control
        kept[_COUNT + reply.site] = np.array([count], np.float32)
    if config.server_learning_rate == 1.0:  # to FedAvg's own bits
        return Combined(fedavg(FedAvgConfig(), given).weights, kept)
    return Combined(given.weights + config.server_learning_rate * given.mean_update(), kept)


def corrections(kept: StrategyState) -> Mapping[str, FlatWeights]:
    """Give ``c - c_i`` for each site that has a c_i; others train without a correction.

    A site that comes later starts with ``c_i = c``: with the paper's 0 its first round would add
    everybody's gradient to its own.
    """
    names = sorted(n.removeprefix(_CONTROL) for n in kept if n.startswith(_CONTROL))
    if not names:
        return {}
    counts = np.array([float(kept[_COUNT + name][0]) for name in names])
    mean = np.zeros(kept[_CONTROL + names[0]].shape)
    for share, name in zip(counts / counts.sum(), names, strict=True):
        mean += share * kept[_CONTROL + name]
    return {name: (mean - kept[_CONTROL + name]).astype(np.float32) for name in names}
