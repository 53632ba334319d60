from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from nognet_server.strategies.krum import ranked, squared_distances

from nognet.wire.records import TrainReply
from tests.builders.strategy_rounds import START, cohort, combined, reply, study_with, wide


def scores(replies: list[TrainReply], bad: int) -> list[float]:
    """Score by Blanchard et al. 2017, section 4: every set of n - f - 2 others, the least sum."""
    rows = wide(replies)
    found = []
    for i, row in enumerate(rows):
        gaps = [sum((row - other) ** 2) for j, other in enumerate(rows) if j != i]
        found.append(min(sum(c) for c in itertools.combinations(gaps, len(rows) - bad - 2)))
    return found


@pytest.mark.parametrize(("count", "bad"), [(5, 1), (7, 1), (7, 2), (3, 0)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_krum_takes_the_reply_with_the_least_score(
    tmp_path: Path, count: int, bad: int, seed: int
) -> None:
    replies = cohort(count, seed)
    study = study_with(tmp_path, {"name": "krum", "malicious_sites": bad})
    new, kept = combined(study, replies)
    best = int(np.argmin(scores(replies, bad)))
    assert np.array_equal(new, replies[best].weights)
    assert kept == {}


@pytest.mark.parametrize(("count", "bad", "selected"), [(5, 1, 2), (7, 2, 3), (7, 1, 4)])
def test_multikrum_averages_the_best_each_alike(
    tmp_path: Path, count: int, bad: int, selected: int
) -> None:
    replies = cohort(count, 4)
    study = study_with(tmp_path, {"name": "multikrum", "malicious_sites": bad})
    new, _ = combined(study, replies)
    best = np.argsort(scores(replies, bad))[:selected]
    assert np.allclose(new, wide(replies)[best].mean(0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("share", [1e-1, 1e-3, 1e-5])
def test_distances_hold_for_updates_far_smaller_than_the_weights(share: float) -> None:
    """|a|^2 + |b|^2 - 2ab in float32 errs by more than the distance itself at a thousandth."""
    rng = np.random.default_rng(3)
    weights = rng.normal(size=20_000)
    rows = [(weights + share * rng.normal(size=weights.size)).astype(np.float32) for _ in range(4)]
    found = squared_distances(np.stack(rows))
    for i, j in itertools.combinations(range(4), 2):
        exact = sum((float(a) - float(b)) ** 2 for a, b in zip(rows[i], rows[j], strict=True))
        assert found[i, j] == pytest.approx(exact, rel=1e-9)
        assert found[j, i] == found[i, j]


def test_equal_scores_keep_the_order_of_names() -> None:
    same = np.zeros((4, 4))
    assert ranked(same, [2, 0, 3, 1], 1) == [2, 0, 3, 1]


def test_a_bad_site_is_never_chosen_when_it_is_far(tmp_path: Path) -> None:
    replies = cohort(5)
    replies[2] = reply("site_02", (START * -1).astype(np.float32), pairs=10**9, patients=10**9)
    for name in ("krum", "multikrum"):
        new, _ = combined(study_with(tmp_path, name), replies)
        others = np.stack([r.weights for r in replies if r.site != "site_02"])
        assert (new <= others.max(0) + 1e-6).all()
        assert (new >= others.min(0) - 1e-6).all()
