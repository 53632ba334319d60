"""Connections of the public listener: none may wait for ever, none fills the memory.

uvicorn gives a connection as long as it likes to send a request's headers and body, and any number
of bytes for the headers. A few thousand idle connections would then keep the hospitals out.
"""

from __future__ import annotations

import asyncio
import asyncio.constants
import resource
from asyncio import TimerHandle
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADERS_WITHIN_S = 10.0
"""A TLS handshake, and the headers of a request, have so long each."""
BODY_IDLE_S = 60.0
"""A body may take long over a hospital's line, but not without a byte for so long."""
MAX_HEADER_BYTES = 16 * 1024
MAX_STRANGERS = 256
"""Connections on which no site has signed yet; beyond, the oldest is cut."""
ADMITTED_EXTENSION = "nognet.admitted"


class Strangers:
    """The connections on which nobody has signed yet, oldest first."""

    def __init__(self, limit: int = MAX_STRANGERS) -> None:
        self.limit = limit
        self._cuts: dict[object, Callable[[], None]] = {}

    def add(self, connection: object, cut: Callable[[], None]) -> None:
        """Count a new connection in; cut the oldest if there are too many."""
        self._cuts[connection] = cut
        if len(self._cuts) > self.limit:
            oldest = next(iter(self._cuts))
            self._cuts.pop(oldest)()

    def remove(self, connection: object) -> None:
        """Count a connection out: it has ended, or a site has signed on it."""
        self._cuts.pop(connection, None)


class PublicConnection(HttpToolsProtocol):
    """uvicorn's HTTP connection with deadlines and a bound on the headers."""

    def __init__(self, *, strangers: Strangers, **arguments: Any) -> None:  # noqa: ANN401  uvicorn's
        super().__init__(**arguments)
        self._strangers = strangers
        self._timer: TimerHandle | None = None
        self._in_headers = True
        self._header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Give the first headers their time."""
        super().connection_made(transport)
        self._strangers.add(self, self._cut)
        self._arm(HEADERS_WITHIN_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._disarm()
        self._strangers.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count bytes of headers; a body that moves has its time anew."""
        if self._in_headers:
            self._header_bytes += len(data)
        elif self._timer is not None:
            self._arm(BODY_IDLE_S)
        super().data_received(data)
        if self._in_headers and self._header_bytes > MAX_HEADER_BYTES:
            self._cut()
        elif self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._arm(HEADERS_WITHIN_S)  # bytes that begin no request: empty lines

    def on_message_begin(self) -> None:
        """Begin a request: its headers have their time."""
        super().on_message_begin()
        self._in_headers = True
        self.scope["extensions"] = {ADMITTED_EXTENSION: {"admit": self._admit}}
        self._arm(HEADERS_WITHIN_S)

    def on_headers_complete(self) -> None:
        """Begin the body."""
        self._in_headers = False
        self._header_bytes = 0
        self._arm(BODY_IDLE_S)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the request: the answer may take its time."""
        self._disarm()
        super().on_message_complete()

    def _admit(self) -> None:
        self._strangers.remove(self)

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = self.loop.call_later(seconds, self._cut)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cut(self) -> None:
        if self.transport is not None:
            self.transport.abort()


def public_connections() -> Callable[..., PublicConnection]:
    """Make the factory of one listener's connections."""
    strangers = Strangers()

    def connect(**arguments: Any) -> PublicConnection:  # noqa: ANN401  uvicorn's
        return PublicConnection(strangers=strangers, **arguments)

    return connect


def make_room() -> None:
    """Shorten the handshake's time and allow as many open files as the machine lets us."""
    # asyncio's own default is a minute; uvicorn passes none of its own
    asyncio.constants.SSL_HANDSHAKE_TIMEOUT = HEADERS_WITHIN_S
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
