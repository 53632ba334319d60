"""Keys: agreed in pairs, known to be of whom they say, sealed to one receiver."""

from __future__ import annotations

import hmac
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nognet.errors import PrivacyError
from nognet.secagg.keys import (
    Advert,
    KeyPair,
    advert,
    agreed,
    check_adverts,
    check_signature,
    derived,
    opened,
    sealed,
    sign,
)
from nognet.secagg.session import bound_text
from tests.builders.secure_sum import SESSION, names, peers, signer

SITES = names(3)


def adverts() -> list[Advert]:
    return [advert(SESSION, s, KeyPair.fresh(), KeyPair.fresh(), signer(s)) for s in SITES]


def test_key_agreement_gives_the_value_of_rfc_7748_and_5869() -> None:
    """X25519's test vector (6.1), then HKDF written out with HMAC."""
    alice = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    bob = KeyPair.of(
        bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    )
    assert bob.public.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    shared = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    extracted = hmac.digest(bytes(32), shared, "sha256")
    expected = hmac.digest(extracted, bound_text(b"x") + b"\1", "sha256")
    assert agreed(bob.private, alice, b"x") == expected


def test_both_sites_of_a_pair_agree() -> None:
    first, second = KeyPair.fresh(), KeyPair.fresh()
    mine = agreed(first.private, second.public, b"x")
    assert mine == agreed(second.private, first.public, b"x")


def test_each_use_has_a_key_of_its_own() -> None:
    first, second = KeyPair.fresh(), KeyPair.fresh()
    keys = {agreed(first.private, second.public, *info) for info in [(b"a",), (b"b",), (b"a", b"")]}
    assert len(keys) == 3
    assert derived(b"s", b"ab", b"c") != derived(b"s", b"a", b"bc")


def test_a_key_of_small_order_is_refused() -> None:
    with pytest.raises(PrivacyError, match="no usable X25519 key"):
        agreed(KeyPair.fresh().private, bytes(32), b"x")


def test_registered_keys_are_taken_in_order_of_names() -> None:
    assert list(check_adverts(SESSION, reversed(adverts()), peers(SITES))) == SITES


def test_a_site_that_the_coordinator_made_up_is_refused() -> None:
    made_up = advert(SESSION, "site_09", KeyPair.fresh(), KeyPair.fresh(), signer("made-up"))
    with pytest.raises(PrivacyError, match="site_09 signs with no known key") as caught:
        check_adverts(SESSION, [*adverts(), made_up], peers(SITES))
    assert caught.value.code == "secure-unknown-key"


def test_a_key_that_the_coordinator_put_in_anothers_place_is_refused() -> None:
    honest = adverts()
    other = advert(SESSION, SITES[0], KeyPair.fresh(), KeyPair.fresh(), signer("made-up"))
    with pytest.raises(PrivacyError, match="another key than the registered one"):
        check_adverts(SESSION, [other, *honest[1:]], peers(SITES))
    swapped = replace(honest[0], mask_key=KeyPair.fresh().public)
    with pytest.raises(PrivacyError, match="not signed with its key"):
        check_adverts(SESSION, [swapped, *honest[1:]], peers(SITES))


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": "00" * 16},
        {"round_number": 4},
        {"run_token": "99" * 16},
        {"study_digest": "0" * 64},
    ],
)
def test_keys_of_another_session_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(PrivacyError, match="not signed with its key"):
        check_adverts(replace(SESSION, **changes), adverts(), peers(SITES))  # type: ignore[arg-type]  # any field


def test_one_key_at_two_sites_is_refused_even_where_the_relay_is_trusted() -> None:
    honest = adverts()
    same = advert(
        SESSION,
        SITES[0],
        KeyPair(b"", honest[1].seal_key),
        KeyPair(b"", honest[1].mask_key),
        signer(SITES[0]),
    )
    with pytest.raises(PrivacyError, match="one and the same key"):
        check_adverts(SESSION, [same, *honest[1:]], None)
    twin = advert(SESSION, "site_09", KeyPair.fresh(), KeyPair.fresh(), signer(SITES[0]))
    with pytest.raises(PrivacyError, match="one and the same key"):
        check_adverts(SESSION, [*honest, twin], None)
    with pytest.raises(PrivacyError, match="twice"):
        check_adverts(SESSION, [honest[0], *honest], None)


def test_only_p_384_keys_sign() -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    der = other.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for identity in (der, b"no key"):
        with pytest.raises(PrivacyError, match="not signed with its key"):
            check_signature("site_a", identity, sign(other, b"text"), b"text")


def test_what_is_sealed_opens_in_its_context_alone() -> None:
    key = derived(b"secret", b"x")
    box = sealed(key, b"shares", b"from", b"to")
    assert opened(key, box, b"from", b"to") == b"shares"
    changed = box[:-1] + bytes([box[-1] ^ 1])
    for bad in ((box, b"to", b"from"), (changed, b"from", b"to"), (b"", b"from", b"to")):
        with pytest.raises(PrivacyError, match="can't be opened"):
            opened(key, *bad)
    with pytest.raises(PrivacyError, match="can't be opened"):
        opened(derived(b"other", b"x"), box, b"from", b"to")
