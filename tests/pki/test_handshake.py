"""The way to the coordinator: what passes by itself is returned, what needs a person is raised."""

from __future__ import annotations

import datetime as dt
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from nognet.errors import ProvisionError
from nognet.pki import authority
from nognet.pki.authority import CoordinatorFiles, create_coordinator
from nognet.pki.handshake import Reached, Unreachable, reach_coordinator
from tests.builders.tls_server import Server, closed_at_the_end


@pytest.fixture
def files(tmp_path: Path) -> CoordinatorFiles:
    return create_coordinator(tmp_path / "pki", ("127.0.0.1",))


@pytest.fixture
def serve() -> Iterator[list[Server]]:
    with closed_at_the_end() as servers:
        yield servers


def start(servers: list[Server], files: CoordinatorFiles | None, answer: bytes) -> str:
    servers.append(Server(files, answer))
    return servers[-1].address


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


def test_a_healthy_coordinator_is_reached(serve: list[Server], files: CoordinatorFiles) -> None:
    found = reach_coordinator(start(serve, files, OK), files.ca)
    assert isinstance(found, Reached)
    assert found.certificate_ends is not None
    assert (found.clock_ahead_s, found.proxy) == (None, None)


def dated(ahead_s: float) -> bytes:
    """An answer of a coordinator whose clock is behind ours by so much."""
    there = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=ahead_s)
    date = there.strftime("%a, %d %b %Y %H:%M:%S GMT")
    return f"HTTP/1.1 200 OK\r\nDate: {date}\r\ncontent-length: 0\r\n\r\n".encode()


def test_the_clocks_are_compared(serve: list[Server], files: CoordinatorFiles) -> None:
    for ahead_s in (-600.0, 0.0, 600.0):
        found = reach_coordinator(start(serve, files, dated(ahead_s)), files.ca)
        assert isinstance(found, Reached)
        assert found.clock_ahead_s == pytest.approx(ahead_s, abs=2.5)


def test_without_tls_on_loopback(serve: list[Server]) -> None:
    found = reach_coordinator(start(serve, None, OK), None)
    assert isinstance(found, Reached)
    assert found.certificate_ends is None


def test_a_refused_connection_may_pass(files: CoordinatorFiles) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    found = reach_coordinator(f"127.0.0.1:{port}", files.ca)
    assert isinstance(found, Unreachable)
    assert "connection refused" in found.cause


def test_a_silent_address_may_pass(files: CoordinatorFiles) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        found = reach_coordinator(address, files.ca, timeout_s=0.3)
    assert found == Unreachable("no answer (a firewall on the way out?)")


def test_an_unknown_name_may_pass(files: CoordinatorFiles) -> None:
    found = reach_coordinator("nowhere.invalid:9443", files.ca)
    assert isinstance(found, Unreachable)
    assert "can't be resolved" in found.cause


def test_a_proxy_without_its_server_may_pass(serve: list[Server], files: CoordinatorFiles) -> None:
    found = reach_coordinator(start(serve, files, b"HTTP/1.1 502 Bad\r\n\r\n"), files.ca)
    assert isinstance(found, Unreachable)
    assert "proxy" in found.cause


def test_another_ca_is_said_so(
    serve: list[Server], files: CoordinatorFiles, tmp_path: Path
) -> None:
    other = create_coordinator(tmp_path / "other", ("127.0.0.1",))
    with pytest.raises(
        ProvisionError, match=r"not signed by the CA in site\.yaml .*nognet coordinator CA"
    ) as caught:
        reach_coordinator(start(serve, files, OK), other.ca)
    assert caught.value.code == "wrong-ca"


def test_another_name_lists_the_right_ones(serve: list[Server], tmp_path: Path) -> None:
    files = create_coordinator(tmp_path, ("nognet.example.org",))
    with pytest.raises(ProvisionError, match=r"valid for nognet\.example\.org, not for 127"):
        reach_coordinator(start(serve, files, OK), files.ca)


def issue(files: CoordinatorFiles, *, days: int) -> None:
    """Replace the server certificate by one of other dates."""
    loaded = authority.load_authority(files)
    key = ec.generate_private_key(ec.SECP384R1())
    names = authority.subject_alternative_names(("127.0.0.1",))
    certificate = authority.issue_server_certificate(loaded, key.public_key(), names, days=days)
    authority.write_private_key(files.key, key)
    authority._write_certificate(files.certificate, certificate)


def test_a_certificate_of_tomorrow_is_laid_to_the_clock(
    serve: list[Server], files: CoordinatorFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority, "BACKDATED", dt.timedelta(days=-1))
    issue(files, days=10)
    with pytest.raises(ProvisionError, match=r"not valid before .*; set the clock"):
        reach_coordinator(start(serve, files, OK), files.ca)
    with pytest.raises(ProvisionError, match=r"differ by 86[34]\d\d s \(this machine's is behind"):
        reach_coordinator(start(serve, files, dated(-86400)), files.ca)


def test_an_expired_certificate_is_laid_to_a_clock_that_is_ahead(
    serve: list[Server], files: CoordinatorFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority, "BACKDATED", dt.timedelta(days=10))
    issue(files, days=-1)
    with pytest.raises(ProvisionError, match=r"expired on .*is ahead\): synchronise"):
        reach_coordinator(start(serve, files, dated(172_800)), files.ca)


def test_an_expired_certificate_is_said_so(
    serve: list[Server], files: CoordinatorFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority, "BACKDATED", dt.timedelta(days=10))
    issue(files, days=-1)
    with pytest.raises(ProvisionError, match=r"expired on \d{4}-.*--renew"):
        reach_coordinator(start(serve, files, OK), files.ca)


def test_a_port_without_tls_is_said_so(serve: list[Server], files: CoordinatorFiles) -> None:
    plain = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    with pytest.raises(ProvisionError, match=r"answers plain HTTP \(400\); likely a wrong port"):
        reach_coordinator(start(serve, None, plain), files.ca)
    with pytest.raises(ProvisionError, match="doesn't speak TLS: it gives"):
        reach_coordinator(start(serve, None, b"220 mail ready\r\n"), files.ca)


def test_a_connection_that_is_closed_without_a_word_may_pass_by_itself(
    serve: list[Server], files: CoordinatorFiles
) -> None:
    found = reach_coordinator(start(serve, files, b""), files.ca)
    assert isinstance(found, Unreachable)
    assert found.cause.startswith("the connection is taken and closed without an answer")


def test_another_tls_service_is_said_so(serve: list[Server], files: CoordinatorFiles) -> None:
    with pytest.raises(ProvisionError, match="no nognet coordinator"):
        reach_coordinator(start(serve, files, b"HTTP/1.1 404 Not Found\r\n\r\n"), files.ca)
    with pytest.raises(ProvisionError, match="doesn't speak HTTP"):
        reach_coordinator(start(serve, files, b"220 mail ready\r\n"), files.ca)
