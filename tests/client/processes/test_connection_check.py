"""The check of the connection, step by step, against small TLS servers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest
from nognet_client.processes.connection_check import Step, check_steps

from nognet.config import ServerLinkConfig, SiteConfig
from nognet.pki.authority import CoordinatorFiles, create_coordinator
from nognet.pki.site_keys import create_site_key
from tests.builders.tls_server import Server, closed_at_the_end


@pytest.fixture
def files(tmp_path: Path) -> CoordinatorFiles:
    return create_coordinator(tmp_path / "pki", ("127.0.0.1",))


@pytest.fixture
def serve() -> Iterator[list[Server]]:
    with closed_at_the_end() as servers:
        yield servers


def answer(status: str, ahead_s: float = 0.0, *headers: str) -> bytes:
    there = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=ahead_s)
    date = there.strftime("Date: %a, %d %b %Y %H:%M:%S GMT")
    lines = [f"HTTP/1.1 {status}", date, "Content-Length: 0", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def steps(
    servers: list[Server], files: CoordinatorFiles, tmp_path: Path, health: bytes, signed: bytes
) -> list[Step]:
    """Check against a server that answers /health and a signed request."""
    servers.append(Server(files, health))
    server = servers[-1]
    private, _ = create_site_key("hospital_a", tmp_path / "keys")
    link = ServerLinkConfig(address=server.address, ca=files.ca, key=private)
    site = SiteConfig(name="hospital_a", studies=tmp_path / "studies.csv", server=link)
    found = []
    for step in check_steps(site):
        found.append(step)
        if step.name == "clock":
            server.answer = signed
    return found


@pytest.mark.parametrize(
    ("signed", "code", "words"),
    [
        (answer("400 Bad Request"), None, "the coordinator knows this site's key"),
        (
            answer("412 Precondition Failed", 0.0, "x-nognet-reason: unregistered"),
            "unregistered",
            "doesn't know the key",
        ),
        (answer("401 Unauthorized"), "signature", "refuses the signature"),
        (answer("404 Not Found"), "answer", "answers 404 to a signed request"),
    ],
)
def test_the_registration_is_looked_at_last(
    serve: list[Server],
    files: CoordinatorFiles,
    tmp_path: Path,
    signed: bytes,
    code: str | None,
    words: str,
) -> None:
    found = steps(serve, files, tmp_path, answer("200 OK"), signed)
    assert [step.name for step in found] == [
        "files",
        "way and certificate",
        "clock",
        "registration",
    ]
    assert found[-1].to_json()["code"] == code
    assert words in found[-1].text


def test_a_clock_that_is_off_ends_the_check(
    serve: list[Server], files: CoordinatorFiles, tmp_path: Path
) -> None:
    found = steps(serve, files, tmp_path, answer("200 OK", -400.0), b"")
    assert found[-1].name == "clock"
    assert found[-1].error is not None
    assert found[-1].error.exit_code == 12
    assert "is behind" in found[-1].text


def test_another_service_ends_it_at_the_way(
    serve: list[Server], files: CoordinatorFiles, tmp_path: Path
) -> None:
    found = steps(serve, files, tmp_path, answer("404 Not Found"), b"")
    assert [step.error is None for step in found] == [True, False]
    assert "no nognet coordinator" in found[-1].text


def test_a_missing_key_ends_it_at_once(files: CoordinatorFiles, tmp_path: Path) -> None:
    link = ServerLinkConfig(address="127.0.0.1:9", ca=files.ca, key=tmp_path / "none")
    site = SiteConfig(name="hospital_a", studies=tmp_path / "studies.csv", server=link)
    (only,) = check_steps(site)
    assert only.to_json()["ok"] is False
    assert "is missing" in only.text
