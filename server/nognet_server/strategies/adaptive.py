"""FedAdagrad, FedAdam and FedYogi (Reddi et al. 2021, algorithm 2).

    Delta_t = sum p_k (w_k - w)
    m_t = beta_1 m_(t-1) + (1 - beta_1) Delta_t
    v_t = v_(t-1) + Delta_t^2                                                    Adagrad
    v_t = beta_2 v_(t-1) + (1 - beta_2) Delta_t^2                                Adam
    v_t = v_(t-1) - (1 - beta_2) Delta_t^2 sign(v_(t-1) - Delta_t^2)             Yogi
    w = w + eta m_t / (sqrt(v_t) + tau)

from ``m = 0`` and ``v = tau^2``. Flower's start from ``v = 0``, and its FedAdam corrects a bias,
which the algorithm does not (docs/decisions/0010).
"""

from __future__ import annotations

import numpy as np

from nognet.config import FedAdagradConfig, FedAdamConfig, FedYogiConfig
from nognet_server.strategies.rule import Combined, RoundInput, Wide

_FIRST, _SECOND = "m", "v"


def fedadagrad(config: FedAdagradConfig, given: RoundInput) -> Combined:
    """Step with second moments that add up."""
    update = given.mean_update()
    return _step(config, given, update, _second(config, given) + update**2)


def fedadam(config: FedAdamConfig, given: RoundInput) -> Combined:
    """Step with averaged second moments."""
    update, before = given.mean_update(), _second(config, given)
    return _step(config, given, update, config.beta_2 * before + (1.0 - config.beta_2) * update**2)


def fedyogi(config: FedYogiConfig, given: RoundInput) -> Combined:
    """Step with second moments that change by no more than the newest square."""
    update, before = given.mean_update(), _second(config, given)
    square = update**2
    after = before - (1.0 - config.beta_2) * square * np.sign(before - square)
    return _step(config, given, update, after)


def _second(config: FedAdagradConfig | FedAdamConfig | FedYogiConfig, given: RoundInput) -> Wide:
    if _SECOND in given.kept:
        return given.kept[_SECOND].astype(np.float64)
    return np.full(given.weights.shape, config.tau**2)


def _step(
    config: FedAdagradConfig | FedAdamConfig | FedYogiConfig,
    given: RoundInput,
    update: Wide,
    second: Wide,
) -> Combined:
    before = given.kept.get(_FIRST, np.zeros(given.weights.shape, np.float32))
    first = config.beta_1 * before.astype(np.float64) + (1.0 - config.beta_1) * update
    step = config.server_learning_rate * first / (np.sqrt(second) + config.tau)
    kept = {_FIRST: first.astype(np.float32), _SECOND: second.astype(np.float32)}
    return Combined(given.weights + step, kept)
