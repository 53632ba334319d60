"""A TLS server that answers with fixed bytes, whatever it is asked."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator

from nognet.pki.authority import CoordinatorFiles


class Server:
    """A TLS server that answers every request with fixed bytes."""

    def __init__(self, files: CoordinatorFiles | None, answer: bytes) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.answer = answer
        self.context: ssl.SSLContext | None = None
        if files is not None:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(files.certificate, files.key)
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            try:
                if self.context is not None:
                    connection = self.context.wrap_socket(connection, server_side=True)
                connection.recv(4096)
                connection.sendall(self.answer)
                connection.settimeout(1)
                while connection.recv(4096):  # closed with something unread, it would be reset
                    pass
            except OSError:
                pass  # the client went away: its message is what the tests look at
            finally:
                connection.close()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(timeout=5)


@contextlib.contextmanager
def closed_at_the_end() -> Iterator[list[Server]]:
    """Give a list; whatever server is put into it is closed at the end."""
    servers: list[Server] = []
    try:
        yield servers
    finally:
        for server in servers:
            server.close()
