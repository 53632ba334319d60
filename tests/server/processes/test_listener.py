"""The public listener's filter, without a network."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import Message, Metadata
from flwr.proto.node_pb2 import Node
from hypothesis import given
from hypothesis import strategies as st
from nognet_server.processes import flower_internals as flower
from nognet_server.processes.admission import Admission
from nognet_server.processes.connections import ADMITTED_EXTENSION
from nognet_server.processes.listener import MAX_REQUEST_BYTES, PublicListener

from tests.builders.signed import new_key, pem, raw, signed_headers

SITE, STRANGER = new_key(), new_key()
SIGNED_ROUTES = sorted(path for method, path in flower.PUBLIC_ROUTES if method == "POST")


class Inner:
    """An application that remembers what reached it and answers with a status."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.reached: list[tuple[str, str]] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached.append((scope["method"], scope["path"]))
        self.bodies.append((await receive()).get("body", b""))
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class Ask:
    """One request through the filter."""

    def __init__(
        self,
        inner: Any,
        method: str,
        path: str,
        *,
        kind: str = "http",
        key: ec.EllipticCurvePrivateKey | None = SITE,
        length: str = "0",
        body: bytes = b"",
    ) -> None:
        self.sent: list[dict[str, Any]] = []
        self.reads = 0
        self.admitted = 0
        self.body = body
        headers = raw(signed_headers(key)) if key is not None else []
        scope = {
            "type": kind,
            "method": method,
            "path": path,
            "headers": [*headers, (b"content-length", length.encode())],
            "extensions": {ADMITTED_EXTENSION: {"admit": self._admit}},
        }
        listener = PublicListener(inner, Admission(lambda given_key: given_key == pem(SITE)))
        asyncio.run(listener(scope, self._receive, self._send))

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return list(self.sent[0]["headers"])

    def _admit(self) -> None:
        self.admitted += 1

    async def _send(self, message: Any) -> None:
        self.sent.append(message)

    async def _receive(self) -> Any:
        self.reads += 1
        return {"type": "http.request", "body": self.body, "more_body": False}


@pytest.mark.parametrize(("method", "path"), sorted(flower.PUBLIC_ROUTES))
def test_public_routes_get_through(method: str, path: str) -> None:
    inner = Inner()
    assert Ask(inner, method, path).status == 200
    assert inner.reached == [(method, path)]


def test_health_needs_no_signature() -> None:
    assert Ask(Inner(), "GET", "/health", key=None).status == 200


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
    answer = Ask(inner, method, path)
    if (method, path) in flower.PUBLIC_ROUTES:
        assert inner.reached
    else:
        assert answer.status == 404
        assert inner.reached == []


@pytest.mark.parametrize("path", SIGNED_ROUTES)
@pytest.mark.parametrize("key", [None, STRANGER])
def test_of_a_stranger_no_byte_of_the_body_is_read(
    path: str, key: ec.EllipticCurvePrivateKey | None
) -> None:
    inner = Inner()
    answer = Ask(inner, "POST", path, key=key)
    expected = 412 if key is not None and path == flower.ACTIVATE_NODE_PATH else 401
    assert (answer.status, answer.reads, answer.admitted, inner.reached) == (expected, 0, 0, [])
    assert (b"connection", b"close") in answer.headers


def test_a_site_that_signed_is_no_stranger_to_its_connection() -> None:
    assert Ask(Inner(), "POST", "/v1/fleet/pull-messages").admitted == 1


def test_a_request_sent_twice_is_refused_the_second_time() -> None:
    inner, sent = Inner(), []

    async def send(message: Any) -> None:
        sent.append(message.get("status"))

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    headers = raw(signed_headers(SITE))
    scope = {"type": "http", "method": "POST", "path": SIGNED_ROUTES[0], "headers": headers}
    listener = PublicListener(inner, Admission(lambda _key: True))
    for _ in range(2):
        asyncio.run(listener(dict(scope), receive, send))
    assert [status for status in sent if status is not None] == [200, 401]
    assert len(inner.reached) == 1


@pytest.mark.parametrize(
    "length", [str(MAX_REQUEST_BYTES + 1), "9" * 30, "many", "-", "0x10", "1e9"]
)
def test_a_request_that_declares_too_large_a_body_is_refused_before_it_is_read(length: str) -> None:
    inner = Inner()
    answer = Ask(inner, "POST", flower.ACTIVATE_NODE_PATH, length=length)
    assert (answer.status, answer.reads, inner.reached) == (413, 0, [])


def test_the_largest_body_is_let_through() -> None:
    inner = Inner()
    Ask(inner, "POST", "/v1/fleet/push-object", length=str(MAX_REQUEST_BYTES))
    assert len(inner.reached) == 1


@pytest.mark.parametrize("path", ["/v1/fleet/push-object", flower.PUSH_MESSAGES_PATH])
def test_a_body_that_never_ends_is_cut_off(path: str) -> None:
    taken: list[Any] = []

    async def inner(_scope: Any, receive: Any, _send: Any) -> None:
        while (message := await receive())["type"] == "http.request":
            taken.append(len(message["body"]))

    async def receive() -> Any:
        return {"type": "http.request", "body": bytes(2**20), "more_body": True}

    async def send(_message: Any) -> None: ...

    headers = raw(signed_headers(SITE))
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    asyncio.run(PublicListener(inner, Admission(lambda _key: True))(scope, receive, send))
    assert sum(taken) == (0 if path == flower.PUSH_MESSAGES_PATH else MAX_REQUEST_BYTES)


@pytest.mark.parametrize(("author", "status"), [(7, 200), (8, 403), (0, 403)])
def test_a_site_answers_for_itself_only(author: int, status: int) -> None:
    inner = Inner()
    reply = Message(metadata=Metadata(src_node_id=author))
    body = PushMessagesRequest(node=Node(node_id=7), messages_list=[reply]).SerializeToString()
    assert Ask(inner, "POST", flower.PUSH_MESSAGES_PATH, body=body).status == status
    assert inner.bodies == ([body] if status == 200 else [])


def test_a_body_that_is_no_message_is_left_to_superlink() -> None:
    inner = Inner(400)
    assert Ask(inner, "POST", flower.PUSH_MESSAGES_PATH, body=b"\xff\xff").status == 400
    assert inner.bodies == [b"\xff\xff"]


def test_a_websocket_is_closed() -> None:
    inner = Inner()
    assert Ask(inner, "GET", "/health", kind="websocket").sent[0]["type"] == "websocket.close"
    assert inner.reached == []


@pytest.mark.parametrize(("key", "reason"), [(SITE, b"online"), (STRANGER, b"unregistered")])
def test_a_refused_activation_is_given_its_reason(
    key: ec.EllipticCurvePrivateKey, reason: bytes
) -> None:
    answer = Ask(Inner(412), "POST", flower.ACTIVATE_NODE_PATH, key=key)
    assert answer.status == 412
    assert (b"x-nognet-reason", reason) in answer.headers


@pytest.mark.parametrize("status", [200, 401])
def test_no_reason_is_given_to_who_came_in_or_was_refused_otherwise(status: int) -> None:
    assert Ask(Inner(status), "POST", flower.ACTIVATE_NODE_PATH).headers == []
