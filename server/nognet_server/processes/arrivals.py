"""Replies that arrive: the round loop is told of those that are here, and waits for none.

SuperLink announces a reply with the site's first word, and Flower's grid then waits for its last
byte. A site that dies in the middle of its upload would hold up the whole round for three minutes
(OBJECT_PUSH_SESSION_TTL_SECONDS of flwr/supercore/constant.py), a slow line every other site, and
no deadline would count meanwhile. Here what has come is kept, and the rest asked for at each look.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from flwr.app import RecordDict

from nognet.wire.records import MALFORMED
from nognet_server.processes import flower_internals as flower

FORGET_AFTER_S = 600.0
"""A half reply that nobody has asked for so long is let go; its site would be asked again."""
LOOK_S = (0.05, 1.0)
"""Between looks for the rest of a half reply: right after a part has come, and at most."""
Clock = Callable[[], float]


@dataclass
class _Arriving:
    """A reply that SuperLink has announced, and what has come of it.

    Attributes:
        message_id: Its own.
        object_ids: Its parts.
        asked_at: When somebody wanted it last.
        contents: The parts that are here.
        lost: Why it will never be whole; empty where it may.
        next_look: When its rest is asked for again.
        wait_s: The pause before that; it doubles as long as nothing comes.
    """

    message_id: str
    object_ids: tuple[str, ...]
    asked_at: float
    contents: dict[str, bytes] = field(default_factory=dict)
    lost: str = ""
    next_look: float = 0.0
    wait_s: float = LOOK_S[0]

    def look(self, now: float, pull: Callable[[str], bytes]) -> bool:
        """Take what there is, if it is time to; return whether the reply is whole."""
        self.asked_at = now
        if now < self.next_look:
            return False
        before = len(self.contents)
        is_whole = self._fetch(pull)
        has_grown = len(self.contents) > before
        self.wait_s = LOOK_S[0] if has_grown else min(2 * self.wait_s, LOOK_S[1])
        self.next_look = now + self.wait_s
        return is_whole

    def _fetch(self, pull: Callable[[str], bytes]) -> bool:
        """Take the parts that are there, two at once; return whether none is missing."""

        def take(object_id: str) -> bytes:
            try:
                self.contents[object_id] = pull(object_id)
            except flower.ObjectPullError as err:
                self.lost = str(err)
                raise
            return b""

        missing = [name for name in self.object_ids if name not in self.contents]
        try:
            flower.pull_objects(missing, take, max_tries_per_object=1)
        except flower.ObjectPullError:
            return False
        return True


@dataclass
class Arrivals:
    """The replies under way to one ServerApp (a thin shell around the grid's client)."""

    clock: Clock = time.monotonic
    _arriving: dict[str, _Arriving] = field(default_factory=dict)

    def pull(self, grid: flower.HttpGrid, message_ids: Iterable[str]) -> list[flower.Message]:
        """Give the replies to `message_ids` that are here whole, or will never be."""
        wanted = set(message_ids)
        self._announce(grid, wanted - self._arriving.keys())
        found: list[flower.Message] = []
        for asked in sorted(wanted & self._arriving.keys()):
            reply = self._arriving[asked]
            if reply.look(self.clock(), _pull_object(grid)):
                found.append(_whole(grid, asked, reply))
            elif reply.lost:
                code = flower.ErrorCode.MESSAGE_UNAVAILABLE
                found.append(_instead(grid, asked, code, reply.lost))
            else:
                continue
            del self._arriving[asked]
        self._forget()
        return found

    def _announce(self, grid: flower.HttpGrid, asked: set[str]) -> None:
        """Ask which replies have begun to arrive; each is told of once."""
        if not asked:
            return
        request = flower.PullAppMessagesRequest(message_ids=sorted(asked))
        response = grid._runtime_client.PullMessages(request)  # noqa: SLF001  see flower_internals
        for message, tree in zip(
            response.messages_list, response.message_object_trees, strict=True
        ):
            metadata = message.metadata
            self._arriving[metadata.reply_to_message_id] = _Arriving(
                metadata.message_id, _object_ids(tree), self.clock()
            )

    def _forget(self) -> None:
        horizon = self.clock() - FORGET_AFTER_S
        for asked in [name for name, r in self._arriving.items() if r.asked_at < horizon]:
            del self._arriving[asked]


def _object_ids(tree: flower.ObjectTree) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.object_id for part in flower.iterate_object_tree(tree)))


def _run_id(grid: flower.HttpGrid) -> int:
    return int(grid.run.run_id)


def _pull_object(grid: flower.HttpGrid) -> Callable[[str], bytes]:
    return flower.make_pull_object_fn_protobuf(
        pull_object_protobuf=grid._runtime_client.PullObject,  # noqa: SLF001  see flower_internals
        node=grid.node,
        run_id=_run_id(grid),
    )


def _whole(grid: flower.HttpGrid, asked: str, reply: _Arriving) -> flower.Message:
    """Confirm a reply and build it; one that is not built well is a fault of its site alone.

    It answers what SuperLink announced it for, whatever is written in it.
    """
    grid._runtime_client.ConfirmMessageReceived(  # noqa: SLF001  see flower_internals
        flower.ConfirmMessageReceivedRequest(
            node=grid.node, run_id=_run_id(grid), message_object_id=reply.message_id
        )
    )
    try:
        message = flower.inflate_object_from_contents(reply.message_id, reply.contents)
    except MALFORMED:
        message = None
    if not isinstance(message, flower.Message) or not _is_answer(message):
        code = flower.ErrorCode.CLIENT_APP_RAISED_EXCEPTION
        return _instead(grid, asked, code, "WireError:damaged")
    names = {"_message_id": reply.message_id, "_reply_to_message_id": asked}
    message.metadata.__dict__.update(names)
    return message


def _is_answer(message: flower.Message) -> bool:
    return message.has_error() or isinstance(message.content, RecordDict)


def _instead(grid: flower.HttpGrid, asked: str, code: int, why: str) -> flower.Message:
    """Say, as Flower does of one whose sender never finished it, why there is no reply."""
    metadata = flower.Metadata(
        run_id=_run_id(grid),
        message_id="",
        src_node_id=grid.node.node_id,
        dst_node_id=grid.node.node_id,
        reply_to_message_id=asked,
        group_id="",
        created_at=time.time(),
        ttl=0,
        message_type="system",
    )
    return flower.make_message(metadata, error=flower.Error(code=code, reason=why))
