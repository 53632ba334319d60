"""Sensitivity of the sum as a law, noise by statistics, adaptive rounds against a naive loop."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nognet_server.central_dp.mechanism import BoundedSum, bounded_sum, release
from nognet_server.central_dp.rounds import noised
from nognet_server.rounds.loop import after_training
from nognet_server.runs.folder import RunFolder

from nognet.config import AdaptiveClipping
from nognet.fit.site_privacy import plan_for
from nognet.privacy.central import CentralPlan
from nognet.privacy.secret import SecretStream
from tests.builders.central import begun_state, central_study, replies_of
from tests.builders.strategy_rounds import LENGTH, START

PLAN = CentralPlan(1.5, 0.5, 4, 20, 10, 1e-3)


def summed(updates: list[Any], counts: list[int], norm: float, most: int) -> BoundedSum:
    replies = replies_of(updates, counts)
    return bounded_sum(
        START, list(zip(replies, counts, strict=True)), clip_norm=norm, max_weight=most
    )


@given(data=st.data())
def test_no_site_moves_the_sum_by_more_than_weight_times_norm(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    sites = data.draw(st.integers(1, 6))
    scales = data.draw(st.lists(st.floats(0, 1e4), min_size=sites, max_size=sites))
    updates = [scale * rng.normal(size=LENGTH) for scale in scales]
    counts = data.draw(st.lists(st.integers(1, 10_000), min_size=sites, max_size=sites))
    norm, most = data.draw(st.floats(1e-3, 1e3)), data.draw(st.integers(1, 500))
    there = summed(updates, counts, norm, most)
    gone = data.draw(st.integers(0, sites - 1))
    kept = [i for i in range(sites) if i != gone]  # the site drops out
    away = summed([updates[i] for i in kept], [counts[i] for i in kept], norm, most)
    moved = float(np.linalg.norm(there.total - away.total))
    assert moved <= most * norm * (1 + 1e-9)
    assert abs(there.centred_count - away.centred_count) == 0.5
    other = [*updates]
    other[gone] = -1e3 * rng.normal(size=LENGTH)  # it sends anything at all
    changed = summed(other, counts, norm, most)
    assert np.linalg.norm(changed.total - away.total) <= most * norm * (1 + 1e-9)


def test_the_bound_is_reached_by_a_long_update_of_a_large_site() -> None:
    update = np.zeros(LENGTH)
    update[0] = 1e3
    there = summed([update], [10_000], 0.5, 20)
    assert float(np.linalg.norm(there.total)) == pytest.approx(20 * 0.5)


def test_the_sum_is_the_same_whoever_answered_first() -> None:
    rng = np.random.default_rng(0)
    replies = replies_of([rng.normal(size=LENGTH) for _ in range(5)])
    counted = [(reply, 1) for reply in replies]
    one = bounded_sum(START, counted, clip_norm=1.0, max_weight=1)
    other = bounded_sum(START, counted[::-1], clip_norm=1.0, max_weight=1)
    assert np.array_equal(one.total, other.total)


def test_the_noise_of_the_mean_has_the_deviation_that_is_charged() -> None:
    rng = np.random.default_rng(1)
    total = rng.normal(size=5_000)
    given_sum = BoundedSum(total, 0.0, 4)
    drawn = np.stack(
        [
            release(PLAN, given_sum, clip_norm=0.5, secret=SecretStream.for_tests(k)).update
            for k in range(40)
        ]
    )
    expected = 1.5 * 20 * 0.5 / (4 * 20)  # z W C over N W
    noise = drawn - total / (4 * 20)
    n = noise.size
    assert noise.std() == pytest.approx(expected, rel=5 / math.sqrt(2 * n))
    assert abs(noise.mean()) < 5 * expected / math.sqrt(n)
    # each number's own deviation over the seeds, not one draw used again
    assert np.median(noise.std(axis=0, ddof=1)) == pytest.approx(expected, rel=0.02)


def test_adaptive_rounds_equal_a_naive_loop_and_the_share_of_noise_is_the_counts() -> None:
    adaptive = AdaptiveClipping(name="adaptive", target_quantile=0.6, count_share=0.25)
    plan = CentralPlan(0.2, 1.0, 3, 1, 10, 1e-3, adaptive=adaptive)  # no share leaves [0, 1]
    replies = replies_of([np.full(LENGTH, s) for s in (0.01, 0.05, 0.5)])
    given_sum = bounded_sum(START, [(r, 1) for r in replies], clip_norm=1.0, max_weight=1)
    assert given_sum.centred_count == 2 - 1.5  # 0.17 and 0.87 long are within, 8.7 is not
    norms = np.array(
        [
            release(plan, given_sum, clip_norm=1.0, secret=SecretStream.for_tests(k)).clip_norm
            for k in range(4_000)
        ]
    )
    counts = 3 * (0.6 - np.log(norms) / 0.2)  # by the paper's update, the noised count
    count_std = 0.2 / (2 * math.sqrt(0.25))
    assert counts.mean() == pytest.approx(2.0, abs=5 * count_std / math.sqrt(4_000))
    assert counts.std() == pytest.approx(count_std, rel=5 / math.sqrt(2 * 4_000))
    assert plan.sum_multiplier == pytest.approx(0.2 / math.sqrt(0.75))


@pytest.mark.parametrize(
    "strategy", ["fedavg", "fedprox", "fedavgm", "fedadagrad", "fedadam", "fedyogi"]
)
def test_a_strategy_sees_the_noised_mean_alone(tmp_path: Path, strategy: str) -> None:
    study = central_study(tmp_path, strategy=strategy)
    plan, state = plan_for(study), begun_state()
    assert plan is not None
    one = np.random.default_rng(0).normal(size=(3, LENGTH))
    other = one[[1, 2, 0]]  # other sites' updates, the same sum
    new = []
    for updates in (one, other):
        after, seen = noised(
            study,
            plan,
            state,
            replies_of(list(updates)),
            folder=RunFolder(tmp_path),
            secret=SecretStream.for_tests(3),
        )
        assert [reply.site for reply in seen] == ["all-sites"]
        new.append(after_training(study, after, seen))
    assert np.allclose(new[0].weights, new[1].weights, atol=1e-6)
    assert not np.allclose(new[0].weights, START, atol=1e-3)


def test_what_a_site_adds_to_the_new_weights_is_bounded_through_the_whole_way(
    tmp_path: Path,
) -> None:
    study = central_study(
        tmp_path,
        weighting="pairs",
        privacy={"weights": {"name": "bounded", "max_weight": 4}},
    )
    plan = plan_for(study)
    rng = np.random.default_rng(4)
    updates, counts = [50 * rng.normal(size=LENGTH) for _ in range(3)], [900, 2, 3]

    def weights(sites: slice) -> Any:
        state, seen = noised(
            study,
            plan,
            begun_state(),
            replies_of(updates, counts)[sites],
            folder=RunFolder(tmp_path),
            secret=SecretStream.for_tests(5),  # the same noise: only the site differs
        )
        return after_training(study, state, seen).weights.astype(np.float64)

    moved = float(np.linalg.norm(weights(slice(0, 3)) - weights(slice(1, 3))))
    assert moved == pytest.approx(4 * 0.5 / (3 * 4), rel=1e-4)  # W C over N W
