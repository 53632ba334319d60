"""Replies under way: those that are here are given at once, half ones are waited for by nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    PullObjectRequest,
    PullObjectResponse,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from nognet_server.flower_adapter import is_lost
from nognet_server.processes.arrivals import FORGET_AFTER_S, LOOK_S, Arrivals

pytestmark = pytest.mark.usefixtures("flower_task")


def reply_to(asked: str, value: float) -> Message:
    array = Array(np.full(8, value, np.float32))
    message = Message(RecordDict({"w": ArrayRecord({"flat": array})}), 1, "train")
    message.metadata.__dict__["_reply_to_message_id"] = asked
    message.metadata.__dict__["_message_id"] = message.object_id
    return message


@dataclass
class Coordinator:
    """SuperLink's side: replies announced once, parts that are there or not."""

    replies: dict[str, Message]
    arrived: dict[str, bytes] = field(default_factory=dict)
    expired: set[str] = field(default_factory=set)
    announced: list[str] = field(default_factory=list)
    confirmed: list[str] = field(default_factory=list)
    looks: int = 0
    announce: Callable[[Message], Any] = message_to_proto

    def PullMessages(  # noqa: N802  Flower's interface
        self, request: PullAppMessagesRequest
    ) -> PullAppMessagesResponse:
        asked = [name for name in request.message_ids if name in self.replies]
        assert not set(asked) & set(self.announced), "SuperLink tells of a reply once"
        self.announced += asked
        return PullAppMessagesResponse(
            messages_list=[self.announce(self.replies[name]) for name in asked],
            message_object_trees=[get_object_tree(self.replies[name]) for name in asked],
        )

    def PullObject(  # noqa: N802  Flower's interface
        self, request: PullObjectRequest
    ) -> PullObjectResponse:
        name = request.object_id
        self.looks += 1
        if name in self.expired:
            return PullObjectResponse(object_found=False)
        content = self.arrived.get(name, b"")
        return PullObjectResponse(
            object_found=True, object_available=content != b"", object_content=content
        )

    def ConfirmMessageReceived(  # noqa: N802  Flower's interface
        self, request: ConfirmMessageReceivedRequest
    ) -> ConfirmMessageReceivedResponse:
        self.confirmed.append(request.message_object_id)
        return ConfirmMessageReceivedResponse()

    def receive(self, asked: str, parts: slice = slice(None)) -> list[str]:
        objects = get_all_nested_objects(self.replies[asked])
        names = list(objects)[parts]
        self.arrived |= {name: objects[name].deflate() for name in names}
        return list(objects)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def pull(arrivals: Arrivals, superlink: Coordinator, asked: Iterable[str]) -> list[Message]:
    grid = SimpleNamespace(
        _runtime_client=superlink, node=Node(node_id=1), run=SimpleNamespace(run_id=7)
    )
    return arrivals.pull(grid, asked)  # type: ignore[arg-type]  # what it uses of a grid


def flat(message: Message) -> np.ndarray:
    return message.content.array_records["w"]["flat"].numpy()


def test_a_half_reply_holds_up_nobody() -> None:
    superlink = Coordinator({"a": reply_to("a", 1.0), "b": reply_to("b", 2.0)})
    superlink.receive("a", slice(2))
    superlink.receive("b")
    arrivals = Arrivals(Clock())
    (first,) = pull(arrivals, superlink, ("a", "b"))
    assert first.metadata.reply_to_message_id == "b"
    np.testing.assert_array_equal(flat(first), np.full(8, 2.0, np.float32))
    assert pull(arrivals, superlink, ("a",)) == []
    superlink.receive("a")
    (second,) = pull(arrivals, superlink, ("a",))
    np.testing.assert_array_equal(flat(second), np.full(8, 1.0, np.float32))
    assert superlink.confirmed == [superlink.replies[name].object_id for name in ("b", "a")]
    assert superlink.announced == ["a", "b"]


def test_a_reply_whose_sender_never_finished_is_an_error_as_flowers_own() -> None:
    superlink = Coordinator({"a": reply_to("a", 1.0)})
    names = superlink.receive("a", slice(1))
    arrivals = Arrivals(Clock())
    assert pull(arrivals, superlink, ("a",)) == []
    superlink.expired |= set(names)
    (gone,) = pull(arrivals, superlink, ("a",))
    assert gone.metadata.reply_to_message_id == "a"
    assert is_lost(gone.error)


def damaged_reply(how: str) -> Message:
    """Make a reply as a hostile site may: an object that says of itself what it isn't."""
    made = reply_to("a", 1.0)
    if how == "another's":
        made.metadata.__dict__["_reply_to_message_id"] = "b"
    elif how == "no records":
        made.__dict__["_content"] = made.content.array_records["w"]
    made.metadata.__dict__["_message_id"] = made.object_id
    return made


def announced_as(asked: str) -> Callable[[Message], Any]:
    """Announce a reply well, whatever it is."""

    def announce(reply: Message) -> Any:
        proto = message_to_proto(reply_to(asked, 1.0))
        proto.metadata.message_id = reply.metadata.message_id
        return proto

    return announce


@pytest.mark.parametrize("how", ["bytes", "no records"])
def test_a_reply_that_is_not_built_well_is_its_sites_fault_and_nobody_elses(how: str) -> None:
    superlink, arrivals = Coordinator({"a": damaged_reply(how)}), Arrivals(Clock())
    superlink.announce = announced_as("a")
    names = superlink.receive("a")
    if how == "bytes":
        superlink.arrived[names[-1]] = b"Message 3\0abc"
    (first,) = pull(arrivals, superlink, ("a",))
    assert (first.metadata.reply_to_message_id, first.error.reason) == ("a", "WireError:damaged")
    assert not is_lost(first.error)


def test_a_reply_answers_what_it_was_announced_for_whatever_it_says_itself() -> None:
    superlink = Coordinator({"a": damaged_reply("another's")})
    superlink.announce = announced_as("a")
    superlink.receive("a")
    (found,) = pull(Arrivals(Clock()), superlink, ("a",))
    assert found.metadata.reply_to_message_id == "a"


def test_a_half_reply_that_nobody_asks_for_is_let_go() -> None:
    superlink, clock = Coordinator({"a": reply_to("a", 1.0)}), Clock()
    arrivals = Arrivals(clock)
    assert pull(arrivals, superlink, ("a",)) == []
    clock.now += FORGET_AFTER_S + 1
    assert pull(arrivals, superlink, ()) == []
    with pytest.raises(AssertionError, match="once"):  # it would be asked for anew
        pull(arrivals, superlink, ("a",))


def test_a_long_upload_is_looked_for_ever_less_often_until_a_part_comes() -> None:
    superlink = Coordinator({"a": reply_to("a", 1.0)})
    now = 0.0
    arrivals = Arrivals(lambda: now)

    def looks(seconds: float) -> int:
        nonlocal now
        before = superlink.looks
        until = now + seconds
        while now < until:
            now += 0.01
            assert pull(arrivals, superlink, ("a",)) == []
        return superlink.looks - before

    assert looks(1.0) >= 3
    assert looks(10.0) <= 2 * 11  # once a second, at most two parts at once
    superlink.receive("a", slice(1))
    assert looks(2.0) >= 4  # the part that came, and what may follow it
    superlink.receive("a")
    now += LOOK_S[1]
    assert len(pull(arrivals, superlink, ("a",))) == 1
