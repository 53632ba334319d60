"""Who is heard: registered keys, in time, once."""

from __future__ import annotations

import base64
import datetime as dt
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from hypothesis import given
from hypothesis import strategies as st
from nognet_server.processes import flower_internals as flower
from nognet_server.processes.admission import Admission, Verdict

from tests.builders.signed import new_key, pem, raw, signed_headers

NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
SITE, STRANGER = new_key(), new_key()
SIGNATURE = flower.SIGNATURE_HEADER.decode()
P384_ORDER = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    16,
)


def admission(now: dt.datetime = NOON) -> Admission:
    return Admission(lambda key: key == pem(SITE), lambda: now)


def verdict_on(headers: dict[str, str], now: dt.datetime = NOON) -> Verdict:
    return admission(now).examine(raw(headers))[1]


def test_a_registered_site_is_admitted() -> None:
    assert verdict_on(signed_headers(SITE, NOON)) is Verdict.ADMITTED


def test_a_stranger_that_signs_well_is_told_apart_from_one_that_does_not() -> None:
    assert verdict_on(signed_headers(STRANGER, NOON)) is Verdict.UNREGISTERED
    assert verdict_on(signed_headers(SITE, NOON, claimed=STRANGER)) is Verdict.REFUSED


def test_a_registered_key_in_a_strangers_hands_is_refused() -> None:
    assert verdict_on(signed_headers(STRANGER, NOON, claimed=SITE)) is Verdict.REFUSED


@pytest.mark.parametrize(
    ("age_s", "admitted"), [(-6, False), (-4, True), (304, True), (306, False)]
)
def test_the_time_signed_is_as_flower_wants_it(age_s: int, admitted: bool) -> None:
    headers = signed_headers(SITE, NOON - dt.timedelta(seconds=age_s))
    assert (verdict_on(headers) is Verdict.ADMITTED) is admitted


def test_a_signature_holds_once() -> None:
    judge = admission()
    signed, verdict = judge.examine(raw(signed_headers(SITE, NOON)))
    assert verdict is Verdict.ADMITTED
    assert signed is not None
    assert [judge.take(signed), judge.take(signed)] == [True, False]


def test_a_signature_holds_once_over_a_restart(tmp_path: Path) -> None:
    headers = raw(signed_headers(SITE, NOON))
    later = NOON + dt.timedelta(seconds=200)
    for now, held in ((NOON, True), (NOON, False), (later, False)):
        judge = Admission(lambda key: key == pem(SITE), lambda now=now: now, tmp_path / "used")
        signed, verdict = judge.examine(headers)
        assert verdict is Verdict.ADMITTED
        assert signed is not None
        assert judge.take(signed) is held


def test_a_second_signature_made_of_the_first_holds_no_more() -> None:
    """Of (r, s) anybody makes (r, n - s), which verifies as well."""
    headers = signed_headers(SITE, NOON)
    r, s = decode_dss_signature(base64.b64decode(headers[SIGNATURE_NAME]))
    twin = encode_dss_signature(r, P384_ORDER - s)
    changed = headers | {SIGNATURE_NAME: base64.b64encode(twin).decode()}
    judge = admission()
    first, _ = judge.examine(raw(headers))
    second, verdict = judge.examine(raw(changed))
    assert verdict is Verdict.ADMITTED  # the mathematics holds
    assert first is not None
    assert second is not None
    assert [judge.take(first), judge.take(second)] == [True, False]


SIGNATURE_NAME = next(name for name in signed_headers(SITE) if name.lower() == SIGNATURE)


def test_memory_of_signatures_is_given_back_once_they_are_too_old() -> None:
    clock = [NOON]
    judge = Admission(lambda _key: True, lambda: clock[0])
    for second in range(2000):
        clock[0] = NOON + dt.timedelta(seconds=second)
        signed, _ = judge.examine(raw(signed_headers(SITE, clock[0])))
        assert signed is not None
        assert judge.take(signed)
        assert not judge.take(signed)
    assert len(judge.used) < 320


def test_headers_given_twice_or_left_out_are_refused() -> None:
    whole = raw(signed_headers(SITE, NOON))
    for position in range(3):
        assert admission().examine([*whole, whole[position]])[1] is Verdict.REFUSED
        rest = whole[:position] + whole[position + 1 :]
        assert admission().examine(rest)[1] is Verdict.REFUSED


def test_a_key_of_another_kind_is_refused() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    headers = signed_headers(SITE, NOON)
    name = next(n for n in headers if n.lower().encode() == flower.PUBLIC_KEY_HEADER)
    changed = headers | {name: base64.b64encode(public).decode()}
    assert verdict_on(changed) is Verdict.REFUSED


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [flower.PUBLIC_KEY_HEADER, flower.TIMESTAMP_HEADER, flower.SIGNATURE_HEADER]
            ),
            st.one_of(
                st.binary(max_size=60),
                st.just(NOON.isoformat().encode()),
                st.just(base64.b64encode(pem(SITE))),
            ),
        ),
        max_size=4,
    )
)
def test_no_header_is_an_error_of_ours(headers: list[tuple[bytes, bytes]]) -> None:
    assert admission().examine(headers)[1] is Verdict.REFUSED
