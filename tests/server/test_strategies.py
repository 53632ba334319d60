from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from nognet_server.strategies import RECIPES, aggregate

from nognet.config import StrategyConfig, StudyConfig
from nognet.errors import FederationError
from nognet.wire.records import TrainReply
from tests.builders.federation import make_study

LENGTH = 1000


def reply(site: str, seed: int, *, pairs: int = 3, patients: int = 2) -> TrainReply:
    weights = np.random.default_rng(seed).normal(size=LENGTH).astype(np.float32)
    return TrainReply(site, 1, weights, pairs, patients, 1, 0.5, 0.1)


REPLIES = [
    reply("site_a", 1, pairs=3, patients=2),
    reply("site_b", 2, pairs=10, patients=9),
    reply("site_c", 3, pairs=5, patients=1),
]
START = np.random.default_rng(9).normal(size=LENGTH).astype(np.float32)


def study_with(tmp_path: Path, strategy: dict[str, Any]) -> StudyConfig:
    return make_study(tmp_path, strategy=strategy)


@pytest.mark.parametrize(
    ("weighting", "counts"), [("pairs", [3, 10, 5]), ("patients", [2, 9, 1]), ("equal", [1, 1, 1])]
)
@pytest.mark.parametrize("name", ["fedavg", "fedprox"])
def test_averaging_equals_a_naive_weighted_mean(
    tmp_path: Path, name: str, weighting: str, counts: list[int]
) -> None:
    study = study_with(tmp_path, {"name": name, "weighting": weighting})
    new, kept = aggregate(study, round_number=1, weights=START, kept={}, replies=REPLIES)
    stacked = np.stack([r.weights.astype(np.float64) for r in REPLIES])
    naive = (stacked * np.array(counts)[:, None]).sum(0) / sum(counts)
    assert new.dtype == np.float32
    assert np.allclose(new, naive, rtol=0, atol=1e-6)
    assert kept == {}


@pytest.mark.parametrize("name", ["fedavg", "fedprox"])
def test_one_site_alone_gives_its_own_weights_bit_for_bit(tmp_path: Path, name: str) -> None:
    study = study_with(tmp_path, {"name": name})
    new, _ = aggregate(study, round_number=1, weights=START, kept={}, replies=REPLIES[:1])
    assert np.array_equal(new, REPLIES[0].weights)


def test_fedadam_follows_its_paper_over_three_rounds(tmp_path: Path) -> None:
    eta, beta_1, beta_2, tau = 0.1, 0.9, 0.99, 1e-3
    study = study_with(tmp_path, {"name": "fedadam", "server_learning_rate": eta})
    weights, kept = START, {}
    x, m, v = START.astype(np.float64), np.zeros(LENGTH), np.zeros(LENGTH)
    counts = np.array([3, 10, 5])[:, None]
    stacked = np.stack([r.weights.astype(np.float64) for r in REPLIES])
    mean = (stacked * counts).sum(0) / counts.sum()
    for number in (1, 2, 3):
        weights, kept = aggregate(
            study, round_number=number, weights=weights, kept=kept, replies=REPLIES
        )
        delta = mean - x
        m = beta_1 * m + (1 - beta_1) * delta
        v = beta_2 * v + (1 - beta_2) * delta**2
        # Flower counts rounds from 1 in an exponent that counts from 0: one more than Kingma & Ba.
        rate = eta * np.sqrt(1 - beta_2 ** (number + 1)) / (1 - beta_1 ** (number + 1))
        x = x + rate * m / (np.sqrt(v) + tau)
        assert weights.dtype == np.float32
        assert np.allclose(weights, x, rtol=1e-4, atol=1e-5)
    assert set(kept) == {"m_t", "v_t"}
    assert all(array.dtype == np.float32 for array in kept.values())


def test_fedadam_without_what_it_kept_goes_another_way(tmp_path: Path) -> None:
    study = study_with(tmp_path, {"name": "fedadam"})
    first, kept = aggregate(study, round_number=1, weights=START, kept={}, replies=REPLIES)
    on, _ = aggregate(study, round_number=2, weights=first, kept=kept, replies=REPLIES)
    again, _ = aggregate(study, round_number=2, weights=first, kept=kept, replies=REPLIES)
    anew, _ = aggregate(study, round_number=2, weights=first, kept={}, replies=REPLIES)
    assert np.array_equal(on, again)
    assert not np.array_equal(on, anew)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_aggregating_changes_none_of_its_arguments(tmp_path: Path, name: str) -> None:
    study = study_with(tmp_path, {"name": name})
    _, kept = aggregate(study, round_number=1, weights=START, kept={}, replies=REPLIES)
    before = [array.copy() for array in (START, *kept.values(), *(r.weights for r in REPLIES))]
    aggregate(study, round_number=2, weights=START, kept=kept, replies=REPLIES)
    after = [START, *kept.values(), *(r.weights for r in REPLIES)]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_every_strategy_of_the_configuration_has_a_recipe() -> None:
    models = get_args(get_args(StrategyConfig)[0])
    assert {model.model_fields["name"].annotation.__args__[0] for model in models} == set(RECIPES)


def test_no_reply_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FederationError, match="no usable reply"):
        aggregate(make_study(tmp_path), round_number=1, weights=START, kept={}, replies=[])


def test_an_overflow_in_the_aggregate_is_an_error(tmp_path: Path) -> None:
    study = study_with(tmp_path, {"name": "fedadam"})
    huge = TrainReply("site_a", 1, np.full(LENGTH, 3e38, np.float32), 1, 1, 1, 0.5, 0.1)
    with pytest.raises(FederationError, match="not finite"):
        aggregate(study, round_number=1, weights=START, kept={}, replies=[huge])
