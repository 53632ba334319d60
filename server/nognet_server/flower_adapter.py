"""Everything of Flower that the coordinator uses and Flower doesn't document, in one place.

`UNDOCUMENTED` names each of them; a test holds that they still exist in the installed release.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

from flwr.app import Error, Message, MessageType, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run

UNDOCUMENTED = (
    "flwr.app.message:make_message",
    "flwr.app.message.message:Message.metadata",
    "flwr.app.metadata:Metadata.ttl",
    "flwr.common.constant:ErrorCode.CLIENT_APP_CRASHED",
    "flwr.common.constant:ErrorCode.CLIENT_APP_RAISED_EXCEPTION",
    "flwr.common.constant:ErrorCode.INVALID_FAB",
    "flwr.common.constant:ErrorCode.LOAD_CLIENT_APP_EXCEPTION",
    "flwr.common.constant:ErrorCode.MESSAGE_UNAVAILABLE",
    "flwr.common.constant:ErrorCode.NODE_UNAVAILABLE",
    "flwr.common.constant:ErrorCode.REPLY_MESSAGE_UNAVAILABLE",
    "flwr.proto.node_pb2:NodeInfo",
    "flwr.serverapp.grid:Grid.get_nodes",
    "flwr.supercore.run:Run",
    "flwr.supercore.telemetry:FLWR_TELEMETRY_ENABLED",
)
ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}


def quiet_flower(*, verbose: bool = False) -> None:
    """Keep Flower's own log at warnings, telemetry and update checks off."""
    os.environ.update(ENVIRONMENT)
    from flwr.supercore import telemetry

    telemetry.FLWR_TELEMETRY_ENABLED = "0"  # it was read when Flower was imported
    logging.getLogger("flwr").setLevel(logging.INFO if verbose else logging.WARNING)


def reply_of(content: RecordDict) -> Message:
    """Wrap checked numbers as the reply message that a strategy aggregates."""
    metadata = Metadata(
        run_id=0,
        message_id="",
        src_node_id=0,
        dst_node_id=0,
        reply_to_message_id="",
        group_id="",
        created_at=0.0,
        ttl=1.0,
        message_type=MessageType.TRAIN,
    )
    return make_message(metadata, content=content)


_LOST = {
    ErrorCode.NODE_UNAVAILABLE: "offline",
    ErrorCode.MESSAGE_UNAVAILABLE: "message-lost",
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE: "reply-lost",
}
_FAILED = {
    ErrorCode.LOAD_CLIENT_APP_EXCEPTION: "client-app-not-loaded",
    ErrorCode.CLIENT_APP_RAISED_EXCEPTION: "client-app-failed",
    ErrorCode.INVALID_FAB: "bundle-refused",
    ErrorCode.CLIENT_APP_CRASHED: "client-app-crashed",
}


def is_lost(error: Error) -> bool:
    """Tell whether the SuperLink lost the message or the site, so that sending again helps."""
    return error.code in _LOST


def error_name(error: Error) -> str:
    """Name an error by Flower's code alone."""
    return {**_LOST, **_FAILED}.get(error.code, f"flower-error-{int(error.code)}")


class Chosen(Grid):
    """A grid that knows chosen nodes only; a strategy samples its sites from it.

    Strategies wait for ever for missing nodes and sample with a global generator; with exactly the
    round's sites here, each of them is taken.
    """

    def __init__(self, node_ids: Iterable[int]) -> None:
        super().__init__()
        self._node_ids = tuple(node_ids)

    def get_node_ids(self) -> Iterable[int]:
        """Give the chosen nodes."""
        return self._node_ids

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Give the chosen nodes, without more than their ids."""
        return [NodeInfo(node_id=node_id) for node_id in self._node_ids]

    def set_run(self, run: Run) -> None:
        """Refuse: nothing is sent through this grid."""
        raise self._refusal(run)

    @property
    def run(self) -> Run:
        """Refuse: nothing is sent through this grid."""
        raise self._refusal()

    def create_message(self, *arguments: object, **named: object) -> Message:
        """Refuse: nothing is sent through this grid."""
        raise self._refusal(arguments, named)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Refuse: nothing is sent through this grid."""
        raise self._refusal(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Refuse: nothing is sent through this grid."""
        raise self._refusal(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Refuse: nothing is sent through this grid."""
        raise self._refusal(messages, timeout)

    @staticmethod
    def _refusal(*_: object) -> NotImplementedError:
        return NotImplementedError("strategies of nognet only choose sites; they send nothing")
