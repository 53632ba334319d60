"""Named generators: equal for equal names, unlike for unlike ones, nothing global."""

from __future__ import annotations

import random

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from nognet.randomness import derived_seed, numpy_generator, torch_generator

_seeds = st.integers(0, 2**63 - 1)
_names = st.lists(
    st.text(st.characters(exclude_characters="\x1f"), max_size=8) | st.integers(0, 99), max_size=4
).map(tuple)


@given(seed=_seeds, names=_names)
def test_a_derived_seed_is_repeatable_and_fits_63_bits(
    seed: int, names: tuple[str | int, ...]
) -> None:
    assert derived_seed(seed, *names) == derived_seed(seed, *names)
    assert 0 <= derived_seed(seed, *names) < 2**63


@given(one=st.tuples(_seeds, _names), other=st.tuples(_seeds, _names))
def test_unlike_seeds_or_names_give_unlike_seeds(
    one: tuple[int, tuple[str | int, ...]], other: tuple[int, tuple[str | int, ...]]
) -> None:
    equal = derived_seed(one[0], *one[1]) == derived_seed(other[0], *other[1])
    assert equal == (one == other)


def test_a_number_is_another_name_than_its_text_and_names_do_not_run_together() -> None:
    assert derived_seed(1, 2) != derived_seed(1, "2")
    assert derived_seed(1, "ab", "c") != derived_seed(1, "a", "bc")
    assert derived_seed(1, "a") != derived_seed(1, "a", "")


def test_seeds_are_the_same_on_every_machine_and_in_every_version() -> None:
    # Golden: a change here changes every run that was ever started from a seed.
    assert derived_seed(1, "augment", 2) == 4140179832671989429


def test_derived_seeds_spread_over_their_range() -> None:
    high_bits = [derived_seed(0, "use", i) >> 59 for i in range(1600)]
    counts = np.bincount(high_bits, minlength=16)
    assert len(counts) == 16
    assert counts.min() > 50  # 100 expected, standard deviation 10


def test_generators_of_one_name_draw_the_same_and_of_two_names_not() -> None:
    one, same, other = (numpy_generator(5, name).random(8) for name in ("a", "a", "b"))
    np.testing.assert_array_equal(one, same)
    assert not np.any(one == other)
    drawn = [torch.rand(8, generator=torch_generator(5, name)) for name in ("a", "a", "b")]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.any(drawn[0] == drawn[2])


def test_the_global_generators_are_left_alone() -> None:
    before = (random.getstate(), np.random.get_state()[1].copy(), torch.random.get_rng_state())  # noqa: NPY002  it is what is watched
    numpy_generator(1, "x").normal(size=10)
    torch.randn(10, generator=torch_generator(1, "x"))
    assert random.getstate() == before[0]
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002  it is what is watched
    assert torch.equal(torch.random.get_rng_state(), before[2])
