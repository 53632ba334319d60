"""Where Flower's wrappers for central privacy fall short: why ours stands in (decisions/0014).

A test that fails here says that Flower has changed: then see whether its own can be taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from flwr.supercore.privacy_accounting import (
    NeighboringRelation,
    PrivacyConfig,
    SamplingMethod,
)
from flwr.supercore.privacy_accounting.rdp_accountant import RdpAccountant
from nognet_server.flower_adapter import Chosen, reply_of
from nognet_server.strategies.through_flower import EVERY_SITE
from numpy.typing import NDArray

LENGTH = 4_000
STILL = np.full(LENGTH, 1e-9, np.float32)  # an update of exactly nothing divides by zero
LONG = np.zeros(LENGTH, np.float32)
LONG[0] = 5.0


def fixed(noise: float, sites: int = 3, **more: Any) -> flower.FedAvg:
    return flower.DifferentialPrivacyServerSideFixedClipping(  # type: ignore[return-value]  # what the test calls of it
        flower.FedAvg(**EVERY_SITE), noise, 1.0, sites, **more
    )


def adaptive(noise: float, sites: int = 20, **more: Any) -> Any:
    return flower.DifferentialPrivacyServerSideAdaptiveClipping(
        flower.FedAvg(**EVERY_SITE), noise, sites, **more
    )


def round_of(
    strategy: Any, updates: list[NDArray[np.float32]], examples: tuple[int, ...] = ()
) -> NDArray[Any]:
    """Aggregate one round that starts from weights of 0."""
    start = ArrayRecord({"weights": Array(np.zeros(LENGTH, np.float32))})
    list(strategy.configure_train(1, start, ConfigRecord(), Chosen(())))
    contents = [
        RecordDict(
            {
                "arrays": ArrayRecord({"weights": Array(update)}),
                "metrics": MetricRecord({"num-examples": count}),
            }
        )
        for update, count in zip(updates, examples or (1,) * len(updates), strict=True)
    ]
    record, _ = strategy.aggregate_train(1, [reply_of(content) for content in contents])
    return np.asarray(record["weights"].numpy())


def real_multiplier(updates: list[NDArray[np.float32]], examples: tuple[int, ...]) -> float:
    """Give the noise over what the first site adds to the aggregate, for a multiplier of 1."""
    np.random.seed(0)  # noqa: NPY002  Flower draws from the global generator
    noise = float(round_of(fixed(1.0), [STILL] * 3).std())
    there = round_of(fixed(0.0), updates, examples)
    away = round_of(fixed(0.0), [STILL, *updates[1:]], examples)
    return noise / float(np.linalg.norm(there - away))


def test_noise_fits_equal_weights_alone() -> None:
    assert real_multiplier([LONG, STILL, STILL], (1, 1, 1)) == pytest.approx(1.0, rel=0.03)
    assert real_multiplier([LONG, STILL, STILL], (90, 5, 5)) == pytest.approx(0.37, rel=0.03)


def test_a_reply_that_is_missing_leaves_less_noise_than_is_needed() -> None:
    assert real_multiplier([LONG, STILL], (1, 1)) == pytest.approx(0.667, rel=0.03)


def test_with_its_accountant_unequal_weights_end_the_run_in_a_round() -> None:
    config = PrivacyConfig(
        target_delta=1e-3,
        population_size=3,
        neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
        sampling_method=SamplingMethod.NO_AMPLIFICATION,
    )
    strategy = fixed(1.0, accountant=RdpAccountant(config))
    with pytest.raises(ValueError, match="requires equal client weights"):
        round_of(strategy, [LONG, STILL, STILL], (90, 5, 5))


def test_a_site_that_learnt_nothing_divides_by_zero() -> None:
    with pytest.raises(ZeroDivisionError):
        round_of(fixed(1.0), [np.zeros(LENGTH, np.float32), STILL, STILL])


def test_the_noise_is_known_to_whoever_knows_numpys_seed() -> None:
    drawn = []
    for _ in range(2):
        np.random.seed(7)  # noqa: NPY002  the very point
        drawn.append(round_of(fixed(1.0), [STILL] * 3))
    assert np.array_equal(drawn[0], drawn[1])


@pytest.mark.parametrize(("start", "end"), [(0.5, 0.002), (2.0, 500.0)])
def test_the_adaptive_norm_runs_away_from_the_quantile(start: float, end: float) -> None:
    strategy = adaptive(0.0, initial_clipping_norm=start)
    rng = np.random.default_rng(0)
    for _ in range(60):
        lengths = rng.uniform(0.5, 1.5, 20)  # a median of 1
        directions = rng.normal(size=(20, LENGTH))
        directions *= (lengths / np.linalg.norm(directions, axis=1))[:, None]
        round_of(strategy, list(directions.astype(np.float32)))
    found = strategy.clipping_norm
    assert found < end if start < 1 else found > end


@pytest.mark.parametrize("sites", [3, 10])
def test_the_adaptive_one_refuses_few_sites_by_default(sites: int) -> None:
    with pytest.raises(ValueError, match="clipped_count_stddev"):
        adaptive(1.0, sites)


def test_adaptive_noise_is_made_with_the_norm_of_the_next_round() -> None:
    np.random.seed(0)  # noqa: NPY002  Flower draws from the global generator
    strategy = adaptive(1.0, initial_clipping_norm=1.0, clipped_count_stddev=0.6)
    strategy.target_clipped_quantile = 0.0
    noise = float(round_of(strategy, [LONG] * 20)[1:].std())
    charged = strategy.noise_multiplier * 1.0 / 20
    assert noise / charged == pytest.approx(strategy.clipping_norm, rel=0.03)
    assert strategy.clipping_norm == pytest.approx(0.82, abs=0.02)
