"""A site's part: order, repeats, and what it refuses of an honest-looking coordinator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nognet.errors import PrivacyError, WireError
from nognet.secagg import site_side
from nognet.secagg.keys import KeyPair, advert
from nognet.secagg.site_state import SiteState, from_text, to_text
from tests.builders.secure_sum import (
    RULES,
    SESSION,
    SUBJECT,
    Sum,
    names,
    peers,
    signer,
    updates_of,
)

SITES = names(4)
WORDS = np.arange(30, dtype=np.uint32)
ME = SITES[0]


def shared() -> tuple[SiteState, dict[str, bytes]]:
    done = Sum(SITES).begin().share()
    incoming = {site: done.states[site].outgoing[ME] for site in SITES[1:]}
    return done.states[ME], incoming


def test_two_sessions_have_no_key_in_common() -> None:
    first, second = (site_side.begin(SESSION, ME, signer(ME)) for _ in range(2))
    assert first.seed != second.seed
    assert first.pair != second.pair
    assert first.seal != second.seal


def test_steps_asked_for_too_early_are_refused() -> None:
    begun = site_side.begin(SESSION, ME, signer(ME))
    state, _ = shared()
    for early in (
        lambda: site_side.mask(begun, {}, WORDS, SUBJECT, RULES),
        lambda: site_side.agree(state, SITES, signer(ME), RULES),
        lambda: site_side.reveal(state, {}, RULES),
    ):
        with pytest.raises(PrivacyError) as caught:
            early()
        assert caught.value.code == "secure-order"


def test_shares_are_sealed_once_and_given_again_in_the_same_bytes() -> None:
    done = Sum(SITES).begin().share()
    state = done.states[ME]
    again = site_side.share(state, state.adverts.values(), RULES, peers(SITES))
    assert again == state
    fewer = [item for name, item in state.adverts.items() if name != SITES[3]]
    with pytest.raises(PrivacyError, match="second time"):
        site_side.share(state, fewer, RULES, peers(SITES))


def test_a_site_whose_own_keys_were_left_out_or_replaced_shares_nothing() -> None:
    states = Sum(SITES).begin().states
    others = [states[site].adverts[site] for site in SITES[1:]]
    older = advert(SESSION, ME, KeyPair.fresh(), KeyPair.fresh(), signer(ME))
    for shown in (others, [*others, older]):
        with pytest.raises(PrivacyError, match="own keys are not among"):
            site_side.share(states[ME], shown, RULES, peers(SITES))


def test_a_masked_update_is_given_again_in_the_same_bytes_and_no_other() -> None:
    state, incoming = shared()
    masked, words = site_side.mask(state, incoming, WORDS, SUBJECT, RULES)
    again, same = site_side.mask(masked, incoming, WORDS, SUBJECT, RULES)
    assert again == masked
    assert np.array_equal(words, same)
    fewer = dict(list(incoming.items())[:2])
    for other in (
        (incoming, WORDS + np.uint32(1), SUBJECT),
        (incoming, WORDS, b"\1" * 32),
        (fewer, WORDS, SUBJECT),
    ):
        with pytest.raises(PrivacyError, match="second time") as caught:
            site_side.mask(masked, *other, RULES)
        assert caught.value.code == "secure-asked-twice"


@pytest.mark.parametrize("fault", ["changed", "swapped", "unknown", "own", "another session"])
def test_shares_that_are_not_from_their_sender_are_refused_before_masking(fault: str) -> None:
    state, incoming = shared()
    first, second = SITES[1:3]
    bad = {
        "changed": {**incoming, first: incoming[first][:-1] + b"\0"},
        "swapped": {**incoming, first: incoming[second], second: incoming[first]},
        "unknown": {**incoming, "site_09": incoming[first]},
        "own": {**incoming, ME: incoming[first]},
        "another session": {**incoming, first: shared()[1][first]},
    }[fault]
    with pytest.raises(PrivacyError) as caught:
        site_side.mask(state, bad, WORDS, SUBJECT, RULES)
    assert caught.value.code == "secure-shares"


@pytest.mark.parametrize("survivors", [SITES[1:], [*SITES, "site_09"]])
def test_a_site_signs_no_list_without_itself_or_with_strangers(survivors: list[str]) -> None:
    done = Sum(SITES).begin().share().mask(updates_of(SITES))
    with pytest.raises(PrivacyError, match="not those that took part"):
        site_side.agree(done.states[ME], survivors, signer(ME), RULES)


def test_signatures_of_another_session_or_of_strangers_reveal_nothing() -> None:
    done, other = (Sum(SITES).begin().share().mask(updates_of(SITES)).agree() for _ in range(2))
    with pytest.raises(PrivacyError, match="is not signed with its key"):
        site_side.reveal(done.states[ME], other.signatures, RULES)
    strangers = {**done.signatures, "site_09": b""}
    with pytest.raises(PrivacyError, match="a site signed that is not in the sum"):
        site_side.reveal(done.states[ME], strangers, RULES)


def test_after_the_last_step_no_secret_is_left_and_nothing_more_is_masked() -> None:
    done = Sum(SITES).begin().share().mask(updates_of(SITES)).agree()
    before = done.states[ME]
    state = done.reveal().states[ME]
    text = to_text(state)
    for secret in (before.seed, before.seal.private, before.pair.private, before.own_shares):
        assert secret.hex() in to_text(before)
        assert secret.hex() not in text.replace(before.own_shares[:32].hex(), "")
    assert site_side.reveal(state, done.signatures, RULES) == state
    with pytest.raises(PrivacyError):
        site_side.mask(state, before.incoming, WORDS, SUBJECT, RULES)
    with pytest.raises(PrivacyError, match="secrets are gone"):
        site_side.share(state, state.adverts.values(), RULES, peers(SITES))


@pytest.mark.parametrize("step", [0, 1, 2, 3, 4])
def test_a_site_goes_on_from_its_disk_after_each_step(step: int) -> None:
    done = Sum(SITES).begin()
    updates = updates_of(SITES)
    steps = [done.share, lambda: done.mask(updates), done.agree, done.reveal]
    for number, play in enumerate(steps):
        if number == step:
            done.states = {s: from_text(to_text(state)) for s, state in done.states.items()}
        play()
    assert done.result().counts.patients == 4


def test_a_damaged_state_is_refused() -> None:
    text = to_text(shared()[0])
    for bad in ("", "[]", text[:-5], text.replace("shared", "somewhere"), '{"stage": "shared"}'):
        with pytest.raises(WireError, match="damaged"):
            from_text(bad)


def test_secrets_do_not_stand_in_a_states_repr() -> None:
    state, _ = shared()
    shown = repr(state)
    for secret in (state.seed, state.pair.private, state.seal.private, state.own_shares):
        assert repr(secret) not in shown
    assert repr(replace(state, seed=b"secret")) == shown
