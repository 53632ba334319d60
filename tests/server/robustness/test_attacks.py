from __future__ import annotations

import numpy as np
import pytest
from nognet_server.robustness.attacks import FACTORS, scaled_update, wrongly_labelled

from nognet.fit.checks import check_pairs
from tests.builders.federation import ROI, roi_pair


def test_an_update_is_multiplied_and_the_start_is_not() -> None:
    rng = np.random.default_rng(0)
    start, weights = (rng.normal(size=50).astype(np.float32) for _ in range(2))
    for factor in FACTORS.values():
        found = scaled_update(weights, start, factor)
        assert found.dtype == np.float32
        assert found - start == pytest.approx(factor * (weights - start), rel=1e-4)


def test_four_honest_updates_and_one_flipped_come_to_nothing() -> None:
    start, weights = np.zeros(3, np.float32), np.float32([1, 2, 3])
    flipped = scaled_update(weights, start, FACTORS["sign-flip"])
    assert np.array_equal(4 * weights + flipped, start)


def test_wrong_labels_are_another_pairs_and_can_be_trained_on() -> None:
    pairs = [roi_pair(number, np.random.default_rng(number)) for number in range(3)]
    wrong = wrongly_labelled(pairs)
    check_pairs(wrong, ROI)
    for pair, made, other in zip(pairs, wrong, [*pairs[1:], pairs[0]], strict=True):
        assert made.pair_id == pair.pair_id
        assert np.array_equal(made.baseline, pair.baseline)
        assert made.follow_up_mask.sum() == other.follow_up_mask.sum()
        overlap = np.minimum(made.follow_up_mask, pair.follow_up_mask).sum()
        assert overlap < 0.5 * pair.follow_up_mask.sum()
