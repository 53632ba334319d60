"""Send a message to each site and wait for the replies, whatever happens to the sites meanwhile.

Around Flower's grid: short polls; a site whose SuperNode restarted gets its message again (it died
with the SuperNode; the site's reply cache keeps it from training twice); replies are told apart by
the message they answer (an error made by the SuperLink carries its own node id, not the site's); a
site that passes its deadline, falls far behind the others or stays offline when no other is waited
for is given up by name and reason. What a site that is still at work would have answered can be
waited for in a later exchange.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from flwr.app import Error, Message
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid

from nognet.wire.records import content_bytes
from nognet_server.flower_adapter import error_name, is_lost
from nognet_server.rounds.messages import (
    OFFLINE,
    STILL_AT_WORK,
    Delivery,
    Envelope,
    Exchange,
    Patience,
    Pending,
)
from nognet_server.rounds.sendings import MAX_SENDINGS, refreshed, send
from nognet_server.rounds.stragglers import straggler_limit_s

_log = logging.getLogger("nognet.server.grid")
_PUBLIC_CODE = re.compile(r"[A-Za-z]{1,64}:[a-z0-9-]{1,64}")
_STATUS_EVERY_S = 60.0


def online_nodes(grid: Grid) -> dict[int, NodeInfo]:
    """Give the sites' nodes that are online now, by node id."""
    return {int(node.node_id): node for node in grid.get_nodes()}


def exchange(
    grid: Grid,
    envelopes: Sequence[Envelope],
    patience: Patience,
    *,
    carried: Sequence[Pending] = (),
    what: str = "answer",
    on_delivery: Callable[[Delivery, Sequence[str]], None] | None = None,
) -> Exchange:
    """Send all messages and wait until each has a reply or is given up.

    Args:
        grid: Flower's grid.
        envelopes: At most one message a site.
        patience: Deadlines, how long an offline site is waited for, and the pause between polls.
        carried: Messages of an earlier exchange whose replies are still awaited; their clocks start
            anew. None to a site that has an envelope.
        what: What the sites are doing, for the status lines.
        on_delivery: Called with each delivery and the names of the sites still awaited.
    """
    started = time.monotonic()
    nodes = online_nodes(grid)
    sent = [send(grid, envelope, nodes, patience) for envelope in envelopes]
    again = [
        replace(item, started=started, last_seen=started, bytes_down=0, is_carried=True)
        for item in carried
    ]
    pending = {item.site: item for item in (*sent, *again)}
    done: dict[str, Delivery] = {}
    unanswered: dict[str, Pending] = {}
    told = started
    while pending:
        arrived, lost = _arrivals(grid, pending, patience, tuple(done.values()))
        for site, error in lost.items():  # Flower lost it, not the site its work: sent again below
            pending[site] = replace(pending[site], lost=error)
        for delivery in arrived:
            item = pending.pop(delivery.site)
            done[delivery.site] = delivery
            if delivery.reason in STILL_AT_WORK:
                unanswered[delivery.site] = item
            if on_delivery is not None:
                on_delivery(delivery, sorted(pending))
        if not pending:
            break
        if time.monotonic() - told >= _STATUS_EVERY_S:
            told = time.monotonic()
            _log.info("waiting for %s to %s: %.0f s", ", ".join(pending), what, told - started)
        time.sleep(patience.poll_s)
        pending = _refreshed(grid, pending, patience)
    return Exchange(
        tuple(done[site] for site in sorted(done)),
        tuple(unanswered[site] for site in sorted(unanswered)),
    )


def _arrivals(
    grid: Grid, pending: Mapping[str, Pending], patience: Patience, done: Sequence[Delivery]
) -> tuple[list[Delivery], dict[str, str]]:
    """Collect what is decided now (replies, sites to give up), and whose message was lost how."""
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
    lost: dict[str, str] = {}
    for reply in grid.pull_messages(asked) if asked else ():
        item = by_id.get(reply.metadata.reply_to_message_id)
        if item is None or item.site in decided:
            continue
        if reply.has_content():
            decided[item.site] = _delivered(item, reply, now)
        elif reply.metadata.reply_to_message_id == item.message_ids[-1]:
            if is_lost(reply.error) and len(item.message_ids) < MAX_SENDINGS:
                lost[item.site] = error_name(reply.error)
            else:
                reason = _public_reason(reply.error)
                decided[item.site] = _nothing(item, reason, now)
    awaited = [item for site, item in pending.items() if site not in decided]
    behind_s = straggler_limit_s([*done, *decided.values()], awaited, patience)
    others_work = any(item.message.metadata.dst_node_id in nodes for item in awaited)
    for item in awaited:
        if item.site in lost:
            continue  # sent again first: who awaits the answer later must have it under way
        given_up = _given_up(item, now, patience, behind_s, others_work=others_work)
        if given_up is not None:
            decided[item.site] = _nothing(item, given_up, now)
    return [decided[site] for site in sorted(decided)], lost


def _given_up(
    item: Pending, now: float, patience: Patience, behind_s: float, *, others_work: bool
) -> str | None:
    waited_s = now - item.started
    if not item.message_ids:
        return "not-sent"
    if waited_s > patience.site_deadlines_s.get(item.site, patience.deadline_s):
        return "timeout"
    if now - item.last_seen > patience.lost_after_s and not others_work:
        return OFFLINE  # while others work it costs nothing to let it come back
    return "straggler" if waited_s > behind_s else None


def _delivered(item: Pending, reply: Message, now: float) -> Delivery:
    size = content_bytes(reply.content)
    return replace(_nothing(item, None, now), content=reply.content, bytes_up=size)


def _nothing(item: Pending, reason: str | None, now: float) -> Delivery:
    seconds = now - item.started
    return Delivery(item.site, None, reason, seconds, item.bytes_down, is_carried=item.is_carried)


def _public_reason(error: Error) -> str:
    """Take a site's ``Class:code`` and nothing else: any other text may be anything."""
    reason = error.reason or ""
    return reason if _PUBLIC_CODE.fullmatch(reason) else error_name(error)


def _refreshed(
    grid: Grid, pending: Mapping[str, Pending], patience: Patience
) -> dict[str, Pending]:
    """Note who is online, and send again what was lost."""
    now = time.monotonic()
    nodes = online_nodes(grid)
    return {site: refreshed(grid, item, nodes, now, patience) for site, item in pending.items()}
