"""Whole secure sums: the sum is the plain one, whoever leaves when; below the threshold nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nognet.errors import PrivacyError
from nognet.secagg import site_side
from nognet.secagg.coordinator_side import Gathered, sum_of, unmask
from nognet.secagg.quantise import Code
from nognet.secagg.session import Rules
from nognet.secagg.site_state import Revealed
from tests.builders.secure_sum import (
    CODE,
    RULES,
    SESSION,
    Sum,
    names,
    plain_mean,
    signer,
    updates_of,
)

BOUND = CODE.step / 2 * (1 + 1e-9)


@pytest.mark.parametrize("word", [np.uint32, np.uint64])
def test_the_sum_is_the_plain_weighted_mean_to_half_a_step(word: type) -> None:
    code = replace(CODE, bits=28) if word is np.uint64 else CODE
    assert code.word == word
    sites = names(4)
    updates = updates_of(sites)
    done = Sum(sites, code=code).begin().share().mask(updates).agree().reveal()
    found = done.result()
    assert np.abs(found.mean - plain_mean(updates, sites)).max() <= code.step / 2 * (1 + 1e-9)
    assert found.counts.weight == sum(weight for _, weight in updates.values())
    assert found.counts.patients == 4


@settings(max_examples=12, deadline=None)
@given(
    count=st.integers(3, 7),
    leaves=st.lists(st.integers(0, 4), min_size=7, max_size=7),
    seed=st.integers(0, 1000),
)
def test_whoever_leaves_when_the_sum_is_of_those_that_masked(
    count: int, leaves: list[int], seed: int
) -> None:
    """A site leaves before step 1 (share), 2 (mask), 3 (agree), 4 (reveal), or not (0)."""
    sites = names(count)
    at: dict[int, list[str]] = {step: [] for step in range(5)}
    stay = RULES.needed(count)
    for site, step in zip(sites, leaves, strict=False):
        left = sum(len(gone) for number, gone in at.items() if number)
        at[step if left < count - stay else 0].append(site)
    updates = updates_of(sites, seed=seed)
    done = Sum(sites).begin().share(at[1])
    done.mask(updates, at[2]).agree(at[3]).reveal(at[4])
    masked = [site for site in sites if site not in (*at[1], *at[2])]
    assert sorted(done.masked) == masked
    assert np.abs(done.result().mean - plain_mean(updates, masked)).max() <= BOUND


@pytest.mark.parametrize("step", ["share", "mask", "agree", "reveal"])
def test_below_the_threshold_every_step_is_refused(step: str) -> None:
    sites, rules = names(4), Rules(2 / 3)
    updates = updates_of(sites)
    gone = {name: sites[:2] if name == step else [] for name in ("share", "mask", "agree")}
    done = Sum(sites, rules=rules).begin()
    if step == "share":
        done.sites = sites  # peers stay known
        with pytest.raises(PrivacyError, match="2 sites begin"):
            done.share(gone["share"])
        return
    done.share()
    if step == "mask":
        done.leave(sites[:2])
        with pytest.raises(PrivacyError, match="2 sites go on"):
            done.mask(updates)
        return
    done.mask(updates)
    if step == "agree":
        done.masked = {site: done.masked[site] for site in sites[2:]}
        done.leave(sites[:2])
        with pytest.raises(PrivacyError, match="2 sites end"):
            done.agree()
        return
    done.agree(sites[:2])
    with pytest.raises(PrivacyError, match="2 sites sign"):
        done.reveal()


def test_shares_of_fewer_sites_than_the_threshold_unmask_nothing() -> None:
    sites = names(5)
    done = Sum(sites).begin().share().mask(updates_of(sites)).agree().reveal()
    with pytest.raises(PrivacyError, match="2 shares of a secret, 3 are needed"):
        done.unmasked(leave=sites[:3])
    revealed = {site: done.states[site].revealed for site in sites[:2]}
    with pytest.raises(PrivacyError, match="share of site_00's secrets is wrong"):
        unmask(done.gathered, sum_of(done.masked), revealed, _LowRules(0.5))


class _LowRules(Rules):
    """A coordinator that tries with fewer shares than the sites dealt for."""

    def needed(self, sites: int) -> int:
        return 2 if sites else 0


def test_a_masked_update_is_uniform_and_tells_nothing_of_the_update() -> None:
    sites = names(3)
    updates = {site: (np.zeros(60_000), 1) for site in sites}
    done = Sum(sites).begin().share().mask(updates)
    for words in done.masked.values():
        low, high = words & np.uint32(255), words >> np.uint32(24)
        for part in (low, high):
            counts = np.bincount(part, minlength=256)
            assert stats.chisquare(counts).pvalue > 1e-6
    pair = done.masked[sites[0]] + done.masked[sites[1]]  # their common mask is gone, others not
    assert stats.chisquare(np.bincount(pair >> np.uint32(24), minlength=256)).pvalue > 1e-6


def test_the_same_update_masked_in_two_sessions_has_nothing_in_common() -> None:
    sites = names(3)
    updates = updates_of(sites, size=4000)
    first, second = (Sum(sites).begin().share().mask(updates) for _ in range(2))
    difference = first.masked[sites[0]] - second.masked[sites[0]]
    counts = np.bincount(difference >> np.uint32(28), minlength=16)
    assert stats.chisquare(counts).pvalue > 1e-6


def test_weights_made_for_one_site_alone_leave_masks_in_the_sum() -> None:
    sites = names(3)
    done = Sum(sites, subjects={sites[0]: b"\1" * 32}).begin().share()
    done.mask(updates_of(sites)).agree().reveal()
    with pytest.raises(PrivacyError, match="holds masks still"):
        done.result()


def test_a_list_of_sites_made_for_one_site_alone_leaves_masks_in_the_sum() -> None:
    sites = names(4)
    updates = updates_of(sites)
    done = Sum(sites).begin().share()
    victim = done.states[sites[0]]
    whole = dict(done.states)
    done.mask(updates)
    incoming = {s: whole[s].outgoing[sites[0]] for s in sites[1:3]}  # the fourth is kept from it
    words = np.zeros(49, np.uint32)
    _, done.masked[sites[0]] = site_side.mask(victim, incoming, words, done.subject, RULES)
    done.agree().reveal()
    with pytest.raises(PrivacyError, match="holds masks still"):
        done.result()


def test_a_wrong_share_is_found_and_never_gives_a_wrong_sum() -> None:
    sites = names(3)
    done = Sum(sites).begin().share().mask(updates_of(sites)).agree().reveal()
    honest = done.states[sites[1]].revealed
    forged = Revealed({**honest.seeds, sites[0]: bytes(32)}, honest.keys)
    done.states[sites[1]] = replace(done.states[sites[1]], revealed=forged)
    with pytest.raises(PrivacyError, match="site_00's secrets is wrong"):
        done.unmasked()


def test_a_wrong_share_of_a_key_is_found_too() -> None:
    sites = names(4)
    done = Sum(sites).begin().share().mask(updates_of(sites), [sites[3]]).agree().reveal()
    forged = Revealed(done.states[sites[1]].revealed.seeds, {sites[3]: bytes(32)})
    done.states[sites[1]] = replace(done.states[sites[1]], revealed=forged)
    with pytest.raises(PrivacyError, match="site_03's secrets is wrong"):
        done.unmasked()


def test_seed_and_key_of_one_site_are_never_both_given() -> None:
    sites = names(5)
    done = Sum(sites).begin().share().mask(updates_of(sites), [sites[4]]).agree().reveal()
    for state in done.states.values():
        assert set(state.revealed.seeds) == set(sites[:4])
        assert set(state.revealed.keys) == {sites[4]}
    # the coordinator now says that site_00 left as well, to get its key beside its seed
    state = done.states[sites[1]]
    with pytest.raises(PrivacyError, match="second time"):
        site_side.agree(state, sites[1:4], signer(sites[1]), RULES)


def test_two_lists_of_sites_cannot_both_find_the_signatures_they_need() -> None:
    sites = names(4)
    done = Sum(sites).begin().share().mask(updates_of(sites))
    lists = {site: (sites[:3] if site in sites[:2] else sites[1:]) for site in sites}
    signed = {}
    for site, state in done.states.items():
        if site in lists[site]:
            done.states[site], signed[site] = site_side.agree(
                state, lists[site], signer(site), RULES
            )
    state = done.states[sites[0]]
    others = {site: signed[site] for site in sites[:3]}
    with pytest.raises(PrivacyError, match="site_02 is not signed"):
        site_side.reveal(state, others, RULES)


def test_masked_updates_of_different_forms_are_not_added() -> None:
    with pytest.raises(PrivacyError, match="different forms"):
        sum_of({"a": np.zeros(3, np.uint32), "b": np.zeros(4, np.uint32)})
    with pytest.raises(PrivacyError, match="different forms"):
        sum_of({})


def test_dropped_sites_are_those_that_shared_and_are_not_in_the_sum() -> None:
    gathered = Gathered(SESSION, {}, {"b": b"", "a": b""}, ("a",), bytes(32))
    assert (gathered.members, gathered.dropped) == (("a", "b"), ("b",))


@pytest.mark.parametrize(("bits", "word"), [(16, np.uint32), (32, np.uint64)])
def test_the_word_is_the_smaller_one_that_no_sum_overflows(bits: int, word: type) -> None:
    code = Code(bits, 1.0, 1000, 50)
    assert code.word == word
    assert code.sites * code.max_weight * code.levels < 2 ** (8 * code.word.itemsize - 1)
