"""The time that is left: from all steps so far, and 0 at the end."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nognet.progress import Pace, StepDone
from tests.builders.clock import Clock


def test_the_slow_first_step_counts_only_until_the_second() -> None:
    clock = Clock()
    pace = Pace(100, clock)
    clock.now += 30.0  # loads, sets up
    assert pace.left_s(1) == pytest.approx(30.0 * 99)
    for step in range(2, 11):
        clock.now += 2.0
        assert pace.left_s(step) == pytest.approx(2.0 * (100 - step))
    assert pace.elapsed_s == 48.0


def test_it_is_the_mean_of_all_steps_since_and_not_the_last_ones_pace() -> None:
    clock = Clock()
    pace = Pace(10, clock)
    lefts = []
    for done, seconds in enumerate((9.0, 1.0, 1.0, 4.0), start=1):
        clock.now += seconds
        lefts.append(pace.left_s(done))
    assert lefts[-1] == pytest.approx((1 + 1 + 4) / 3 * 6)


def test_a_pause_between_rounds_counts_as_it_will_come_again() -> None:
    clock = Clock()
    pace = Pace(2, clock)  # rounds of 4 steps
    lefts = []
    for number in range(2):
        for step in range(1, 5):
            clock.now += 1.0
            lefts.append(pace.left_s(number + step / 4))
        clock.now += 8.0  # validation
    assert lefts[3] == pytest.approx(4.0)
    assert lefts[4] == pytest.approx((3 + 8 + 1) / 4 * 3)


def test_a_resumed_run_is_not_as_fast_as_if_it_had_done_all() -> None:
    clock = Clock()
    pace = Pace(100, clock)
    clock.now += 5.0
    pace.left_s(91)
    clock.now += 5.0
    assert pace.left_s(92) == pytest.approx(5.0 * 8)


@given(st.lists(st.floats(0.001, 1e4), min_size=1, max_size=30))
def test_it_is_never_negative_and_nothing_at_the_end(seconds: list[float]) -> None:
    clock = Clock()
    pace = Pace(len(seconds), clock)
    lefts = []
    for done, step_s in enumerate(seconds, start=1):
        clock.now += step_s
        lefts.append(pace.left_s(done))
    assert all(left >= 0 and math.isfinite(left) for left in lefts)
    assert lefts[-1] == 0.0


def test_the_words_of_a_step_leave_out_a_loss_that_may_not_be_told() -> None:
    assert StepDone("a", 2, 5, 3, 40, 0.12345).words == "step 3 of 40, loss 0.1235"
    assert StepDone("a", 2, 5, 3, 40, math.nan).words == "step 3 of 40"
