"""The connection's states, fatal refusals and the release of a stale lease."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import httpx
import pytest
from flwr.supercore.retry import make_simple_http_retry_invoker
from nognet_client.processes import flower_internals as flower
from nognet_client.processes.link import Fatal, Link, _activate, site_client

from nognet.supervision.events import EventPipe, EventWriter

REQUEST = flower.ActivateNodeRequest()


def no_leave() -> NoReturn:
    raise SystemExit(12)


def link(tmp_path: Path, descriptor: int | None = None) -> Link:
    return Link(EventWriter(descriptor), tmp_path / "node-id", no_leave, no_leave)


def refusal(status: int, **headers: str) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "https://x")
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    response = httpx.Response(status, headers=named, request=request)
    return httpx.HTTPStatusError("refused", request=request, response=response)


def activation(
    *outcomes: httpx.HTTPStatusError | int,
) -> Callable[[flower.ActivateNodeRequest], flower.ActivateNodeResponse]:
    left = list(outcomes)

    def activate(_request: flower.ActivateNodeRequest) -> flower.ActivateNodeResponse:
        outcome = left.pop(0)
        if isinstance(outcome, int):
            return flower.ActivateNodeResponse(node_id=outcome)
        raise outcome

    return activate


def test_an_unregistered_key_is_fatal(tmp_path: Path) -> None:
    activate = activation(refusal(412, x_nognet_reason="unregistered"))
    with pytest.raises(Fatal, match="doesn't know this site's key"):
        _activate(activate, lambda _r: None, REQUEST, link(tmp_path))


def test_a_stale_lease_is_released_at_once(tmp_path: Path) -> None:
    held = link(tmp_path)
    held.node_id_file.write_text("7", encoding="ascii")
    released: list[int] = []
    activate = activation(refusal(412, x_nognet_reason="online"), 7)
    response = _activate(activate, lambda r: released.append(r.node_id), REQUEST, held)
    assert (response.node_id, released) == (7, [7])


def test_a_lease_of_another_machine_is_waited_for(tmp_path: Path) -> None:
    pipe = EventPipe()
    waits: list[float] = []
    online = refusal(412, x_nognet_reason="online")
    held = link(tmp_path, pipe.write_end)
    _activate(activation(online, online, 7), lambda _r: None, REQUEST, held, waits.append)
    assert len(waits) == 2
    assert [event.kind for event in pipe.drain()] == ["lease", "lease"]
    pipe.close()


def test_a_refused_signature_with_a_wrong_clock_names_the_clock(tmp_path: Path) -> None:
    there = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=900)
    date = there.strftime("%a, %d %b %Y %H:%M:%S GMT")
    with pytest.raises(Fatal, match=r"differ by (899|900|901) s .*is ahead"):
        _activate(activation(refusal(401, date=date)), lambda _r: None, REQUEST, link(tmp_path))
    with pytest.raises(Fatal, match="signature") as refused:
        _activate(activation(refusal(401)), lambda _r: None, REQUEST, link(tmp_path))
    assert refused.value.code == "signature"


def test_lost_and_found_are_told_once_each(tmp_path: Path) -> None:
    pipe = EventPipe()
    here = link(tmp_path, pipe.write_end)
    here.reached()
    here.reached()
    here.missed(httpx.ConnectError("[Errno 111] Connection refused"))
    here.missed(httpx.ReadTimeout("timed out"))
    here.reached()
    assert [event.kind for event in pipe.drain()] == ["connected", "lost", "connected"]
    pipe.close()


@pytest.mark.parametrize(
    ("error", "dropped"),
    [
        (refusal(403), True),
        (refusal(404), False),
        (refusal(500), False),
        (httpx.ReadError("EOF"), False),
        (httpx.ConnectError("refused"), False),
    ],
)
def test_a_task_ends_with_its_run_and_with_nothing_else(
    tmp_path: Path, error: httpx.HTTPError, dropped: bool
) -> None:
    pipe = EventPipe()
    here = link(tmp_path, pipe.write_end)
    here.look_at_run()  # no task: nothing is asked

    def ask() -> None:
        raise error

    here.ask_for_run = ask
    if dropped:
        with pytest.raises(SystemExit):
            here.look_at_run()
    else:
        here.look_at_run()
    assert [event.kind for event in pipe.drain()] == ["run-ended"] * dropped
    here.look_at_run()  # asked a moment ago: not again yet
    pipe.close()


@pytest.mark.parametrize(
    ("error", "goes_on"),
    [
        (httpx.ReadError("[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred in violation"), True),
        (httpx.ConnectTimeout("_ssl.c:989: The handshake operation timed out"), True),
        (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate"), False),
        (httpx.ConnectError("[SSL: WRONG_VERSION_NUMBER] wrong version number"), False),
    ],
)
def test_a_cut_within_tls_is_retried_and_a_refused_certificate_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: httpx.TransportError, goes_on: bool
) -> None:
    outcomes: list[httpx.TransportError | None] = [error, None]

    def call(_client: flower.FleetHttpClient, **_call: object) -> str:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        return "answered"

    monkeypatch.setattr(flower.FleetHttpClient, "_unary_unary", call)
    bound = site_client(link(tmp_path))
    client = bound.__new__(bound)
    invoker = make_simple_http_retry_invoker()
    invoker.wait_function = lambda _seconds: None
    if goes_on:
        assert invoker.invoke(client._unary_unary) == "answered"
    else:
        with pytest.raises(httpx.ConnectError):
            invoker.invoke(client._unary_unary)
