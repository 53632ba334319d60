"""The site's status lines, and the wait for the coordinator."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from nognet_client.processes.family import _quoted
from nognet_client.processes.site_status import SiteStatus, observe_site
from nognet_client.processes.startup import check_link, wait_for_coordinator

from nognet.config import ServerLinkConfig, SiteConfig
from nognet.errors import ConfigError, ProvisionError
from nognet.pki.handshake import Reached, Unreachable
from nognet.supervision.children import StopRequest
from nognet.supervision.events import Event
from nognet.supervision.lock import exclusive

LINK = ServerLinkConfig(address="nognet.example.org:9443", ca=Path("ca.crt"), key=Path("a.key"))


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged under `nognet.client`."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]  # listens in
    logger = logging.getLogger("nognet.client")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield said
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_each_change_is_one_line(tmp_path: Path, lines: list[str]) -> None:
    status = SiteStatus(tmp_path / "status.json", LINK.address, "hospital_a")
    lost = Event("lost", "connection refused: the server is down or restarting")
    for event in (
        Event("connected"),
        Event("task", values={"task": "train", "round": 3}),
        lost,
        lost,
        Event("connected"),
        Event("task", values={"task": "query", "round": None}),
    ):
        status.on_event(event)
    address = LINK.address
    assert lines == [
        f"connected to {address}; waiting for a round",
        "training, round 3",
        f"lost the coordinator {address}: {lost.text}; trying again",
        f"reconnected to {address}; training, round 3 goes on",
        "joining a run",
    ]
    assert json.loads(status.path.read_text(encoding="utf-8"))["state"] == "working"


def test_a_task_that_ends_while_the_coordinator_is_away_makes_nobody_connected(
    tmp_path: Path, lines: list[str]
) -> None:
    status = SiteStatus(tmp_path / "status.json", LINK.address, "hospital_a")
    values = {"task": "train", "round": 3}
    seen = []
    for event in (
        Event("connected"),
        Event("task", values=values),
        Event("lost", "cut"),
        Event("task-ended", values={**values, "code": 0}),
        Event("connected"),
    ):
        status.on_event(event)
        written = json.loads(status.path.read_text(encoding="utf-8"))
        seen.append((written["state"], written["connected"], status.link_up, status.task))
    assert seen == [
        ("waiting", True, True, ""),
        ("working", True, True, "training, round 3"),
        ("lost", False, False, "training, round 3"),
        ("lost", False, False, ""),
        ("waiting", True, True, ""),
    ]
    assert lines[3].endswith("s; waiting for the coordinator")
    assert lines[4] == f"reconnected to {LINK.address}; waiting for a round"


@pytest.mark.parametrize("away", ["lost", "lease", "run-ended"])
def test_a_new_task_or_refusal_does_not_bring_the_link_back(tmp_path: Path, away: str) -> None:
    status = SiteStatus(tmp_path / "status.json", LINK.address, "hospital_a")
    for kind in ("connected", away, "refused", "task"):
        status.on_event(Event(kind, "why", values={"task": "train", "round": 1}))
    assert not status.link_up
    assert json.loads(status.path.read_text(encoding="utf-8"))["state"] in {"lost", "connecting"}


def test_a_worker_that_died_has_no_task_that_goes_on(tmp_path: Path, lines: list[str]) -> None:
    status = SiteStatus(tmp_path / "status.json", LINK.address, "hospital_a")
    for event in (Event("connected"), Event("task", values={"task": "train", "round": 1})):
        status.on_event(event)
    status.worker_ended("SIGKILL")
    assert (status.state, status.task) == ("waiting", "")
    assert lines[-1] == "the worker ended (SIGKILL); starting it again"


def test_a_died_task_is_told_from_a_done_one(tmp_path: Path, lines: list[str]) -> None:
    status = SiteStatus(tmp_path / "status.json", LINK.address, "hospital_a")
    values = {"task": "train", "round": 2}
    status.on_event(Event("task-ended", values={**values, "code": 0}))
    status.on_event(Event("task-ended", values={**values, "code": -9}))
    assert "training, round 2: done in" in lines[0]
    assert "DIED" in lines[1]
    assert "SIGKILL" in lines[1]


def test_waiting_tells_each_cause_once_and_ends_when_the_way_is_open(
    lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [Unreachable("refused"), Unreachable("refused"), Unreachable("no answer"), Reached()]
    monkeypatch.setattr(StopRequest, "wait", lambda self, _seconds: self.requested)
    assert wait_for_coordinator(LINK, StopRequest(), reach=lambda *_: answers.pop(0))
    assert [line.rpartition(": ")[2] for line in lines] == ["refused", "no answer"]


@pytest.mark.parametrize(
    ("ahead_s", "words"),
    [
        (90.0, "differ by 90 s (this machine's is ahead)"),
        (-61.0, "differ by 61 s (this machine's is behind)"),
        (2.0, ""),
        (None, ""),
    ],
)
def test_a_clock_that_is_off_is_warned_of(
    lines: list[str], ahead_s: float | None, words: str
) -> None:
    assert wait_for_coordinator(LINK, StopRequest(), reach=lambda *_: Reached(ahead_s))
    assert words in "".join(lines)
    assert bool(lines) == bool(words)


def test_who_looks_from_outside_sees_connection_task_and_round(tmp_path: Path) -> None:
    assert observe_site(tmp_path)["state"] == "none"
    with exclusive(tmp_path, "nognet-client"):
        status = SiteStatus(tmp_path / "status.json", LINK.address, "hospital_a")
        status.change("connecting", "connecting")
        assert not observe_site(tmp_path)["connected"]
        status.on_event(Event("connected"))
        since = observe_site(tmp_path)["connection_since"]
        status.on_event(Event("task", values={"task": "train", "round": 3}))
        seen = observe_site(tmp_path)
        assert (seen["connected"], seen["connection_since"]) == (True, since)
        assert (seen["last_task"], seen["last_round"]) == ("training, round 3", 3)
        status.on_event(Event("lost", "cut"))
        seen = observe_site(tmp_path)
        assert (seen["state"], seen["connected"], seen["last_round"]) == ("lost", False, 3)
        status.on_event(Event("connected"))
    seen = observe_site(tmp_path)  # nobody holds the folder any more
    assert (seen["state"], seen["connected"]) == ("died", False)


def test_waiting_ends_with_a_stop_request() -> None:
    assert not wait_for_coordinator(LINK, StopRequest(requested=True))


def test_a_refused_certificate_ends_the_wait() -> None:
    def reach(*_: object) -> Reached:
        raise ProvisionError("not signed", code="wrong-ca")

    with pytest.raises(ProvisionError):
        wait_for_coordinator(LINK, StopRequest(), reach=reach)


def test_a_site_without_a_server_is_told_what_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"server\.address"):
        check_link(SiteConfig(name="hospital_a", studies=Path("studies.csv")))


@pytest.mark.parametrize("name", ["site.yaml", "my site.yaml", "it's.yaml", 'a"b.yaml', "ä\\b"])
def test_flower_reads_the_quoted_path_back(name: str) -> None:
    from flwr.common.config import parse_config_args

    path = Path("/data") / name
    assert parse_config_args([f"site-config={_quoted(path)}"]) == {"site-config": str(path)}


def test_a_path_with_both_quotes_is_refused() -> None:
    with pytest.raises(ConfigError, match="quotes"):
        _quoted(Path("/a'b\"c"))
