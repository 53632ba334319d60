"""Every undocumented name of Flower that the coordinator's processes use, in one place.

Flower is pinned to the line this was tested with (1.41); `tests/server/processes` holds that each
name, flag and route still exists and means the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping

from flwr.app import Error, Message, Metadata
from flwr.app.message import make_message
from flwr.cli.build import build_fab_from_files
from flwr.common.constant import (
    ACCESS_TOKEN_KEY,
    NOOP_ACCOUNT_NAME,
    NOOP_FLWR_AID,
    SYSTEM_TIME_TOLERANCE,
    TIMESTAMP_TOLERANCE,
    ErrorCode,
)
from flwr.common.constant import TIMESTAMP_HEADER as _TIMESTAMP_HEADER
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree
from flwr.proto.runtime_pb2 import AcquireTaskRequest, PullAppMessagesRequest
from flwr.supercore.auth.typing import AccountInfo
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
    NodeStatus,
    TaskType,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.corestate.sql_corestate import SqlCoreState
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.fab import Fab
from flwr.supercore.http_logging import get_uvicorn_log_config
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectUnavailableError,
    inflate_object_from_contents,
    pull_objects,
)
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.logger import FLOWER_LOGGER, console_handler
from flwr.supercore.primitives.asymmetric import (
    bytes_to_public_key,
    public_key_to_bytes,
    verify_signature,
)
from flwr.supercore.primitives.asymmetric_ed25519 import create_message_to_sign
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.superlink.auth_plugin import ControlAuthnPlugin
from flwr.superlink.cli.flower_superlink import (
    SuperLinkLifespan,
    _parse_superlink_lifespan_config,
)
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.grid.http_grid import HttpGrid
from flwr.superlink.main import create_app
from flwr.superlink.runtime import run_serverapp
from google.protobuf.message import DecodeError

parse_superlink_config = _parse_superlink_lifespan_config
ACQUIRE_TASK_METHOD = "/flwr.proto.Runtime/AcquireTask"
ACTIVATE_NODE_PATH = "/v1/fleet/activate-node"
PUSH_MESSAGES_PATH = "/v1/fleet/push-messages"
PUBLIC_KEY_HEADER = FLEET_HTTP_PUBLIC_KEY_HEADER.lower().encode("ascii")
SIGNATURE_HEADER = FLEET_HTTP_SIGNATURE_HEADER.lower().encode("ascii")
TIMESTAMP_HEADER = _TIMESTAMP_HEADER.lower().encode("ascii")
PUBLIC_ROUTES = frozenset(
    {
        ("GET", "/health"),
        ("POST", ACTIVATE_NODE_PATH),
        ("POST", "/v1/fleet/deactivate-node"),
        ("POST", "/v1/fleet/send-node-heartbeat"),
        ("POST", "/v1/fleet/pull-messages"),
        ("POST", PUSH_MESSAGES_PATH),
        ("POST", "/v1/fleet/get-run"),
        ("POST", "/v1/fleet/get-fab"),
        ("POST", "/v1/fleet/pull-object"),
        ("POST", "/v1/fleet/push-object"),
        ("POST", "/v1/fleet/confirm-message-received"),
    }
)
"""All that a registered site asks for, exactly; registering is not among it."""


LOGGERS = ("flwr", "uvicorn")


def attach_verifications(bundle_hash: str, verifications: Mapping[str, str]) -> None:
    """Hand a bundle out with signatures: Flower takes them from its own hub alone."""
    get_fab = SqlCoreState.get_fab

    def get_signed(self: SqlCoreState, fab_hash: str) -> Fab | None:
        fab = get_fab(self, fab_hash)
        if fab is None or fab_hash != bundle_hash:
            return fab
        return Fab(fab.hash_str, fab.content, {**fab.verifications, **verifications})

    SqlCoreState.get_fab = get_signed  # type: ignore[method-assign]  # theirs has no setting


def speaks_for_another(body: bytes) -> bool:
    """Whether replies pushed by one node are written in the name of another.

    SuperLink holds the sender to be the key's node, but not the author of the reply within. What
    can't be read is left to SuperLink's own refusal.
    """
    try:
        request = PushMessagesRequest.FromString(body)
    except DecodeError:
        return False
    authors = {reply.metadata.src_node_id for reply in request.messages_list}
    return not authors <= {request.node.node_id}


def use_pull(pull: Callable[[HttpGrid, Iterable[str]], Iterable[Message]]) -> None:
    """Let the ServerApp's grid pull replies with a function of ours; theirs waits for each byte."""

    def pull_messages(grid: HttpGrid, message_ids: Iterable[str]) -> Iterable[Message]:
        return pull(grid, message_ids)

    HttpGrid.pull_messages = pull_messages  # type: ignore[method-assign, assignment]  # not made to be replaced


def log_to_stdout() -> None:
    """Send Flower's own log to stdout, the process's log file, and nowhere else."""
    console_handler.stream = sys.stdout
    FLOWER_LOGGER.propagate = False


def shorten_object_waits(initial_s: float = 0.05, cap_s: float = 2.0) -> None:
    """Shorten the waits between looks at an object that is still on its way (1 s to 10 s)."""
    for pull in (
        inflatable_utils.pull_objects,
        inflatable_utils.pull_and_inflate_object_from_tree,
    ):
        defaults = pull.__kwdefaults__
        if defaults is None:
            raise TypeError("Flower's pull functions have lost their keyword defaults")
        defaults["initial_backoff"], defaults["backoff_cap"] = initial_s, cap_s


__all__ = [
    "ACCESS_TOKEN_KEY",
    "ACQUIRE_TASK_METHOD",
    "ACTIVATE_NODE_PATH",
    "LOGGERS",
    "NOOP_ACCOUNT_NAME",
    "NOOP_FLWR_AID",
    "PUBLIC_KEY_HEADER",
    "PUBLIC_ROUTES",
    "PUSH_MESSAGES_PATH",
    "SIGNATURE_HEADER",
    "SYSTEM_TIME_TOLERANCE",
    "TIMESTAMP_HEADER",
    "TIMESTAMP_TOLERANCE",
    "AccountInfo",
    "AcquireTaskRequest",
    "ApiErrorCode",
    "ConfirmMessageReceivedRequest",
    "ControlAuthnPlugin",
    "ControlHttpClient",
    "Error",
    "ErrorCode",
    "Fab",
    "FlowerError",
    "HttpGrid",
    "ListNodesRequest",
    "ListRunsRequest",
    "Message",
    "Metadata",
    "NodeStatus",
    "ObjectPullError",
    "ObjectTree",
    "ObjectUnavailableError",
    "ProtobufCall",
    "ProtobufRequestContext",
    "PullAppMessagesRequest",
    "RegisterNodeRequest",
    "RuntimeHttpClient",
    "RuntimeVersionHttpInterceptor",
    "StartRunRequest",
    "StopRunRequest",
    "SuperExecAuthHttpInterceptor",
    "SuperLinkLifespan",
    "SuperLinkLifespanConfig",
    "TaskType",
    "UnregisterNodeRequest",
    "attach_verifications",
    "build_fab_from_files",
    "bytes_to_public_key",
    "create_app",
    "create_message_to_sign",
    "fab_to_proto",
    "get_uvicorn_log_config",
    "inflate_object_from_contents",
    "iterate_object_tree",
    "log_to_stdout",
    "make_message",
    "make_pull_object_fn_protobuf",
    "make_simple_http_retry_invoker",
    "parse_superlink_config",
    "public_key_to_bytes",
    "pull_objects",
    "run_serverapp",
    "shorten_object_waits",
    "speaks_for_another",
    "use_pull",
    "user_config_to_proto",
    "verify_signature",
]
