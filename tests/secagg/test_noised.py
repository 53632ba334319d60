"""Noised updates as words: no sum wraps, and the mean is that of the clipped updates and noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nognet.errors import PrivacyError
from nognet.privacy.discrete_gaussian import discrete_gaussian, noise_table
from nognet.privacy.distributed import NoiseShare, noise_share
from nognet.privacy.secret import SecretStream
from nognet.privacy.whole_updates import whole_update
from nognet.secagg.noised import NoisedCode, decode_noised, encode_noised
from nognet.secagg.quantise import TAIL

SITES = 5


def code_of(share: NoiseShare, sites: int = SITES) -> NoisedCode:
    return NoisedCode(share.step, share.largest, sites, sites)


def noised_sum(share: NoiseShare, updates: list[np.ndarray]) -> np.ndarray:
    """Sum what the sites write, and read it."""
    code, table = code_of(share), noise_table(share.variance)
    total = np.zeros(updates[0].size + TAIL, code.word)
    for number, update in enumerate(updates):
        stream = SecretStream.for_tests(number)
        whole = whole_update(update, clip_norm=share.clip_norm, levels=share.levels, stream=stream)
        total += encode_noised(whole + discrete_gaussian(table, update.size, stream), code)
    found = decode_noised(total, code, sites=len(updates))
    assert (found.counts.weight, found.counts.pairs) == (len(updates), 0)
    return np.asarray(found.mean)


def test_with_next_to_no_noise_the_sum_is_the_mean_of_the_clipped_updates_to_the_grid() -> None:
    share = noise_share(1e-4, clip_norm=1.0, numbers=400, honest=4)
    rng = np.random.default_rng(3)
    updates = [rng.normal(size=400) * scale for scale in (0.01, 1.0, 5.0, 0.02, 3.0)]
    clipped = [u / max(1.0, float(np.linalg.norm(u))) for u in updates]
    noise = 8 * np.sqrt(SITES) * share.std / SITES
    bound = share.step + noise  # rounding by up to a step, then noise
    assert np.abs(noised_sum(share, updates) - np.mean(clipped, axis=0)).max() <= bound
    assert bound < 1e-3


def test_the_noise_of_a_mean_is_as_charged_for_those_that_count_and_more_with_more() -> None:
    share = noise_share(2.0, clip_norm=0.5, numbers=60_000, honest=3)
    updates = [np.zeros(60_000)] * SITES
    three = noised_sum(share, updates[:3])
    five = noised_sum(share, updates)
    assert three.std() == pytest.approx(2.0 * 0.5 / SITES, rel=0.02)
    assert five.std() == pytest.approx(2.0 * 0.5 / SITES * np.sqrt(5 / 3), rel=0.02)


@pytest.mark.parametrize(("largest", "word"), [(2**31 // 5, np.uint32), (2**31, np.uint64)])
def test_sums_of_the_largest_numbers_there_can_be_dont_wrap(largest: int, word: type) -> None:
    code = NoisedCode(1.0, largest, SITES, 1)
    assert code.word == word
    ends = np.array([largest, -largest, 0], np.int64)
    total = sum(encode_noised(ends, code) for _ in range(SITES))
    found = decode_noised(np.asarray(total, code.word), code, sites=SITES)
    assert list(found.mean) == [SITES * largest, -SITES * largest, 0]


@given(st.integers(1, 64), st.integers(1, 2**31))
def test_the_word_is_the_smaller_one_that_no_sum_overflows(sites: int, largest: int) -> None:
    code = NoisedCode(1.0, largest, sites, 1)
    assert sites * largest < 2 ** (8 * code.word.itemsize - 1)


def test_numbers_beyond_the_bound_are_refused() -> None:
    code = NoisedCode(1.0, 10, 3, 3)
    for bad in ([11, 0], [0, -11]):
        with pytest.raises(PrivacyError, match="beyond its bound"):
            encode_noised(np.array(bad, np.int64), code)


def test_a_sum_with_masks_in_it_or_of_other_sites_is_refused() -> None:
    code = NoisedCode(1.0, 10, 3, 3)
    words = encode_noised(np.array([1, -2], np.int64), code)
    for total, sites in ((words + np.uint32(1), 1), (words, 2)):
        with pytest.raises(PrivacyError, match="holds masks still"):
            decode_noised(total, code, sites=sites)
