"""The SuperNode's connection, with what Flower's lacks: causes, a stale lease released, states.

Flower answers "not registered" and "online already" alike, and retries whatever fails without a
word. Here each change of state is told once, with its likely cause.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import httpx

from nognet.supervision.events import EventWriter
from nognet_client.processes import flower_internals as flower

REASON_HEADER = "x-nognet-reason"
LEASE_S = 60.0
"""Flower holds a site that vanished for online so long (two heartbeats of 30 s)."""
LEASE_POLL_S = 2.0
CLOCK_TOLERANCE_S = 300.0


class Fatal(Exception):  # noqa: N818  carried to the supervisor as an event, not shown as an error
    """The coordinator refuses this site, for a cause that needs a person."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass
class Link:
    """What is known of the connection; told to the supervisor whenever it changes.

    Attributes:
        events: Where changes are told.
        node_id_file: Keeps the node id of the last start, to release its lease after a crash.
        leave: Ends the process after a refusal that only a person can mend.
        last_message_at: When the last task came, by the monotonic clock.
        message_in_hand: Whether the coordinator's last answer was a task.
    """

    events: EventWriter
    node_id_file: Path
    leave: Callable[[], NoReturn]
    lost: bool = False
    connected: bool = False
    last_message_at: float = field(default_factory=time.monotonic)
    message_in_hand: bool = False

    def reached(self) -> None:
        """Note that the coordinator answered."""
        if self.lost or not self.connected:
            self.events.send("connected")
        self.lost, self.connected = False, True

    def missed(self, error: httpx.HTTPError) -> None:
        """Note that the coordinator did not answer; the cause is told once."""
        if not self.lost:
            self.events.send("lost", _cause(error))
        self.lost = True

    def refused(self, refusal: Fatal) -> NoReturn:
        """Tell why the coordinator refuses this site, and end."""
        self.events.send("fatal", str(refusal), code=refusal.code)
        self.leave()

    def stale_node_id(self) -> int | None:
        """Read the node id of an earlier start that didn't end well."""
        try:
            return int(self.node_id_file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None


class SiteFleetClient(flower.FleetHttpClient):
    """Flower's client of the coordinator; every call reports whether it got through."""

    link: ClassVar[Link]

    def _unary_unary(self, **call: Any) -> Any:  # noqa: ANN401  Flower's interface
        try:
            result = super()._unary_unary(**call)
        except httpx.HTTPStatusError as err:
            if err.response.status_code in (502, 503, 504):
                self.link.missed(err)
            raise
        except httpx.TransportError as err:
            self.link.missed(err)
            raise
        if self.link.connected:
            self.link.reached()
        return result

    def ActivateNode(  # noqa: N802  Flower's interface
        self, request: flower.ActivateNodeRequest
    ) -> flower.ActivateNodeResponse:
        """Come online; release the lease that an earlier start left behind."""
        try:
            response = _activate(super().ActivateNode, self.DeactivateNode, request, self.link)
        except Fatal as refusal:
            self.link.refused(refusal)
        self.link.node_id_file.write_text(str(response.node_id), encoding="ascii")
        self.link.reached()
        return response

    def PullMessages(  # noqa: N802  Flower's interface
        self, request: flower.PullMessagesRequest
    ) -> flower.PullMessagesResponse:
        """Ask for a task; note when one came."""
        response = super().PullMessages(request)
        self.link.message_in_hand = bool(response.messages_list)
        if response.messages_list:
            self.link.last_message_at = time.monotonic()
        return response


def site_client(link: Link) -> type[SiteFleetClient]:
    """Make the client class that reports to `link`; Flower makes its instance."""
    return type("BoundSiteFleetClient", (SiteFleetClient,), {"link": link})


def _activate(
    activate: Callable[[flower.ActivateNodeRequest], flower.ActivateNodeResponse],
    deactivate: Callable[[flower.DeactivateNodeRequest], object],
    request: flower.ActivateNodeRequest,
    link: Link,
    sleep: Callable[[float], None] = time.sleep,
) -> flower.ActivateNodeResponse:
    deadline = time.monotonic() + LEASE_S + LEASE_POLL_S
    stale = link.stale_node_id()
    while True:
        try:
            return activate(request)
        except httpx.HTTPStatusError as err:
            _raise_if_fatal(err.response)
            if err.response.headers.get(REASON_HEADER) != "online":
                raise
            if time.monotonic() > deadline:
                raise Fatal(
                    "online-elsewhere",
                    "another client with this site's key stays connected; stop it, or give each "
                    "site a key of its own",
                ) from err
        if stale is not None:
            _release(deactivate, stale)
            stale = None
            continue
        link.events.send("lease", "an earlier connection of this site is still held; waiting")
        sleep(LEASE_POLL_S)


def _release(deactivate: Callable[[flower.DeactivateNodeRequest], object], node_id: int) -> None:
    try:
        deactivate(flower.DeactivateNodeRequest(node_id=node_id))
    except httpx.HTTPStatusError:
        return  # it was another registration's: waiting for the lease is what remains


def _raise_if_fatal(response: httpx.Response) -> None:
    if response.status_code == 401:
        skew_s = clock_skew_s(response.headers.get("date", ""))
        if skew_s is not None and abs(skew_s) > CLOCK_TOLERANCE_S / 2:
            raise Fatal(
                "clock",
                f"the coordinator refuses this site's signature: the clocks differ by "
                f"{abs(skew_s):.0f} s (this one is {'ahead' if skew_s > 0 else 'behind'}); "
                "synchronise it (NTP)",
            )
        raise Fatal("signature", "the coordinator refuses this site's signature")
    if response.headers.get(REASON_HEADER) == "unregistered":
        raise Fatal(
            "unregistered",
            "the coordinator doesn't know this site's key; send it the .pub file and have it "
            "registered (nognet provision register)",
        )


def clock_skew_s(http_date: str, now: dt.datetime | None = None) -> float | None:
    """Seconds that this machine's clock is ahead of an HTTP Date header; None if unreadable.

    >>> noon = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
    >>> clock_skew_s("Thu, 01 Jan 2026 11:59:00 GMT", noon)
    60.0
    """
    try:
        there = email.utils.parsedate_to_datetime(http_date)
    except ValueError:
        return None
    return ((now or dt.datetime.now(dt.UTC)) - there).total_seconds()


def _cause(error: httpx.HTTPError) -> str:
    text = str(error).lower()
    if isinstance(error, httpx.HTTPStatusError):
        return f"a proxy answers {error.response.status_code}: the server behind it is not up"
    if "certificate" in text:
        return "its certificate is refused (renewed from another CA, expired, or inspected TLS)"
    if isinstance(error, httpx.ConnectError) and "refused" in text:
        return "connection refused: the server is down or restarting"
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time: network cut, or the server is overloaded"
    if isinstance(error, httpx.ConnectError):
        return "no connection: network or DNS"
    return "the connection was cut: server or proxy restarting"
