"""Where Flower's own strategies depart from their papers: why ours stand in (docs/decisions/0010).

A test that fails here says that Flower has changed: then see whether its own can be taken again.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy.multikrum import select_multikrum
from nognet_server.flower_adapter import Chosen, reply_of
from nognet_server.strategies.krum import ranked, squared_distances
from nognet_server.strategies.through_flower import EVERY_SITE
from numpy.typing import NDArray

from nognet.config import NetworkConfig
from nognet.fit.weights import initial_weights, weight_spec
from nognet.wire.flat import pack

Rows = NDArray[np.float32]


def content(weights: Rows, examples: int = 1, **metrics: float) -> RecordDict:
    """Make a reply's content."""
    numbers = MetricRecord({"num-examples": examples, **metrics})
    return RecordDict({"arrays": ArrayRecord({"weights": Array(weights)}), "metrics": numbers})


def from_zero(strategy: flower.FedAvg, contents: list[RecordDict]) -> NDArray[Any] | None:
    """Aggregate a first round that starts from weights of 0."""
    start = ArrayRecord({"weights": Array(np.zeros(3, np.float32))})
    strategy.configure_train(1, start, ConfigRecord(), Chosen(()))
    record, _ = strategy.aggregate_train(1, [reply_of(each) for each in contents])
    return None if record is None else np.asarray(record["weights"].numpy())


def threes(*values: float) -> list[RecordDict]:
    return [content(np.full(3, value, np.float32)) for value in values]


def other_choices(share: float, draws: int, seed: int = 0) -> int:
    """Count the draws of 5 sites in which Flower's Krum chooses another one than it should.

    Args:
        share: Length of the sites' updates beside that of the weights.
        draws: How many.
        seed: Of the draws.
    """
    network, rng = NetworkConfig(), np.random.default_rng(seed)
    weights = pack(initial_weights(network, 1), weight_spec(network))
    size = share * np.linalg.norm(weights) / math.sqrt(weights.size)
    found = 0
    for _ in range(draws):
        scales = size * rng.uniform(0.8, 1.2, 5)
        rows = np.stack([weights + s * rng.normal(size=weights.size) for s in scales])
        rows = rows.astype(np.float32)
        best = ranked(squared_distances(rows), range(5), 1)[0]
        [chosen] = select_multikrum([content(row) for row in rows], 1, 1)
        array = chosen.array_records["arrays"]["weights"].numpy()
        found += not np.array_equal(array, rows[best])
    return found


def other_selections(draws: int, seed: int = 0) -> int:
    """Count the draws of 7 sites in which ranking once selects others than Bulyan's loop."""
    rng, found = np.random.default_rng(seed), 0
    for _ in range(draws):
        rows = rng.normal(size=(7, 50)) * rng.uniform(0.5, 2, (7, 1))
        distances = squared_distances(rows.astype(np.float32))
        left, chosen = list(range(7)), set()
        while len(chosen) < 5:
            best = ranked(distances, left, 1)[0]
            left.remove(best)
            chosen.add(best)
        found += chosen != set(ranked(distances, range(7), 1)[:5])
    return found


def test_krum_chooses_by_rounding_once_updates_are_small() -> None:
    assert other_choices(0.1, 8) == 0
    assert other_choices(0.001, 8) > 2


def test_ranking_once_is_not_bulyan() -> None:
    assert other_selections(40) > 20


def test_krum_and_trimmed_mean_say_nothing_of_too_few_replies() -> None:
    assert from_zero(flower.Krum(**EVERY_SITE, num_malicious_nodes=1), threes(1, 1000)) is not None
    trimmed = from_zero(flower.FedTrimmedAvg(**EVERY_SITE, beta=0.2), threes(1, 1, 1, 1000))
    assert trimmed == pytest.approx(250.75)


def test_multikrum_believes_the_examples_that_a_chosen_site_claims() -> None:
    values = (1.0, 1.1, 0.9, 1.05, 1.02)
    examples = (1, 1, 1, 1, 10**9)
    contents = [
        content(np.full(3, v, np.float32), n) for v, n in zip(values, examples, strict=True)
    ]
    rule = flower.MultiKrum(**EVERY_SITE, num_malicious_nodes=1, num_nodes_to_select=3)
    assert from_zero(rule, contents) == pytest.approx(1.02, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "ratios"),
    [
        ("FedAdam", (1.47, 1.35, 0.89)),
        ("FedYogi", (1.98, 1.82, 1.21)),
        ("FedAdagrad", (1.82, 1.21, 1.00)),
    ],
)
def test_adaptive_first_steps_are_not_the_papers(name: str, ratios: tuple[float, ...]) -> None:
    eta, tau, beta_1, beta_2 = 1e-2, 1e-3, 0.9, 0.99
    betas = {} if name == "FedAdagrad" else {"beta_1": beta_1, "beta_2": beta_2}
    for delta, ratio in zip((1e-4, 1e-3, 1e-2), ratios, strict=True):
        square, first = delta**2, delta if name == "FedAdagrad" else (1 - beta_1) * delta
        second = {
            "FedAdam": beta_2 * tau**2 + (1 - beta_2) * square,
            "FedYogi": tau**2 - (1 - beta_2) * square * np.sign(tau**2 - square),
            "FedAdagrad": tau**2 + square,
        }[name]
        paper = eta * first / (math.sqrt(second) + tau)
        rule = getattr(flower, name)(**EVERY_SITE, eta=eta, tau=tau, **betas)
        found = from_zero(rule, threes(delta))
        assert found is not None
        assert found[0] / paper == pytest.approx(ratio, abs=0.006)


def test_qfedavg_at_zero_is_no_fedavg() -> None:
    rule = flower.QFedAvg(client_learning_rate=1.0, q=0.0, train_loss_key="loss", **EVERY_SITE)
    contents = [content(np.full(3, v, np.float32), n, loss=1.0) for v, n in ((1, 1), (4, 9))]
    assert from_zero(rule, contents) == pytest.approx(2.5)  # FedAvg: 3.7
