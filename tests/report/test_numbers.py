import pytest

from nognet.report.numbers import DASH, MINUS, bytes_text, count, number, seconds_text, signed


def test_what_is_missing_is_a_dash() -> None:
    missing = (number(None), signed(None), count(None), seconds_text(None), bytes_text(None))
    assert set(missing) == {DASH}


def test_zero_is_a_zero_without_a_sign() -> None:
    assert (number(-0.0001, 2), signed(-0.0001, 2), signed(0.0, 1)) == ("0.00", "0.00", "0.0")


def test_small_numbers_keep_their_leading_zero() -> None:
    assert (signed(0.05, 2), signed(-0.05, 2)) == ("+0.05", f"{MINUS}0.05")
    assert number(-10.0, 1) == f"{MINUS}10.0"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (3599.6, "1 h 00 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_sizes() -> None:
    assert bytes_text(0) == "0 B"
    assert bytes_text(999) == "999 B"
    assert bytes_text(3_200_000_000) == "3.2 GB"
