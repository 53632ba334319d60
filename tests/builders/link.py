"""A TCP link between a site and its coordinator that can be slow, be watched and be cut."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

_CHUNK = 16_384


class Link:
    """Pass connections on to a port, at a rate, and count what passes.

    Attributes:
        port: Where it listens.
        down_bytes: Passed on to the site.
        up_bytes: Passed on to the coordinator.
    """

    def __init__(self, target_port: int, *, bytes_per_s: float | None = None) -> None:
        self.target_port, self.bytes_per_s = target_port, bytes_per_s
        self.down_bytes = self.up_bytes = 0
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
        up = threading.Thread(target=self._pump, args=(near, far, True), daemon=True)
        up.start()
        self._pump(far, near, False)
        up.join()
        with self._lock:
            self._open -= {near, far}
        near.close()
        far.close()

    def _pump(self, source: socket.socket, sink: socket.socket, is_up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                if self.bytes_per_s is not None:
                    time.sleep(len(data) / self.bytes_per_s)
                sink.sendall(data)
                with self._lock:
                    self.up_bytes += len(data) if is_up else 0
                    self.down_bytes += 0 if is_up else len(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def linked(target_port: int, *, bytes_per_s: float | None = None) -> Iterator[Link]:
    """Open a link, and close it at the end."""
    link = Link(target_port, bytes_per_s=bytes_per_s)
    try:
        yield link
    finally:
        link.close()
