"""Connections to the public listener: deadlines, a bound on headers, and on strangers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from nognet_server.processes import connections
from nognet_server.processes.connections import (
    ADMITTED_EXTENSION,
    MAX_HEADER_BYTES,
    Strangers,
    public_connections,
)

GET = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADERS_WITHIN_S", 0.3)
    monkeypatch.setattr(connections, "BODY_IDLE_S", 0.3)


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Read the body, then answer its length; admit whoever asks for /admit."""
    if scope["path"] == "/admit":
        scope["extensions"][ADMITTED_EXTENSION]["admit"]()
    length = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return
        length += len(message["body"])
        if not message["more_body"]:
            break
    text = str(length).encode()
    headers = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


def run_with_server(client: Callable[[int], Awaitable[None]]) -> None:
    """Serve on a free port while `client` runs."""

    async def main() -> None:
        config = uvicorn.Config(
            application,
            host="127.0.0.1",
            port=0,
            lifespan="off",
            ws="none",
            log_config=None,
            timeout_graceful_shutdown=1,
            http=public_connections(),  # type: ignore[arg-type]  # called as a class is
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve())
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        if serving.done():
            await serving
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            await asyncio.wait_for(client(port), 10)
        finally:
            server.should_exit = True
            await serving

    asyncio.run(main())


@contextlib.asynccontextmanager
async def dial(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def is_cut(reader: asyncio.StreamReader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(65536), 3) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /hea",
        b"POST /x HTTP/1.1\r\nhost: x\r\nx-slow: 1\r\n",
        b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc",
        b"POST /x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nffff\r\n",
        b"\r\n\r\n",
    ],
)
def test_what_stops_in_the_middle_is_cut(sent: bytes) -> None:
    async def client(port: int) -> None:
        async with dial(port) as (reader, writer):
            writer.write(sent)
            assert await is_cut(reader)

    run_with_server(client)


def test_headers_that_drip_are_cut_all_the_same() -> None:
    async def client(port: int) -> None:
        async with dial(port) as (reader, writer):
            cut = asyncio.create_task(is_cut(reader))
            writer.write(b"POST /x HTTP/1.1\r\n")
            for number in range(40):
                if cut.done():
                    break
                writer.write(b"x-%d: 1\r\n" % number)
                await asyncio.sleep(0.05)
            assert await cut
            assert number < 20

    run_with_server(client)


def test_a_body_that_moves_slowly_is_waited_for() -> None:
    async def client(port: int) -> None:
        async with dial(port) as (reader, writer):
            writer.write(b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 8\r\n\r\n")
            for _ in range(8):
                await asyncio.sleep(0.1)
                writer.write(b"a")
            assert (await reader.read(4096)).endswith(b"8")

    run_with_server(client)


def test_headers_without_end_are_cut_by_their_size() -> None:
    async def client(port: int) -> None:
        async with dial(port) as (reader, writer):
            writer.write(b"GET /health HTTP/1.1\r\nx: " + b"a" * (MAX_HEADER_BYTES + 1))
            started = asyncio.get_running_loop().time()
            assert await is_cut(reader)
            assert asyncio.get_running_loop().time() - started < 0.25

    run_with_server(client)


def test_empty_lines_after_an_answer_dont_hold_a_connection() -> None:
    async def client(port: int) -> None:
        async with dial(port) as (reader, writer):
            writer.write(GET)
            assert b"200" in await reader.read(4096)
            writer.write(b"\r\n")
            assert await is_cut(reader)

    run_with_server(client)


def test_requests_one_after_the_other_share_a_connection() -> None:
    async def client(port: int) -> None:
        async with dial(port) as (reader, writer):
            for _ in range(3):
                writer.write(GET)
                assert b"200" in await reader.read(4096)
                await asyncio.sleep(0.2)

    run_with_server(client)


def test_of_too_many_strangers_the_oldest_is_cut_and_who_was_admitted_stays() -> None:
    cut: list[str] = []
    strangers = Strangers(limit=2)
    for name in ("a", "b", "c"):
        strangers.add(name, lambda name=name: cut.append(name))  # type: ignore[misc]  # bound now
        if name == "a":
            strangers.remove("a")
    assert cut == []
    strangers.add("d", lambda: cut.append("d"))
    assert cut == ["b"]


def test_a_connection_on_which_a_site_signed_is_no_stranger(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections.Strangers.__init__, "__defaults__", (2,))

    async def client(port: int) -> None:
        async with dial(port) as (reader, writer):
            writer.write(GET.replace(b"/health", b"/admit"))
            assert b"200" in await reader.read(4096)
            async with contextlib.AsyncExitStack() as stack:
                others = [await stack.enter_async_context(dial(port)) for _ in range(5)]
                await asyncio.sleep(0.1)
                assert [await is_cut(r) for r, _ in others[:3]] == [True] * 3
                writer.write(GET)
                assert b"200" in await reader.read(4096)

    run_with_server(client)
