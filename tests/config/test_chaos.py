from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nognet.config.chaos import Fault, parse_chaos, parse_own_chaos
from nognet.errors import ConfigError

SITES = ("site_a", "site_b", "site_c")


def test_faults_are_read_as_they_are_written() -> None:
    text = (
        "drop:site_b@3, slow:site_a x5, nan:site_c@2, oom:site_a@4, skew:site_b+300s, poison:site_c"
    )
    assert parse_chaos(text, SITES) == (
        Fault("drop", "site_b", 3),
        Fault("slow", "site_a", times=5.0),
        Fault("nan", "site_c", 2),
        Fault("oom", "site_a", 4),
        Fault("skew", "site_b", seconds=300.0),
        Fault("poison", "site_c"),
    )


@given(
    st.sampled_from(["drop", "nan", "oom", "poison", "slow", "skew"]),
    st.integers(1, 99),
    st.integers(0, 5),
    st.integers(1, 50),
)
def test_what_a_fault_writes_is_read_back(kind: str, first: int, more: int, size: int) -> None:
    fault = Fault(
        kind,  # type: ignore[arg-type]  # one of the kinds
        "site_a",
        first,
        first + more if more else None,
        times=float(size) if kind in {"slow", "poison"} else 1.0,
        seconds=-float(size) if kind == "skew" else 0.0,
    )
    assert parse_chaos(str(fault)) == (fault,)


@pytest.mark.parametrize(
    ("fault", "struck"),
    [
        (Fault("drop", "site_a"), {1, 2, 3, 4}),
        (Fault("drop", "site_a", 2), {2}),
        (Fault("drop", "site_a", 2, 3), {2, 3}),
        (Fault("drop", "site_b", 2), set()),
    ],
)
def test_a_fault_strikes_its_site_in_its_rounds(fault: Fault, struck: set[int]) -> None:
    assert {n for n in range(1, 5) if fault.strikes("site_a", n)} == struck


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no fault in it"),
        ("burn:site_a", "expected one of drop, slow"),
        ("drop:site_x", "there is no site 'site_x'; expected one of site_a, site_b, site_c"),
        ("drop site_a", "expected one of"),
        ("drop:site_a@0", "rounds count from 1"),
        ("drop:site_a@4-2", "the rounds run backwards"),
        ("drop:site_a x3", "xTIMES is for slow and poison"),
        ("skew:site_a", "skew needs seconds"),
        ("slow:site_a x0.5", "a factor of 1 or more"),
        ("nan:site_a+3s", "is for skew"),
    ],
)
def test_what_is_no_fault_is_refused_with_words(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse_chaos(text, SITES)


def test_a_slow_site_may_be_slow_by_seconds() -> None:
    (fault,) = parse_chaos("slow:site_a@2+1800s")
    assert (fault.times, fault.seconds, str(fault)) == (1.0, 1800.0, "slow:site_a@2+1800s")
    for wrong in ("slow:site_a x2+5s", "slow:site_a-5s", "nan:site_a+5s"):
        with pytest.raises(ConfigError):
            parse_chaos(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "drop@3, slow x5, nan@2-4, oom, skew-300s, poison x10",
        "drop:site_a@3, drop:site_b@1, slow:site_a x5, nan@2-4, oom, skew:site_a-300s, poison x10",
    ],
)
def test_a_site_reads_its_own_faults_of_its_list_or_of_everybodys(text: str) -> None:
    assert parse_own_chaos(text, "site_a") == (
        Fault("drop", "site_a", 3),
        Fault("slow", "site_a", times=5.0),
        Fault("nan", "site_a", 2, 4),
        Fault("oom", "site_a"),
        Fault("skew", "site_a", seconds=-300.0),
        Fault("poison", "site_a", times=10.0),
    )


def test_a_list_of_others_faults_leaves_a_site_alone_and_a_wrong_one_is_refused() -> None:
    assert parse_own_chaos("drop:site_b@3", "site_a") == ()
    for wrong in ("", "explode@2", "drop@0", "drop at 3"):
        with pytest.raises(ConfigError, match="--chaos"):
            parse_own_chaos(wrong, "site_a")
