"""The sampler against the distribution it is to draw from, in exact arithmetic and in draws."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nognet.errors import PrivacyError
from nognet.privacy.discrete_gaussian import (
    NoiseTable,
    discrete_gaussian,
    distance_of,
    fits_a_table,
    largest_of,
    noise_table,
)
from nognet.privacy.secret import SecretStream

MIN_P = 1e-4  # keys are fixed, so these are no flaky tests


def exact(variance: float, reach: int) -> np.ndarray:
    """Give ``P(X = x)`` for x from -reach to reach, in float64."""
    x = np.arange(-reach, reach + 1)
    weights = np.exp(-(x**2) / (2 * variance))
    return np.asarray(weights / weights.sum())


def thresholds(table: NoiseTable) -> list[int]:
    return [int(h) << 64 | int(low) for h, low in zip(table.high, table.low, strict=True)]


@settings(max_examples=20, deadline=None)
@given(variance=st.fractions(Fraction(1, 4), Fraction(400), max_denominator=1000))
def test_the_table_is_the_distribution_of_the_size_of_a_draw(variance: Fraction) -> None:
    found = thresholds(noise_table(variance))
    assert len(found) == largest_of(variance)
    assert found == sorted(found)
    assert found[-1] < 2**127
    one_sided = exact(float(variance), len(found))[len(found) :] * 2
    one_sided[0] /= 2
    cells = np.diff([0, *found, 2**127]).astype(object)
    shares = np.array([float(Fraction(int(cell), 2**127)) for cell in cells])
    assert np.abs(shares - one_sided).max() < 1e-14


def test_the_stated_distance_holds_against_the_distribution_at_twice_the_digits() -> None:
    from decimal import Decimal, localcontext

    variance = Fraction(9, 2)
    found, largest = thresholds(noise_table(variance)), largest_of(variance)
    with localcontext() as context:
        context.prec = 200
        double = Decimal(2) * Decimal(variance.numerator) / Decimal(variance.denominator)
        sizes = [(-Decimal(x * x) / double).exp() * (1 if x == 0 else 2) for x in range(200)]
        total = sum(sizes)
        cells = [high - low for low, high in zip([0, *found], [*found, 2**127], strict=True)]
        off = sum(abs(Decimal(c) / 2**127 - s / total) for c, s in zip(cells, sizes, strict=False))
        missed = sum(sizes[largest + 1 :]) / total
        assert (off + missed) / 2 <= Decimal(distance_of(variance))
    assert distance_of(Fraction(1024**2)) < 1e-34


@pytest.mark.parametrize("variance", [Fraction(1, 2), Fraction(4), Fraction(101, 3)])
def test_draws_have_the_exact_probabilities(variance: Fraction) -> None:
    count = 400_000
    drawn = discrete_gaussian(noise_table(variance), count, SecretStream.for_tests(11))
    reach = int(4 * math.sqrt(variance))
    shares = exact(float(variance), 60 + reach)[60:-60]
    middle = np.array([np.count_nonzero(drawn == x) for x in range(-reach, reach + 1)])
    expected = np.append(shares, 1 - shares.sum()) * count
    seen = np.append(middle, count - middle.sum())
    assert stats.chisquare(seen, expected).pvalue > MIN_P


def test_wide_noise_has_its_variance_and_no_side() -> None:
    drawn = discrete_gaussian(noise_table(Fraction(1024**2)), 300_000, SecretStream.for_tests(2))
    assert drawn.std() == pytest.approx(1024, rel=5 / math.sqrt(2 * 300_000))
    assert abs(drawn.mean()) < 5 * 1024 / math.sqrt(300_000)
    assert stats.kstest(drawn / 1024, "norm").pvalue > MIN_P
    assert stats.binomtest(int((drawn > 0).sum()), int((drawn != 0).sum())).pvalue > MIN_P


def test_sums_of_shares_have_the_sum_of_their_variances() -> None:
    table, shares, count = noise_table(Fraction(7)), 5, 200_000
    total = sum(
        discrete_gaussian(table, count, SecretStream.for_tests(20 + n)) for n in range(shares)
    )
    assert total.var() == pytest.approx(35, rel=0.02)


class _Given:
    """A stream that gives these words."""

    def __init__(self, *words: int) -> None:
        self.left = list(words)

    def words(self, count: int) -> Any:
        given, self.left = self.left[:count], self.left[count:]
        return np.array(given, np.uint64)


def test_a_draw_that_its_first_bits_leave_open_is_settled_by_64_more() -> None:
    high = np.array([5, 9, 9, 9, 12], np.uint64)
    low = np.array([0, 10, 20, 30, 0], np.uint64)
    table = NoiseTable(high, low)

    def drawn(*words: int) -> int:
        stream: Any = _Given(*words)
        found = int(discrete_gaussian(table, 1, stream)[0])
        assert stream.left == []
        return found

    assert [drawn(2 * 4), drawn(2 * 7), drawn(2 * 7 + 1), drawn(2 * 13)] == [0, 1, -1, 5]
    assert [drawn(2 * 9, more) for more in (9, 10, 19, 20, 30)] == [1, 2, 2, 3, 4]
    assert drawn(2 * 5, 0) == 1  # a threshold belongs to what lies above it


def test_the_same_key_gives_the_same_noise_and_no_draw_passes_the_bound() -> None:
    table, variance = noise_table(Fraction(3)), Fraction(3)
    first, same, other = (
        discrete_gaussian(table, 1000, SecretStream.for_tests(n)) for n in (1, 1, 2)
    )
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)
    stream: Any = _Given(2**64 - 1, 2**64 - 1)
    assert discrete_gaussian(table, 1, stream)[0] == -largest_of(variance)


@pytest.mark.parametrize("variance", [Fraction(0), Fraction(10**12)])
def test_noise_that_no_table_holds_is_refused(variance: Fraction) -> None:
    assert fits_a_table(variance) is (variance == 0)
    with pytest.raises(PrivacyError, match="can't be drawn"):
        noise_table(variance)
