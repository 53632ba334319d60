"""A grid of scripted sites: who is online when, what is answered, what gets lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Error, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run

Answer = Callable[[Message], RecordDict | Error | None]


@dataclass
class FakeNode:
    """A node: its registered name, how it answers, and from which poll to which it is offline."""

    name: str
    answer: Answer
    offline: tuple[int, int] = (0, 0)
    restarts_at: int | None = None
    """At this poll it comes back with a new activation, and all its messages are gone."""
    received: list[Message] = field(default_factory=list)

    def is_online(self, poll: int) -> bool:
        """Tell whether it is online at a poll."""
        return not self.offline[0] <= poll < self.offline[1]

    def activation(self, poll: int) -> str:
        """Give its activation time as text."""
        return "second" if self.restarts_at is not None and poll >= self.restarts_at else "first"


class FakeGrid(Grid):
    """Time is counted in calls of `get_nodes`."""

    def __init__(self, nodes: dict[int, FakeNode]) -> None:
        super().__init__()
        self.nodes = nodes
        self.poll = 0
        self.waiting: dict[str, tuple[Message, str]] = {}
        self.sent = 0

    def get_nodes(self) -> list[NodeInfo]:
        """Give the nodes that are online, and let time pass."""
        self.poll += 1
        return [
            NodeInfo(node_id=i, name=node.name, last_activated_at=node.activation(self.poll))
            for i, node in self.nodes.items()
            if node.is_online(self.poll)
        ]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Take messages; each gets an id."""
        ids = []
        for message in messages:
            self.sent += 1
            name = f"m{self.sent}"
            message.metadata.__dict__["_message_id"] = name
            node = self.nodes[message.metadata.dst_node_id]
            node.received.append(message)
            self.waiting[name] = (message, node.activation(self.poll))
            ids.append(name)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Give the replies that are there."""
        replies = []
        for name in sorted(message_ids):
            if name not in self.waiting:
                continue
            message, activation = self.waiting[name]
            node = self.nodes[message.metadata.dst_node_id]
            if node.activation(self.poll) != activation:
                continue  # died with the node's last life
            answer = node.answer(message)
            if answer is not None:
                del self.waiting[name]
                replies.append(Message(answer, reply_to=message))
        return replies

    def get_node_ids(self) -> list[int]:
        """Give the ids of the nodes that are online."""
        return [int(node.node_id) for node in self.get_nodes()]

    def set_run(self, run: Run) -> None:
        """Unused."""
        raise NotImplementedError

    @property
    def run(self) -> Run:
        """Unused."""
        raise NotImplementedError

    def create_message(self, *arguments: Any, **named: Any) -> Message:
        """Unused."""
        raise NotImplementedError

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Unused."""
        raise NotImplementedError
