"""The public listener's filter and the control token, without a network."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from flwr.common.constant import ACCESS_TOKEN_KEY
from hypothesis import given
from hypothesis import strategies as st
from nognet_server.processes import flower_internals as flower
from nognet_server.processes.superlink import MAX_REQUEST_BYTES, ControlToken, PublicListener


class Inner:
    """An application that remembers what reached it and answers with a status."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.reached: list[tuple[str, str]] = []

    async def __call__(self, scope: Any, _receive: Any, send: Any) -> None:
        self.reached.append((scope["method"], scope["path"]))
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def ask(
    inner: Any, method: str, path: str, *, kind: str = "http", key: bytes = b"k", length: int = 0
) -> list[dict[str, Any]]:
    """Send one request through the filter; return what was sent back."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    header = (flower.FLEET_HTTP_PUBLIC_KEY_HEADER.encode(), base64.b64encode(key))
    headers = [header, (b"content-length", str(length).encode())]
    scope = {"type": kind, "method": method, "path": path, "headers": headers}
    listener = PublicListener(inner, lambda given_key: given_key == b"known")
    asyncio.run(listener(scope, receive, send))
    return sent


@pytest.mark.parametrize(("method", "path"), sorted(flower.PUBLIC_ROUTES))
def test_public_routes_get_through(method: str, path: str) -> None:
    inner = Inner()
    assert ask(inner, method, path)[0]["status"] == 200
    assert inner.reached == [(method, path)]


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "HEAD", "OPTIONS"]),
    path=st.one_of(
        st.text(min_size=1, max_size=40),
        st.sampled_from(sorted(path for _, path in flower.PUBLIC_ROUTES)).flatmap(
            lambda path: st.sampled_from(
                [path + "/", "/" + path, path.upper(), path + "?x=1", path + "/../start-run", path]
            )
        ),
    ),
)
def test_nothing_else_gets_through(method: str, path: str) -> None:
    inner = Inner()
    answer = ask(inner, method, path)
    if (method, path) in flower.PUBLIC_ROUTES:
        assert inner.reached
    else:
        assert answer[0]["status"] == 404
        assert inner.reached == []


def test_a_request_that_declares_too_large_a_body_is_refused_before_it_is_read() -> None:
    inner = Inner()
    answer = ask(inner, "POST", flower.ACTIVATE_NODE_PATH, length=MAX_REQUEST_BYTES + 1)
    assert answer[0]["status"] == 413
    assert inner.reached == []
    ask(inner, "POST", flower.ACTIVATE_NODE_PATH, length=MAX_REQUEST_BYTES)
    assert len(inner.reached) == 1


def test_a_body_that_never_ends_is_cut_off() -> None:
    taken: list[Any] = []

    async def inner(_scope: Any, receive: Any, _send: Any) -> None:
        while (message := await receive())["type"] == "http.request":
            taken.append(len(message["body"]))

    async def receive() -> Any:
        return {"type": "http.request", "body": bytes(2**20), "more_body": True}

    async def send(_message: Any) -> None: ...

    scope = {"type": "http", "method": "POST", "path": "/v1/fleet/push-object", "headers": []}
    asyncio.run(PublicListener(inner, lambda _: False)(scope, receive, send))
    assert sum(taken) == MAX_REQUEST_BYTES


def test_a_websocket_is_closed() -> None:
    inner = Inner()
    assert ask(inner, "GET", "/health", kind="websocket")[0]["type"] == "websocket.close"
    assert inner.reached == []


@pytest.mark.parametrize(("key", "reason"), [(b"known", b"online"), (b"other", b"unregistered")])
def test_a_refused_activation_is_given_its_reason(key: bytes, reason: bytes) -> None:
    start = ask(Inner(412), "POST", flower.ACTIVATE_NODE_PATH, key=key)[0]
    assert (b"x-nognet-reason", reason) in start["headers"]


@pytest.mark.parametrize("status", [200, 401])
def test_no_reason_is_given_to_who_did_not_sign_or_came_in(status: int) -> None:
    start = ask(Inner(status), "POST", flower.ACTIVATE_NODE_PATH)[0]
    assert start["headers"] == []


@pytest.mark.parametrize("wrong", [[], [(ACCESS_TOKEN_KEY, "")], [(ACCESS_TOKEN_KEY, "tokem")]])
def test_a_wrong_token_is_refused(wrong: list[tuple[str, str]]) -> None:
    assert ControlToken("token").validate_tokens_in_metadata(wrong) == (False, None)


def test_the_right_token_is_admitted() -> None:
    metadata = [(ACCESS_TOKEN_KEY, b"token")]
    admitted, account = ControlToken("token").validate_tokens_in_metadata(metadata)
    assert admitted
    assert account is not None
