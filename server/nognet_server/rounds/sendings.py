"""Send a message to a site, and again where Flower lost it or the site's SuperNode began anew."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace

from flwr.app import Message
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid

from nognet.wire.records import content_bytes
from nognet_server.rounds.messages import Envelope, Patience, Pending

_log = logging.getLogger("nognet.server.grid")
MAX_SENDINGS = 20
_MINIMUM_TTL_S = 43_200.0
_KEPT = "a reply it has kept is sent again, nothing is trained twice"
_LOST = {
    "reply-lost": "Flower lost its reply (reply-lost: it never came whole)",
    "message-lost": "Flower lost the message (message-lost)",
    "offline": "Flower held it for offline (offline)",
}


def send(
    grid: Grid, envelope: Envelope, nodes: Mapping[int, NodeInfo], patience: Patience
) -> Pending:
    """Send a message for the first time; one that was not taken has no id."""
    now = time.monotonic()
    node = nodes.get(envelope.message.metadata.dst_node_id)
    message_id = _push(grid, envelope.message, patience)
    return Pending(
        site=envelope.site,
        message=envelope.message,
        message_ids=(message_id,) if message_id else (),
        activated_at=node.last_activated_at if node is not None else "",
        started=now,
        last_seen=now,
        bytes_down=content_bytes(envelope.message.content) if message_id else 0,
    )


def refreshed(
    grid: Grid, item: Pending, nodes: Mapping[int, NodeInfo], now: float, patience: Patience
) -> Pending:
    """Note whether a message's site is online, and send it again where it was lost."""
    node = nodes.get(item.message.metadata.dst_node_id)
    if node is None:
        return item
    if not item.lost and node.last_activated_at == item.activated_at:
        return replace(item, last_seen=now)
    metadata = item.message.metadata
    again = Message(item.message.content, metadata.dst_node_id, metadata.message_type)
    message_id = _push(grid, again, patience)
    if message_id is None:
        if not item.is_refused:
            words = "%s: %s; Flower does not take the message again; it is tried until the deadline"
            _log.warning(words, item.site, _cause(item))
        return replace(item, last_seen=now, is_refused=True)
    ids = (*item.message_ids, message_id)
    _log.warning("%s: %s; %s", item.site, _cause(item), _sent_again(item, len(ids)))
    return replace(
        item,
        message=again,
        message_ids=ids,
        activated_at=node.last_activated_at,
        last_seen=now,
        bytes_down=item.bytes_down + content_bytes(again.content),
        lost="",
        is_refused=False,
    )


def _cause(item: Pending) -> str:
    """Say why a message is sent again."""
    if item.lost:
        return _LOST.get(item.lost, f"Flower lost it ({item.lost})")
    return "its SuperNode came online anew" if item.activated_at else "came online"


def _sent_again(item: Pending, sendings: int) -> str:
    """Say what follows; a site that was never online has kept no reply to it."""
    if item.lost:
        return f"the message is sent again ({sendings} of {MAX_SENDINGS}); {_KEPT}"
    return (
        f"the message is sent again; {_KEPT}" if item.activated_at else "the message is sent again"
    )


def _push(grid: Grid, message: Message, patience: Patience) -> str | None:
    """Send a message that lives a little longer than the deadline; None if it was not taken."""
    message.metadata.ttl = max(_MINIMUM_TTL_S, patience.longest_s + patience.lost_after_s)
    ids = [message_id for message_id in grid.push_messages([message]) if message_id]
    return ids[0] if ids else None
