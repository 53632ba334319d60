"""A hospital's HTTP proxy: opens tunnels (CONNECT), can refuse, and can be cut."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping
from typing import Self


class TunnelProxy:
    """Listens on a loopback port; resolves the names that it is told, and no others.

    Attributes:
        targets: ``host:port`` as asked for -> where it leads.
        refusal: Status line to answer with in place of a tunnel.
        asked: What was asked for, with its headers.
    """

    def __init__(self, targets: Mapping[str, tuple[str, int]], refusal: str | None = None) -> None:
        self.targets = targets
        self.refusal = refusal
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        """The proxy, as HTTPS_PROXY names it."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        """Serve until the block ends."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all tunnels and stop listening."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(timeout=5)

    def cut(self) -> None:
        """End all tunnels at once, as a restart does."""
        for opened in self._open:
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()
        self._open.clear()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(client)
            self._start(self._tunnel, client)

    def _start(self, work: object, *arguments: object) -> None:
        assert callable(work)
        self._threads.append(threading.Thread(target=work, args=arguments))
        self._threads[-1].start()

    def _tunnel(self, client: socket.socket) -> None:
        try:
            head = b""
            while b"\r\n\r\n" not in head:
                part = client.recv(4096)
                if not part:
                    return
                head += part
            text = head.decode("latin-1")
            self.asked.append(text)
            if self.refusal is not None:
                client.sendall(f"HTTP/1.1 {self.refusal}\r\n\r\n".encode())
                client.close()
                return
            target = self.targets[text.split()[1]]
            server = socket.create_connection(target, timeout=10)
            self._open.append(server)
            server.settimeout(None)
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            self._start(_pump, server, client)
            _pump(client, server)
        except (OSError, KeyError):
            with contextlib.suppress(OSError):
                client.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            client.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
