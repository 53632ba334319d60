"""The way to the coordinator: what passes by itself is returned, what needs a person is raised."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from nognet.errors import ProvisionError
from nognet.pki import authority
from nognet.pki.authority import CoordinatorFiles, create_coordinator
from nognet.pki.handshake import Unreachable, probe_coordinator


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
            except OSError:
                pass  # the client went away: its message is what the tests look at
            finally:
                connection.close()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(timeout=5)


@pytest.fixture
def files(tmp_path: Path) -> CoordinatorFiles:
    return create_coordinator(tmp_path / "pki", ("127.0.0.1",))


@pytest.fixture
def serve() -> Iterator[list[Server]]:
    servers: list[Server] = []
    yield servers
    for server in servers:
        server.close()


def start(servers: list[Server], files: CoordinatorFiles | None, answer: bytes) -> str:
    servers.append(Server(files, answer))
    return servers[-1].address


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


def test_a_healthy_coordinator_gives_none(serve: list[Server], files: CoordinatorFiles) -> None:
    assert probe_coordinator(start(serve, files, OK), files.ca) is None


def test_a_refused_connection_may_pass(files: CoordinatorFiles) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    found = probe_coordinator(f"127.0.0.1:{port}", files.ca)
    assert isinstance(found, Unreachable)
    assert "connection refused" in found.cause


def test_a_silent_address_may_pass(files: CoordinatorFiles) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        found = probe_coordinator(address, files.ca, timeout_s=0.3)
    assert found == Unreachable("no answer (a firewall on the way out?)")


def test_an_unknown_name_may_pass(files: CoordinatorFiles) -> None:
    found = probe_coordinator("nowhere.invalid:9443", files.ca)
    assert isinstance(found, Unreachable)
    assert "can't be resolved" in found.cause


def test_a_proxy_without_its_server_may_pass(serve: list[Server], files: CoordinatorFiles) -> None:
    found = probe_coordinator(start(serve, files, b"HTTP/1.1 502 Bad\r\n\r\n"), files.ca)
    assert isinstance(found, Unreachable)
    assert "proxy" in found.cause


def test_another_ca_is_said_so(
    serve: list[Server], files: CoordinatorFiles, tmp_path: Path
) -> None:
    other = create_coordinator(tmp_path / "other", ("127.0.0.1",))
    with pytest.raises(
        ProvisionError, match=r"not signed by the CA in site\.yaml .*nognet coordinator CA"
    ) as caught:
        probe_coordinator(start(serve, files, OK), other.ca)
    assert caught.value.code == "wrong-ca"


def test_another_name_lists_the_right_ones(serve: list[Server], tmp_path: Path) -> None:
    files = create_coordinator(tmp_path, ("nognet.example.org",))
    with pytest.raises(ProvisionError, match=r"valid for nognet\.example\.org, not for 127"):
        probe_coordinator(start(serve, files, OK), files.ca)


def test_an_expired_certificate_is_said_so(
    serve: list[Server], files: CoordinatorFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority, "BACKDATED", dt.timedelta(days=10))
    loaded = authority.load_authority(files)
    key = ec.generate_private_key(ec.SECP384R1())
    names = authority.subject_alternative_names(("127.0.0.1",))
    expired = authority.issue_server_certificate(loaded, key.public_key(), names, days=-1)
    authority.write_private_key(files.key, key)
    authority._write_certificate(files.certificate, expired)
    with pytest.raises(ProvisionError, match=r"expired on \d{4}-.*--renew"):
        probe_coordinator(start(serve, files, OK), files.ca)


def test_a_port_without_tls_is_said_so(serve: list[Server], files: CoordinatorFiles) -> None:
    with pytest.raises(ProvisionError, match=r"doesn't speak TLS .*wrong port"):
        probe_coordinator(start(serve, None, b"HTTP/1.1 400 Bad Request\r\n\r\n"), files.ca)


def test_another_tls_service_is_said_so(serve: list[Server], files: CoordinatorFiles) -> None:
    with pytest.raises(ProvisionError, match="no nognet coordinator"):
        probe_coordinator(start(serve, files, b"HTTP/1.1 404 Not Found\r\n\r\n"), files.ca)
    with pytest.raises(ProvisionError, match="but not HTTP"):
        probe_coordinator(start(serve, files, b"220 mail ready\r\n"), files.ca)
