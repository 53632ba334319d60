"""The bound on a site's update, and how it follows a quantile."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from nognet_server.central_dp.clipping import clip, moved_norm

from nognet.config import AdaptiveClipping

UPDATES = arrays(np.float64, st.integers(1, 30), elements=st.floats(-1e6, 1e6))


@given(update=UPDATES, norm=st.floats(1e-6, 1e6))
def test_a_clipped_update_is_no_longer_than_the_norm_and_points_the_same_way(
    update: np.ndarray, norm: float
) -> None:
    before = update.copy()
    clipped, fits = clip(update, norm)
    assert np.array_equal(update, before)
    length = math.sqrt(math.fsum(x * x for x in update))
    assert math.sqrt(math.fsum(x * x for x in clipped)) <= norm * (1 + 1e-12)
    if fits:
        assert np.array_equal(clipped, update)
    else:
        assert np.allclose(clipped, update * (norm / length), rtol=1e-12, atol=0)


def test_an_update_of_nothing_stays_nothing() -> None:
    clipped, fits = clip(np.zeros(4), 0.1)
    assert fits
    assert not clipped.any()


def test_the_norm_finds_the_quantile_of_the_lengths_from_either_side() -> None:
    rng, quantile = np.random.default_rng(2), 0.8
    adaptive = AdaptiveClipping(name="adaptive", target_quantile=quantile, learning_rate=0.2)
    for start in (0.01, 50.0):
        norm, found = start, []
        for number in range(250):
            lengths = rng.lognormal(sigma=0.5, size=40)
            within = sum(1 for length in lengths if length <= norm)  # the naive count
            noise = float(rng.normal(scale=2.0))
            norm = moved_norm(norm, adaptive, centred_count=within - 20 + noise, sites=40)
            if number >= 100:
                found.append(norm)
        expected = math.exp(0.5 * 0.8416)  # the 0.8 quantile of the lengths
        assert abs(math.log(np.median(found) / expected)) < 0.1


@given(count=st.floats(-1e12, 1e12), norm=st.floats(1e-3, 1e3))
def test_noise_moves_the_norm_by_no_more_than_the_rate(count: float, norm: float) -> None:
    adaptive = AdaptiveClipping(name="adaptive", target_quantile=0.5, learning_rate=1.0)
    moved = moved_norm(norm, adaptive, centred_count=count, sites=3)
    assert math.exp(-0.5) * 0.999 < moved / norm < math.exp(0.5) * 1.001


def test_a_site_that_is_absent_counts_as_half_within() -> None:
    adaptive = AdaptiveClipping(name="adaptive", target_quantile=0.5, learning_rate=1.0)
    assert moved_norm(2.0, adaptive, centred_count=0.0, sites=5) == 2.0
    moved = moved_norm(2.0, adaptive, centred_count=-0.5, sites=5)
    assert math.isclose(moved, 2.0 * math.exp(0.1))
