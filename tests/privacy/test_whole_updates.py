"""Updates on a grid: never longer than the bound, right on average."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nognet.errors import PrivacyError
from nognet.privacy import whole_updates
from nognet.privacy.secret import SecretStream
from nognet.privacy.whole_updates import squared_length, whole_update


def whole(update: np.ndarray, clip_norm: float, levels: int, key: int = 1) -> np.ndarray:
    stream = SecretStream.for_tests(key)
    return whole_update(update, clip_norm=clip_norm, levels=levels, stream=stream)


@settings(max_examples=300, deadline=None)
@given(
    update=arrays.arrays(
        np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6, allow_subnormal=False)
    ),
    clip_norm=st.floats(1e-3, 1e3),
    levels=st.integers(1, 5000),
    key=st.integers(0, 2**32),
)
def test_the_length_is_never_above_the_bound_in_exact_arithmetic(
    update: np.ndarray, clip_norm: float, levels: int, key: int
) -> None:
    before = update.copy()
    found = whole(update, clip_norm, levels, key)
    assert sum(int(number) ** 2 for number in found) <= levels**2
    assert np.array_equal(update, before)


@pytest.mark.parametrize("numbers", [1, 2, 100, 40_000])
def test_an_update_that_is_as_long_as_can_be_stays_within(numbers: int) -> None:
    levels = max(1024, int(2 * numbers**0.5))
    update = np.full(numbers, 7.0)
    found = whole(update, 0.5, levels)
    length = squared_length(found) ** 0.5
    assert 0.96 * levels < length <= levels


def test_rounding_is_right_on_average_and_an_update_below_the_norm_is_not_shortened() -> None:
    update = np.full(40_000, 0.0123)
    found = whole(update, 10.0, 1000)  # steps of 0.01: 1.23 steps
    assert set(found) == {1, 2}
    assert found.mean() == pytest.approx(1.23, abs=5 * 0.42 / 200)
    assert np.array_equal(whole(np.zeros(50), 1.0, 10), np.zeros(50))


def test_where_shortening_never_helps_numbers_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_updates, "_TRIES", 0)
    found = whole(np.array([3.0, -4.0]), 5.0, 10)
    assert list(found) == [6, -8]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(PrivacyError, match="not finite"):
        whole(np.array([1.0, bad]), 1.0, 10)


def test_squares_are_summed_exactly_where_floats_are_not() -> None:
    numbers = np.array([2**31 - 1, 1, 2**31 - 1, 2, -(2**31) + 1], np.int64)
    assert squared_length(numbers) == 3 * (2**31 - 1) ** 2 + 5
    with pytest.raises(PrivacyError, match="beyond"):
        squared_length(np.array([2**31], np.int64))
