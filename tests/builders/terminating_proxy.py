"""A reverse proxy in front of the coordinator: TLS ends at it, under a certificate of its own."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nognet.pki.authority import (
    CoordinatorFiles,
    issue_server_certificate,
    load_authority,
    subject_alternative_names,
    write_private_key,
)


class TerminatingProxy:
    """Listens on a loopback port that stays the same over restarts.

    Attributes:
        port: Where it listens.
        served: Connections that it has passed on, all lives together.
    """

    def __init__(self, files: CoordinatorFiles, target_port: int, folder: Path) -> None:
        self.target_port, self.port, self.served = target_port, 0, 0
        self._near = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._near.load_cert_chain(*_own_certificate(files, folder))
        self._far = ssl.create_default_context(cafile=str(files.ca))

    def __enter__(self) -> Self:
        """Serve until the block ends."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End all connections and stop listening."""
        self.stop()

    def start(self) -> None:
        """Listen, on the same port as before."""
        up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(up)))
        self._thread.start()
        if not up.wait(10):
            raise TimeoutError(f"the proxy does not listen on port {self.port}")

    def stop(self) -> None:
        """End all connections at once; new ones are refused."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(10)

    async def _serve(self, up: threading.Event) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(
            self._connected, "127.0.0.1", self.port, ssl=self._near, backlog=64
        )
        self.port = server.sockets[0].getsockname()[1]
        up.set()
        await self._stopping.wait()
        server.close()  # asyncio.run then cancels what is still passed on

    async def _connected(self, near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            await self._pass_on(near, to_near)
        to_near.transport.abort()

    async def _pass_on(self, near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        try:
            far, to_far = await asyncio.open_connection(
                "127.0.0.1", self.target_port, ssl=self._far, server_hostname="127.0.0.1"
            )
        except OSError:  # the coordinator is not up
            await near.readuntil(b"\r\n\r\n")
            to_near.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            await to_near.drain()
            to_near.close()
            return await to_near.wait_closed()
        self.served += 1
        ways = [
            asyncio.ensure_future(_pump(near, to_far)),
            asyncio.ensure_future(_pump(far, to_near)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            to_far.transport.abort()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()


def _own_certificate(files: CoordinatorFiles, folder: Path) -> tuple[Path, Path]:
    """Issue a certificate for 127.0.0.1 from the project's CA, with a key of the proxy's own."""
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP384R1())
    names = subject_alternative_names(("127.0.0.1",))
    certificate = issue_server_certificate(load_authority(files), key.public_key(), names, days=9)
    (folder / "proxy.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    write_private_key(folder / "proxy.key", key)
    return folder / "proxy.crt", folder / "proxy.key"
