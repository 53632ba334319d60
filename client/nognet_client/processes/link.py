"""The SuperNode's connection, with what Flower's lacks: causes, a stale lease released, states.

Flower answers "not registered" and "online already" alike, and retries whatever fails without a
word. Here each change of state is told once, with its likely cause.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Self

import httpx

from nognet.pki.clock import clock_ahead_s, clock_words, is_off
from nognet.supervision.events import EventWriter
from nognet_client.processes import flower_internals as flower
from nognet_client.processes.link_causes import cause_of, passes

REASON_HEADER = "x-nognet-reason"
LEASE_S = 60.0
"""Flower holds a site that vanished for online so long (two heartbeats of 30 s)."""
LEASE_POLL_S = 2.0
RUN_LOOK_S = 1.5
"""While a task is at work, the coordinator is asked so often whether its run still goes on."""


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
        drop: Ends the process after the run has ended at the coordinator, with its task.
        last_message_at: When the last task came, by the monotonic clock.
        message_in_hand: Whether the coordinator's last answer was a task.
    """

    events: EventWriter
    node_id_file: Path
    leave: Callable[[], NoReturn]
    drop: Callable[[], NoReturn]
    lost: bool = False
    connected: bool = False
    last_message_at: float = field(default_factory=time.monotonic)
    message_in_hand: bool = False
    ask_for_run: Callable[[], object] | None = None
    next_look: float = 0.0

    def look_at_run(self) -> None:
        """Ask whether the run of the task in hand goes on; if not, end with it.

        Flower tells a site nothing: it would train to the end for a run that was stopped.
        """
        if self.ask_for_run is None or time.monotonic() < self.next_look:
            return
        self.next_look = time.monotonic() + RUN_LOOK_S
        try:
            self.ask_for_run()
        except httpx.HTTPStatusError as err:
            if err.response.status_code == 403:
                self.events.send("run-ended")
                self.drop()
        except httpx.TransportError:
            return  # SuperLink is restarting: the task goes on meanwhile

    def reached(self) -> None:
        """Note that the coordinator answered."""
        if self.lost or not self.connected:
            self.events.send("connected")
        self.lost, self.connected = False, True

    def missed(self, error: httpx.HTTPError) -> None:
        """Note that the coordinator did not answer; the cause is told once."""
        if not self.lost:
            self.events.send("lost", cause_of(error))
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
    insecure: ClassVar[bool]

    @classmethod
    def from_server_address(cls, server_address: str, *_: Any, **others: Any) -> Self:  # noqa: ANN401  Flower's interface
        """Connect as Flower would; without TLS too, which its SuperNode signs nothing over."""
        if cls.insecure:
            interceptors = others["interceptors"]
            return super().from_server_address(server_address, True, None, interceptors)
        return super().from_server_address(server_address, *_, **others)

    def _unary_unary(self, **call: Any) -> Any:  # noqa: ANN401  Flower's interface
        try:
            result = super()._unary_unary(**call)
        except httpx.HTTPStatusError as err:
            if err.response.status_code in (502, 503, 504):
                self.link.missed(err)
            raise
        except httpx.TransportError as err:
            self.link.missed(err)
            if passes(err):
                raise httpx.ReadError("the connection was cut") from err
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
            run = response.messages_list[0].metadata.run_id
            asked = flower.GetRunRequest(node=request.node, run_id=run)
            self.link.ask_for_run = lambda: self.GetRun(asked)
        return response


def site_client(link: Link, *, insecure: bool = False) -> type[SiteFleetClient]:
    """Make the client class that reports to `link`; Flower makes its instance."""
    bound = {"link": link, "insecure": insecure}
    return type("BoundSiteFleetClient", (SiteFleetClient,), bound)


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
        skew_s = clock_ahead_s(response.headers.get("date", ""))
        if skew_s is not None and is_off(skew_s):
            raise Fatal(
                "clock",
                f"the coordinator refuses this site's signature: {clock_words(skew_s)}; "
                "synchronise it (NTP)",
            )
        raise Fatal("signature", "the coordinator refuses this site's signature")
    if response.headers.get(REASON_HEADER) == "unregistered":
        raise Fatal(
            "unregistered",
            "the coordinator doesn't know this site's key; send it the .pub file and have it "
            "registered (nognet provision register)",
        )
