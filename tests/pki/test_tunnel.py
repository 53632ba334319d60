"""The way out through a hospital's proxy, and what is said when it is closed."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from nognet.errors import ProvisionError
from nognet.pki.authority import CoordinatorFiles, create_coordinator
from nognet.pki.handshake import Reached, Unreachable, reach_coordinator
from nognet.pki.tunnel import Proxy, is_loopback, proxy_for
from tests.builders.proxy import TunnelProxy
from tests.builders.tls_server import Server
from tests.pki.test_handshake import OK

NAME = "coordinator.test:9443"
VARIABLES = ("https_proxy", "http_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)


@pytest.fixture
def files(tmp_path: Path) -> CoordinatorFiles:
    return create_coordinator(tmp_path / "pki", ("coordinator.test",))


def test_the_coordinator_is_reached_through_the_proxy(
    files: CoordinatorFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(files, OK)
    host, _, port = server.address.rpartition(":")
    with TunnelProxy({NAME: (host, int(port))}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("://", "://user:pass%3Aword@"))
        found = reach_coordinator(NAME, files.ca)
    server.close()
    assert isinstance(found, Reached)
    assert found.proxy == f"127.0.0.1:{proxy.port}"
    assert "Proxy-Authorization: Basic dXNlcjpwYXNzOndvcmQ=" in proxy.asked[0]


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ("407 Proxy Authentication Required", r"refuses coordinator.*407.*put user and password"),
        ("403 Forbidden", r"refuses coordinator\.test:9443: 403 Forbidden; have .* allowed there"),
    ],
)
def test_a_proxy_that_refuses_needs_a_person(
    files: CoordinatorFiles, monkeypatch: pytest.MonkeyPatch, refusal: str, words: str
) -> None:
    with TunnelProxy({}, refusal) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(ProvisionError, match=words) as refused:
            reach_coordinator(NAME, files.ca)
    assert refused.value.code == "proxy-refuses"


def test_a_proxy_that_reaches_nothing_may_pass(
    files: CoordinatorFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TunnelProxy({}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        found = reach_coordinator(NAME, files.ca)
    assert isinstance(found, Unreachable)
    assert found.cause.endswith(f"can't reach {NAME}: 502 Bad Gateway")
    gone = reach_coordinator(NAME, files.ca)
    assert isinstance(gone, Unreachable)
    assert "of HTTPS_PROXY can't be reached (Connection refused)" in gone.cause


def test_what_is_no_proxy_is_told(files: CoordinatorFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(None, b"220 mail ready\r\n")
    monkeypatch.setenv("HTTPS_PROXY", f"http://{server.address}")
    found = reach_coordinator(NAME, files.ca)
    server.close()
    assert isinstance(found, Unreachable)
    assert "gives no HTTP answer" in found.cause


def test_the_wrong_certificate_is_seen_through_a_proxy_too(
    files: CoordinatorFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = create_coordinator(tmp_path / "other", ("coordinator.test",))
    server = Server(other, OK)
    host, _, port = server.address.rpartition(":")
    with TunnelProxy({NAME: (host, int(port))}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(ProvisionError, match="inspects TLS"):
            reach_coordinator(NAME, files.ca)
    server.close()


def test_loopback_never_goes_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    assert [proxy_for(host) for host in ("127.0.0.1", "127.8.8.8", "localhost")] == [None] * 3
    assert proxy_for("example.org") == Proxy("proxy", 3128)
    assert [is_loopback(host) for host in ("127.0.0.1", "10.0.0.1", "::1")] == [True, False, True]


def test_no_proxy_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "proxy:3128")
    monkeypatch.setenv("NO_PROXY", "intranet.org,10.0.0.1")
    assert proxy_for("nognet.intranet.org") is None
    assert proxy_for("10.0.0.1") is None
    assert proxy_for("example.org") == Proxy("proxy", 3128)


@pytest.mark.parametrize("url", ["socks5://proxy:1080", "https://proxy:3128"])
def test_another_kind_of_proxy_is_said_so(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", url)
    with pytest.raises(ProvisionError, match="expected http://host:port"):
        proxy_for("example.org")


def test_nothing_is_left_open_where_the_way_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
    found = reach_coordinator(NAME, None)
    assert isinstance(found, Unreachable)
