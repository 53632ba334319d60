from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nognet_server.strategies import RULES

from nognet.config import FedAvgConfig, FedAvgMConfig, FedMedianConfig, FedTrimmedAvgConfig
from tests.builders.strategy_rounds import LENGTH, START, alone, cohort, combined, study_with, wide


@pytest.mark.parametrize("weighting", ["pairs", "patients", "equal"])
@pytest.mark.parametrize("name", ["fedavg", "fedprox"])
def test_averaging_equals_a_naive_weighted_mean(tmp_path: Path, name: str, weighting: str) -> None:
    replies = cohort(5)
    counts = {
        "pairs": [r.n_pairs for r in replies],
        "patients": [r.n_patients for r in replies],
        "equal": [1] * 5,
    }[weighting]
    new, kept = combined(study_with(tmp_path, {"name": name, "weighting": weighting}), replies)
    naive = sum(c * w for c, w in zip(counts, wide(replies), strict=True)) / sum(counts)
    assert new.dtype == np.float32
    assert np.allclose(new, naive, rtol=0, atol=1e-6)
    assert kept == {}


@pytest.mark.parametrize(
    "config",
    [
        FedAvgConfig(),
        FedAvgMConfig(name="fedavgm", server_momentum=0.0, server_learning_rate=1.0),
        FedMedianConfig(name="fedmedian"),
        FedTrimmedAvgConfig(name="fedtrimmedavg"),
    ],
    ids=lambda config: config.name,
)
def test_one_site_alone_gives_its_own_weights_bit_for_bit(
    config: FedAvgConfig | FedAvgMConfig | FedMedianConfig | FedTrimmedAvgConfig,
) -> None:
    own = cohort(1)[0].weights
    found = RULES[config.name](config, alone(own)).weights
    assert np.array_equal(found.astype(np.float32), own)


def test_momentum_follows_its_paper_over_four_rounds(tmp_path: Path) -> None:
    eta, beta = 0.7, 0.9
    strategy = {"name": "fedavgm", "server_learning_rate": eta, "server_momentum": beta}
    study = study_with(tmp_path, strategy)
    weights, kept = START, {}
    x, v = START.astype(np.float64), np.zeros(LENGTH)
    for number in (1, 2, 3, 4):
        replies = cohort(4, number)
        weights, kept = combined(study, replies, number=number, weights=weights, kept=kept)
        counts = [r.n_pairs for r in replies]
        mean = np.average(wide(replies), axis=0, weights=counts)
        v = beta * v + (x - mean)  # Hsu et al. 2019: v <- beta v + Delta w, w <- w - eta v
        x = x - eta * v
        assert np.allclose(weights, x, rtol=0, atol=1e-5)
    assert np.allclose(kept["momentum"], v, rtol=0, atol=1e-5)
