"""A TCP link between a site and its coordinator: slow, watched, cut, impatient with silence."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

_CHUNK = 16_384


class Link:
    """Pass connections on to a port, at a rate, and count what passes.

    Args:
        target_port: Where it leads to.
        bytes_per_s: In each direction, shared by all connections.
        idle_s: A connection on which nothing has passed for so long is cut, as firewalls do.

    Attributes:
        port: Where it listens.
        idle_cuts: Connections cut because nothing passed.
        down_bytes: Passed on to the site.
        up_bytes: Passed on to the coordinator.
    """

    def __init__(
        self, target_port: int, *, bytes_per_s: float | None = None, idle_s: float | None = None
    ) -> None:
        self.target_port, self.bytes_per_s, self.idle_s = target_port, bytes_per_s, idle_s
        self.down_bytes = self.up_bytes = self.idle_cuts = 0
        self._free_at = {True: 0.0, False: 0.0}
        self._is_cut = threading.Event()
        self._closed = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections, and every new one, until `mend`."""
        self._is_cut.set()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let connections through again."""
        self._is_cut.clear()

    def wait_for_bytes(self, *, down: int = 0, up: int = 0, timeout_s: float = 60.0) -> None:
        """Wait until so many more bytes have passed.

        Raises:
            TimeoutError: they have not.
        """
        down, up = self.down_bytes + down, self.up_bytes + up
        deadline = time.monotonic() + timeout_s
        while self.down_bytes < down or self.up_bytes < up:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.down_bytes} of {down} down, {self.up_bytes} of {up} up")
            time.sleep(0.005)

    def close(self) -> None:
        """End everything."""
        self._closed.set()
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._is_cut.is_set():
                near.close()
                continue
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(("127.0.0.1", self.target_port), timeout=10)
        except OSError:
            near.close()
            return
        far.settimeout(None)
        with self._lock:
            self._open |= {near, far}
        watched = _Silence()
        up = threading.Thread(target=self._pump, args=(near, far, True, watched), daemon=True)
        up.start()
        self._pump(far, near, False, watched)
        up.join()
        with self._lock:
            self._open -= {near, far}
        near.close()
        far.close()

    def _pump(
        self, source: socket.socket, sink: socket.socket, is_up: bool, watched: _Silence
    ) -> None:
        with contextlib.suppress(OSError):
            while data := self._receive(source, watched):
                time.sleep(self._turn_s(len(data), is_up))
                sink.sendall(data)
                watched.since = time.monotonic()
                with self._lock:
                    self.up_bytes += len(data) if is_up else 0
                    self.down_bytes += 0 if is_up else len(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _receive(self, source: socket.socket, watched: _Silence) -> bytes:
        """Take what comes; nothing once the connection has ended or was silent for too long."""
        while self.idle_s is not None and not select.select([source], [], [], 0.1)[0]:
            if time.monotonic() - watched.since >= self.idle_s:
                with self._lock:
                    self.idle_cuts += not watched.is_cut
                    watched.is_cut = True
                return b""
        return source.recv(_CHUNK)

    def _turn_s(self, size: int, is_up: bool) -> float:
        """Give the seconds until so many bytes have passed; one direction is one queue."""
        if self.bytes_per_s is None:
            return 0.0
        now = time.monotonic()
        with self._lock:
            free_at = max(now, self._free_at[is_up]) + size / self.bytes_per_s
            self._free_at[is_up] = free_at
        return free_at - now


@dataclass
class _Silence:
    """Since when nothing has passed on a connection, in neither direction."""

    since: float = field(default_factory=time.monotonic)
    is_cut: bool = False


@contextlib.contextmanager
def linked(
    target_port: int, *, bytes_per_s: float | None = None, idle_s: float | None = None
) -> Iterator[Link]:
    """Open a link, and close it at the end."""
    link = Link(target_port, bytes_per_s=bytes_per_s, idle_s=idle_s)
    try:
        yield link
    finally:
        link.close()
