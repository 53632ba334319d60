"""The key stream: right distributions, unknown keys."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from nognet.privacy.secret import KEY_BYTES, SecretStream

MIN_P = 1e-4  # keys are fixed, so these are no flaky tests: each passes always or never


def test_two_fresh_streams_never_agree() -> None:
    assert not np.any(SecretStream.fresh().uniform(100) == SecretStream.fresh().uniform(100))


def test_the_same_key_gives_the_same_draws_and_another_key_others() -> None:
    first, same, other = (SecretStream.for_tests(n).normal((3, 5)) for n in (7, 7, 8))
    np.testing.assert_array_equal(first, same)
    assert not np.any(first == other)


def test_keys_that_differ_above_bit_32_give_other_draws() -> None:
    # torch.Generator().manual_seed(1) and manual_seed(1 + 2**32) draw the same; this must not.
    low, high = SecretStream.for_tests(1), SecretStream.for_tests(1 + 2**200)
    assert not np.any(low.uniform(50) == high.uniform(50))


def test_a_stream_never_repeats_itself() -> None:
    stream = SecretStream.for_tests(3)
    drawn = np.concatenate([stream.uniform(1000) for _ in range(20)])
    assert len(np.unique(drawn)) == len(drawn)


def test_split_draws_equal_one_long_draw() -> None:
    whole = SecretStream.for_tests(5).uniform(10)
    split = SecretStream.for_tests(5)
    np.testing.assert_array_equal(np.concatenate([split.uniform(3), split.uniform(7)]), whole)


def test_uniform_draws_are_uniform_and_never_0_or_1() -> None:
    drawn = SecretStream.for_tests(11).uniform(200_000)
    assert drawn.min() > 0
    assert drawn.max() < 1
    assert stats.kstest(drawn, "uniform").pvalue > MIN_P


def test_the_greatest_word_of_the_key_stream_stays_below_1() -> None:
    class AllOnes:
        def update(self, data: bytes) -> bytes:
            return b"\xff" * len(data)

    stream = SecretStream.for_tests(0)
    stream._encryptor = AllOnes()  # type: ignore[assignment]  # the extreme that chance won't give
    assert stream.uniform(1)[0] < 1
    assert np.isfinite(stream.normal((3,))).all()


def test_normal_draws_are_standard_normal_out_to_the_tails() -> None:
    drawn = SecretStream.for_tests(13).normal((200_001,))
    assert drawn.shape == (200_001,)
    assert stats.kstest(drawn, "norm").pvalue > MIN_P
    beyond = int((np.abs(drawn) > 3).sum())
    assert stats.binomtest(beyond, drawn.size, 2 * stats.norm.sf(3)).pvalue > MIN_P


def test_the_two_halves_of_a_normal_draw_are_not_correlated() -> None:
    drawn = SecretStream.for_tests(17).normal((100_000,))
    half = drawn.size // 2
    assert stats.pearsonr(drawn[:half], drawn[half:]).pvalue > MIN_P
    assert stats.pearsonr(drawn[:half] ** 2, drawn[half:] ** 2).pvalue > MIN_P


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0), (2, 3, 1)])
def test_normal_draws_have_the_shape_asked_for(shape: tuple[int, ...]) -> None:
    assert SecretStream.for_tests(1).normal(shape).shape == shape


@pytest.mark.parametrize("length", [0, 16, KEY_BYTES + 1])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="expected 32"):
        SecretStream(bytes(length))
