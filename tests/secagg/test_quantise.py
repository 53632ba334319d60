"""Updates as whole numbers and back, with what stands behind them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nognet.errors import PrivacyError
from nognet.secagg.quantise import TAIL, Code, Counts, decode, encode, shortened

CODE = Code(bits=12, clip_value=0.25, max_weight=50, sites=5)


@settings(max_examples=40, deadline=None)
@given(
    bits=st.integers(4, 32),
    weights=st.lists(st.integers(1, 50), min_size=1, max_size=5),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_weighted_mean_comes_back_to_half_a_step(
    bits: int, weights: list[int], seed: int
) -> None:
    code = Code(bits, 0.25, 50, 5)
    rng = np.random.default_rng(seed)
    updates = [rng.uniform(-0.25, 0.25, 30) for _ in weights]
    total = np.zeros(30 + TAIL, code.word)
    for update, weight in zip(updates, weights, strict=True):
        total += encode(update, Counts(weight, weight, 1), code)[0]
    found = decode(total, code, sites=len(weights))
    mean = np.average(updates, axis=0, weights=weights)
    assert np.abs(found.mean - mean).max() <= code.step / 2 * (1 + 1e-6)
    assert found.counts == Counts(sum(weights), sum(weights), len(weights))


def test_numbers_out_of_range_are_clipped_and_counted() -> None:
    update = np.array([0.1, 3.0, -3.0, 0.25, np.nextafter(0.25, 1)])
    words, written = encode(update, Counts(1, 1, 1), CODE)
    assert written.clipped == 3
    found = decode(words, CODE, sites=1)
    assert np.allclose(found.mean, [0.1, 0.25, -0.25, 0.25, 0.25], atol=CODE.step / 2)
    assert found.counts.clipped == 3


def test_a_site_counts_at_most_the_largest_weight() -> None:
    light, heavy = np.full(3, 0.1), np.full(3, -0.1)
    total = encode(light, Counts(25, 25, 9), CODE)[0] + encode(heavy, Counts(900, 900, 9), CODE)[0]
    found = decode(total, CODE, sites=2)
    assert found.counts.weight == 75
    assert found.counts.pairs == 925
    assert np.allclose(found.mean, (25 * 0.1 - 50 * 0.1) / 75, atol=CODE.step)


def test_stochastic_rounding_is_right_on_average() -> None:
    code = Code(bits=4, clip_value=0.7, max_weight=1, sites=1)  # steps of 0.1
    update = np.full(40_000, 0.137)
    words, _ = encode(update, Counts(1, 1, 1), code, np.random.default_rng(3))
    mean = decode(words, code, sites=1).mean
    assert set(np.round(mean, 6)) == {0.1, 0.2}
    assert mean.mean() == pytest.approx(0.137, abs=4 * 0.05 / 200)


def test_stochastic_rounding_stays_in_range() -> None:
    code = Code(bits=4, clip_value=0.7, max_weight=1, sites=1)
    words, _ = encode(np.array([0.7, -0.7] * 50), Counts(1, 1, 1), code, np.random.default_rng(0))
    assert np.abs(decode(words, code, sites=1).mean).max() == pytest.approx(0.7)


def test_an_update_is_shortened_to_the_norm_and_left_as_it_is_below() -> None:
    update = np.array([3.0, 4.0], np.float32)
    assert shortened(update, None)[1] is False
    assert shortened(update, 5.0)[1] is False
    scaled, long = shortened(update, 1.0)
    assert long
    assert np.allclose(scaled, [0.6, 0.8])
    assert list(update) == [3.0, 4.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(PrivacyError, match="not finite"):
        encode(np.array([bad]), Counts(1, 1, 1), CODE)


@pytest.mark.parametrize("counts", [Counts(0, 1, 1), Counts(1, 0, 1), Counts(1, 2**24, 1)])
def test_counts_out_of_range_are_refused(counts: Counts) -> None:
    with pytest.raises(PrivacyError, match="can't be summed"):
        encode(np.zeros(2), counts, CODE)


def test_a_sum_with_masks_in_it_or_of_other_sites_is_refused() -> None:
    words, _ = encode(np.zeros(4), Counts(1, 1, 1), CODE)
    for bad in (words + np.uint32(1), words * np.uint32(2)):
        with pytest.raises(PrivacyError, match="holds masks still"):
            decode(bad, CODE, sites=1)
