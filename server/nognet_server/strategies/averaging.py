"""FedAvg, FedProx and FedAvgM: the weighted mean, Flower's own."""

from __future__ import annotations

import numpy as np
from flwr.serverapp.strategy import FedAvg, FedAvgM, FedProx

from nognet.config import FedAvgConfig, FedAvgMConfig, FedProxConfig
from nognet_server.strategies.rule import Combined, RoundInput
from nognet_server.strategies.through_flower import EVERY_SITE, aggregated

_MOMENTUM = "momentum"


def fedavg(_: FedAvgConfig, given: RoundInput) -> Combined:
    """Average: ``w = sum p_k w_k`` (McMahan et al. 2017, algorithm 1)."""
    return Combined(aggregated(FedAvg(**EVERY_SITE), given))


def fedprox(config: FedProxConfig, given: RoundInput) -> Combined:
    """Average; the proximal term is the sites' (Li et al. 2020, algorithm 2)."""
    strategy = FedProx(**EVERY_SITE, proximal_mu=config.proximal_mu)
    return Combined(aggregated(strategy, given))


def fedavgm(config: FedAvgMConfig, given: RoundInput) -> Combined:
    """Go on with momentum: ``v = beta v + (w - mean); w = w - eta v`` (Hsu et al. 2019)."""
    strategy = FedAvgM(
        **EVERY_SITE,
        server_learning_rate=config.server_learning_rate,
        server_momentum=config.server_momentum,
    )
    if _MOMENTUM in given.kept:
        strategy.momentum_vector = [np.array(given.kept[_MOMENTUM])]
    weights = aggregated(strategy, given)
    vector = strategy.momentum_vector
    return Combined(weights, {} if vector is None else {_MOMENTUM: np.array(vector[0])})
