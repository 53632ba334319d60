"""Shamir's shares against arithmetic written out here, bit by bit."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nognet.errors import PrivacyError
from nognet.secagg.shares import join, split

_REDUCTION = (1 << 128) | 0b10000111  # x^128 + x^7 + x^2 + x + 1


def times(a: int, b: int) -> int:
    product = 0
    for bit in range(128):
        if b >> bit & 1:
            product ^= a << bit
    for bit in range(255, 127, -1):
        if product >> bit & 1:
            product ^= _REDUCTION << (bit - 128)
    return product


def inverse(a: int) -> int:
    result, power = 1, a
    for _ in range(127):  # a^(2^128 - 2)
        power = times(power, power)
        result = times(result, power)
    return result


def interpolated(shares: dict[int, bytes], at: int) -> bytes:
    """Lagrange's polynomial through the shares, half by half."""
    halves = []
    for start in (0, 16):
        total = 0
        for place, share in shares.items():
            term = int.from_bytes(share[start : start + 16], "big")
            for other in shares:
                if other != place:
                    term = times(term, times(other ^ at, inverse(other ^ place)))
            total ^= term
        halves.append(total.to_bytes(16, "big"))
    return b"".join(halves)


@settings(max_examples=8, deadline=None)
@given(
    secret=st.binary(min_size=32, max_size=32),
    sizes=st.tuples(st.integers(2, 5), st.integers(0, 3)),
)
def test_any_shares_of_the_threshold_give_the_secret(secret: bytes, sizes: tuple[int, int]) -> None:
    needed, holders = sizes[0], sum(sizes)
    shares = dict(enumerate(split(secret, needed=needed, holders=holders), start=1))
    for places in itertools.islice(itertools.combinations(shares, needed), 4):
        chosen = {place: shares[place] for place in places}
        assert join(chosen, needed=needed) == secret
    assert interpolated(chosen, 0) == secret


def test_shares_below_the_threshold_fit_any_secret() -> None:
    """With t - 1 shares, each value of the t-th gives one secret: none is ruled out."""
    shares = dict(enumerate(split(bytes(32), needed=3, holders=3), start=1))
    two = {place: shares[place] for place in (1, 2)}
    wanted = bytes(range(32))
    third = interpolated({0: wanted, **two}, 3)
    assert join({**two, 3: third}, needed=3) == wanted
    assert third != shares[3]


def test_shares_differ_from_time_to_time_and_from_the_secret() -> None:
    secret = bytes(range(32))
    first, second = (split(secret, needed=2, holders=3) for _ in range(2))
    assert len({*first, *second, secret}) == 7


def test_too_few_or_cut_shares_are_refused() -> None:
    shares = dict(enumerate(split(bytes(32), needed=3, holders=4), start=1))
    with pytest.raises(PrivacyError, match="2 shares of a secret, 3 are needed"):
        join({1: shares[1], 4: shares[4]}, needed=3)
    with pytest.raises(PrivacyError, match="wrong length"):
        join({**shares, 1: b"short"}, needed=3)


@pytest.mark.parametrize(("length", "needed", "holders"), [(31, 2, 3), (32, 1, 3), (32, 4, 3)])
def test_only_secrets_of_32_bytes_and_fitting_numbers_are_split(
    length: int, needed: int, holders: int
) -> None:
    with pytest.raises(ValueError, match="shares"):
        split(bytes(length), needed=needed, holders=holders)
