from __future__ import annotations

import math

import pytest

from tests.overhead.limit import too_slow


@pytest.mark.parametrize("ours", [0.1, 2.0])
def test_half_of_a_plain_app_is_quick_enough(ours: float) -> None:
    assert too_slow({"ours": ours, "one vector": 4.0, "tensors": 8.0}) is None


def test_more_than_half_is_said_by_name() -> None:
    assert too_slow({"ours": 2.1, "one vector": 4.0, "tensors": 8.0}) == (
        "TOO SLOW: ours is 0.53 of one vector; at most 0.5 is wanted"
    )


def test_what_was_not_measured_is_not_quick_enough() -> None:
    assert too_slow({"ours": math.nan, "one vector": 4.0}) is not None
