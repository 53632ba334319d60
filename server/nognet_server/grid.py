"""Send a message to each site and wait for the replies, whatever happens to the sites meanwhile.

Around Flower's grid: short polls; a site whose SuperNode restarted gets its message again (it died
with the SuperNode; the site's reply cache keeps it from training twice); replies are told apart by
the message they answer (an error made by the SuperLink carries its own node id, not the site's); a
site that stays offline, or passes the deadline, is given up by name and reason.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from flwr.app import Error, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid

from nognet.wire.records import content_bytes
from nognet_server.flower_adapter import error_name, is_lost

_log = logging.getLogger("nognet.server.grid")
_PUBLIC_CODE = re.compile(r"[A-Za-z]{1,64}:[a-z0-9-]{1,64}")
_STATUS_EVERY_S = 60.0
_MINIMUM_TTL_S = 43_200.0
_MAX_SENDINGS = 20
_LOST = "(message lost)"


@dataclass(frozen=True)
class Envelope:
    """A message to a site."""

    site: str
    message: Message


@dataclass(frozen=True)
class Delivery:
    """What came of a message: its reply's content, or the reason why there is none.

    Attributes:
        site: The site's name.
        content: The reply's content, unchecked; None if there is none.
        reason: None, or a short code: ``timeout``, ``offline``, ``not-sent``, or the site's own
            ``Class:code``.
        seconds: From sending to the reply.
        bytes_down: Payload to the site, all sendings together.
        bytes_up: Payload of the reply.
    """

    site: str
    content: RecordDict | None
    reason: str | None
    seconds: float
    bytes_down: int
    bytes_up: int = 0


@dataclass(frozen=True)
class Patience:
    """How long is waited, in seconds."""

    deadline_s: float
    lost_after_s: float = 120.0
    poll_s: float = 0.2


@dataclass(frozen=True)
class _Pending:
    """A message that is under way."""

    site: str
    message: Message
    message_ids: tuple[str, ...]
    activated_at: str
    started: float
    last_seen: float
    bytes_down: int


def online_nodes(grid: Grid) -> dict[int, NodeInfo]:
    """Give the sites' nodes that are online now, by node id."""
    return {int(node.node_id): node for node in grid.get_nodes()}


def exchange(
    grid: Grid,
    envelopes: Sequence[Envelope],
    patience: Patience,
    *,
    what: str = "answer",
    on_delivery: Callable[[Delivery, Sequence[str]], None] | None = None,
) -> list[Delivery]:
    """Send all messages and wait until each has a reply or is given up.

    Args:
        grid: Flower's grid.
        envelopes: At most one message a site.
        patience: Deadline, how long an offline site is waited for, and the pause between polls.
        what: What the sites are doing, for the status lines.
        on_delivery: Called with each delivery and the names of the sites still awaited.

    Returns:
        One delivery an envelope, sorted by site name.
    """
    started = time.monotonic()
    nodes = online_nodes(grid)
    pending: dict[str, _Pending] = {}
    done: dict[str, Delivery] = {}
    for envelope in envelopes:
        sent = _send(grid, envelope, nodes, patience)
        pending[sent.site] = sent
    told = started
    while pending:
        arrived, lost = _arrivals(grid, pending, patience)
        for site in lost:  # Flower lost the message, not the site its work: it is sent again
            pending[site] = replace(pending[site], activated_at=_LOST)
        for delivery in arrived:
            del pending[delivery.site]
            done[delivery.site] = delivery
            if on_delivery is not None:
                on_delivery(delivery, sorted(pending))
        if not pending:
            break
        if time.monotonic() - told >= _STATUS_EVERY_S:
            told = time.monotonic()
            _log.info("waiting for %s to %s: %.0f s", ", ".join(pending), what, told - started)
        time.sleep(patience.poll_s)
        pending = _refreshed(grid, pending, patience)
    return [done[site] for site in sorted(done)]


def _send(
    grid: Grid, envelope: Envelope, nodes: Mapping[int, NodeInfo], patience: Patience
) -> _Pending:
    now = time.monotonic()
    node = nodes.get(envelope.message.metadata.dst_node_id)
    message_id = _push(grid, envelope.message, patience)
    return _Pending(
        site=envelope.site,
        message=envelope.message,
        message_ids=(message_id,) if message_id else (),
        activated_at=node.last_activated_at if node is not None else "",
        started=now,
        last_seen=now,
        bytes_down=content_bytes(envelope.message.content) if message_id else 0,
    )


def _push(grid: Grid, message: Message, patience: Patience) -> str | None:
    """Send a message that lives a little longer than the deadline; None if it was not taken."""
    message.metadata.ttl = max(_MINIMUM_TTL_S, patience.deadline_s + patience.lost_after_s)
    ids = [message_id for message_id in grid.push_messages([message]) if message_id]
    return ids[0] if ids else None


def _arrivals(
    grid: Grid, pending: Mapping[str, _Pending], patience: Patience
) -> tuple[list[Delivery], set[str]]:
    """Collect what is decided now (replies, sites to give up), and whose message was lost."""
    now = time.monotonic()
    nodes = online_nodes(grid)
    asked = {
        message_id
        for item in pending.values()
        if item.message.metadata.dst_node_id in nodes  # else Flower would give the site up at once
        for message_id in item.message_ids
    }
    by_id = {message_id: item for item in pending.values() for message_id in item.message_ids}
    decided: dict[str, Delivery] = {}
    lost: set[str] = set()
    for reply in grid.pull_messages(asked) if asked else ():
        item = by_id.get(reply.metadata.reply_to_message_id)
        if item is None or item.site in decided:
            continue
        if reply.has_content():
            decided[item.site] = _delivered(item, reply, now)
        elif reply.metadata.reply_to_message_id == item.message_ids[-1]:
            if is_lost(reply.error) and len(item.message_ids) <= _MAX_SENDINGS:
                lost.add(item.site)
            else:
                reason = _public_reason(reply.error)
                decided[item.site] = _nothing(item, reason, now)
    for site, item in pending.items():
        given_up = _given_up(item, now, patience)
        if site not in decided and given_up is not None:
            decided[site] = _nothing(item, given_up, now)
    return [decided[site] for site in sorted(decided)], lost - set(decided)


def _given_up(item: _Pending, now: float, patience: Patience) -> str | None:
    if not item.message_ids:
        return "not-sent"
    if now - item.started > patience.deadline_s:
        return "timeout"
    return "offline" if now - item.last_seen > patience.lost_after_s else None


def _delivered(item: _Pending, reply: Message, now: float) -> Delivery:
    size = content_bytes(reply.content)
    return Delivery(item.site, reply.content, None, now - item.started, item.bytes_down, size)


def _nothing(item: _Pending, reason: str, now: float) -> Delivery:
    return Delivery(item.site, None, reason, now - item.started, item.bytes_down)


def _public_reason(error: Error) -> str:
    """Take a site's ``Class:code`` and nothing else: any other text may be anything."""
    reason = error.reason or ""
    return reason if _PUBLIC_CODE.fullmatch(reason) else error_name(error)


def _refreshed(
    grid: Grid, pending: Mapping[str, _Pending], patience: Patience
) -> dict[str, _Pending]:
    """Note who is online, and send again to those whose SuperNode restarted."""
    now = time.monotonic()
    nodes = online_nodes(grid)
    return {
        site: _refreshed_one(grid, item, nodes, now, patience) for site, item in pending.items()
    }


def _refreshed_one(
    grid: Grid, item: _Pending, nodes: Mapping[int, NodeInfo], now: float, patience: Patience
) -> _Pending:
    node = nodes.get(item.message.metadata.dst_node_id)
    if node is None:
        return item
    if node.last_activated_at == item.activated_at:
        return replace(item, last_seen=now)
    _log.warning("%s: its SuperNode restarted; the message is sent again", item.site)
    metadata = item.message.metadata
    again = Message(item.message.content, metadata.dst_node_id, metadata.message_type)
    message_id = _push(grid, again, patience)
    ids = (*item.message_ids, message_id) if message_id else item.message_ids
    return replace(
        item,
        message=again,
        message_ids=ids,
        activated_at=node.last_activated_at,
        last_seen=now,
        bytes_down=item.bytes_down + content_bytes(again.content),
    )
