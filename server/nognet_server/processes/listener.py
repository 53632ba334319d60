"""What the public listener lets through to SuperLink: a closed list of routes, for signed requests.

    connection (deadlines) -> route -> declared length -> signature -> sender -> SuperLink

Whoever is not a registered site gets a short answer and a closed connection, and not a byte of a
body is read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from nognet_server.processes import flower_internals as flower
from nognet_server.processes.admission import Admission, Verdict
from nognet_server.processes.connections import ADMITTED_EXTENSION

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_REQUEST_BYTES = 32 * 1024 * 1024
"""Flower sends arrays in chunks of 20 MiB; it reads a body whole before it looks who sent it."""
HEALTH_ROUTE = ("GET", "/health")
REASON_HEADER = b"x-nognet-reason"
UNREGISTERED, ONLINE = b"unregistered", b"online"
_CLOSE = (b"connection", b"close")


class PublicListener:
    """Let through what registered sites ask for, and refuse everything else.

    A refused activation is given its reason (Flower answers both alike): the key is registered
    nowhere, or its site is online already. Only who signed the request with that key gets so far.
    """

    def __init__(self, application: Application, admission: Admission) -> None:
        self.application = application
        self.admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        route = (scope.get("method"), scope.get("path"))
        if scope["type"] != "http" or route not in flower.PUBLIC_ROUTES:
            await _answer_not_found(scope, send)
        elif _declared_bytes(scope) > MAX_REQUEST_BYTES:
            await _answer(send, 413, b"too large")
        elif route == HEALTH_ROUTE:
            await self.application(scope, receive, send)
        else:
            await self._serve_signed(scope, receive, send)

    async def _serve_signed(self, scope: Scope, receive: Receive, send: Send) -> None:
        signed, verdict = await asyncio.to_thread(self.admission.examine, scope["headers"])
        activates = scope["path"] == flower.ACTIVATE_NODE_PATH
        if verdict is Verdict.UNREGISTERED and activates:
            await _answer(send, 412, b"unregistered", (REASON_HEADER, UNREGISTERED))
            return
        if verdict is not Verdict.ADMITTED or signed is None or not self.admission.take(signed):
            await _answer(send, 401, b"not signed by a registered site")
            return
        for admit in scope.get("extensions", {}).get(ADMITTED_EXTENSION, {}).values():
            admit()
        limited = _limited(receive)
        if scope["path"] == flower.PUSH_MESSAGES_PATH:
            body = await _read(limited)
            if body is None or flower.speaks_for_another(body):
                await _answer(send, 403, b"a site answers for itself only")
                return
            limited = _given(body, limited)
        await self.application(scope, limited, _with_reason(send) if activates else send)


def _with_reason(send: Send) -> Send:
    """Say of a registered site's refused activation that the site is online already."""

    async def send_with_reason(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 412:
            headers = [*message.get("headers", []), (REASON_HEADER, ONLINE)]
            message = {**message, "headers": headers}
        await send(message)

    return send_with_reason


def _declared_bytes(scope: Scope) -> int:
    """Read a request's Content-Length; 0 without one, too much where it is no number."""
    declared = 0
    for name, value in scope["headers"]:
        if name == b"content-length":
            with contextlib.suppress(ValueError):
                declared = max(declared, int(value))
                continue
            return MAX_REQUEST_BYTES + 1
    return declared


def _limited(receive: Receive) -> Receive:
    """Cut the connection of a request whose body, of no declared length, grows too large."""
    received = 0

    async def receive_limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        return message if received <= MAX_REQUEST_BYTES else {"type": "http.disconnect"}

    return receive_limited


async def _read(receive: Receive) -> bytes | None:
    """Read a body whole; None if it was cut off."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _given(body: bytes, receive: Receive) -> Receive:
    """Hand a body out that was read already; then what comes after it."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_given() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_given


async def _answer_not_found(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await _answer(send, 404, b"not found")


async def _answer(send: Send, status: int, text: bytes, *headers: tuple[bytes, bytes]) -> None:
    length = str(len(text)).encode("ascii")
    fixed = ((b"content-type", b"text/plain"), (b"content-length", length), _CLOSE)
    start = {"type": "http.response.start", "status": status, "headers": [*fixed, *headers]}
    await send(start)
    await send({"type": "http.response.body", "body": text})
