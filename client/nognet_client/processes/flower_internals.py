"""Every undocumented name of Flower that the site's processes use, in one place.

Flower is pinned to the line this was tested with (1.41); `tests/client/processes` holds that each
name and flag still exists and means the same.
"""

from __future__ import annotations

import contextlib
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import uvicorn.config
from flwr.app.error import Error
from flwr.common.constant import ErrorCode, SubStatus
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PullMessagesResponse,
)
from flwr.proto.run_pb2 import GetRunRequest
from flwr.proto.runtime_pb2 import AcquireTaskRequest, SendTaskHeartbeatRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.logger import FLOWER_LOGGER, console_handler
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supercore.retry import RetryInvoker, constant, http_retry
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode import fleet_http_connection, start_client_internal
from flwr.supernode.cli.flower_supernode import flower_supernode
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

LOGGERS = ("flwr", "uvicorn")
ACQUIRE_TASK_METHOD = "/flwr.proto.Runtime/AcquireTask"


def use_fleet_client(client: type[FleetHttpClient]) -> None:
    """Let the SuperNode talk to the coordinator through our subclass of Flower's client."""
    fleet_http_connection.FleetHttpClient = client  # type: ignore[attr-defined]  # theirs, not exported


def use_sleep(sleep: Callable[[float], None]) -> None:
    """Replace the hard-coded waits of the SuperNode's loop (3 s without, 0.5 s with a message)."""
    clock = types.SimpleNamespace(sleep=sleep)
    start_client_internal.time = clock  # type: ignore[attr-defined, assignment]  # theirs, not exported


def guard_pulls(guard: Callable[[Callable[[], int | None]], int | None]) -> None:
    """Let `guard` call the step that pulls a task, which gives the run's number or None."""
    pull = start_client_internal._pull_and_store_message  # noqa: SLF001  undocumented, hence here

    def guarded(**arguments: Any) -> int | None:  # noqa: ANN401  passed on as they are
        return guard(lambda: pull(**arguments))

    start_client_internal._pull_and_store_message = guarded  # type: ignore[assignment]  # noqa: SLF001


def watch_pushes(on_failure: Callable[[], object], part_within_s: float) -> None:
    """Call `on_failure` after a reply that could not be handed over; Flower logs it and goes on.

    A part that the task's process has not brought within `part_within_s` is such a failure, too:
    Flower would wait for it for ever, deaf to the coordinator.
    """
    push = start_client_internal._push_messages  # noqa: SLF001  undocumented, hence here

    def watched(**arguments: Any) -> None:  # noqa: ANN401  passed on as they are
        failures: list[Exception] = []

        def note(_: object, error: object, __: object) -> None:
            if isinstance(error, Exception):  # what tells of a run that has ended is none
                failures.append(error)

        def noting(call: Callable[..., Any]) -> Callable[..., Any]:
            def noted(*given: Any) -> Any:  # noqa: ANN401  passed on as they are
                with contextlib.ExitStack() as watching:
                    watching.push(note)
                    return call(*given)

            return noted

        store = arguments["object_store"]
        watched_store = types.SimpleNamespace(
            get=noting(_within(store.get, part_within_s)),
            get_object_tree=store.get_object_tree,
            delete=store.delete,
        )
        calls = {name: noting(arguments[name]) for name in ("send", "push_object")}
        push(**{**arguments, **calls, "object_store": watched_store})
        if failures:
            on_failure()

    start_client_internal._push_messages = watched  # type: ignore[assignment]  # noqa: SLF001


def _within(get: Callable[[str], bytes | None], seconds: float) -> Callable[[str], bytes | None]:
    """Give up a part of a reply that is announced and not there after `seconds`."""
    since: dict[str, float] = {}

    def get_within(object_id: str) -> bytes | None:
        content = get(object_id)
        now = time.monotonic()
        if content == b"" and now - since.setdefault(object_id, now) > seconds:
            raise TimeoutError(f"the task's process brought no part {object_id} in {seconds:g} s")
        return content

    return get_within


def log_to_stdout() -> None:
    """Send Flower's own log to stdout, the process's log file, and nowhere else."""
    console_handler.stream = sys.stdout
    FLOWER_LOGGER.propagate = False


def leave_uvicorns_log_alone() -> None:
    """Keep uvicorn, which the SuperNode serves its worker with, from setting its loggers up."""
    uvicorn.config.LOGGING_CONFIG["loggers"] = {}


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


def shorten_retry_waits(longest_s: int = 5) -> None:
    """Cap the growing waits between tries to reach a lost server (Flower: 20 s)."""
    http_retry.MAX_RETRY_DELAY = longest_s  # type: ignore[attr-defined]  # theirs, not exported


__all__ = [
    "ACQUIRE_TASK_METHOD",
    "LOGGERS",
    "AcquireTaskRequest",
    "ActivateNodeRequest",
    "ActivateNodeResponse",
    "DeactivateNodeRequest",
    "Error",
    "ErrorCode",
    "Fab",
    "FleetHttpClient",
    "GetRunRequest",
    "NodeAuthHttpInterceptor",
    "ObjectPushError",
    "ProtobufClientInterceptor",
    "PullMessagesRequest",
    "PullMessagesResponse",
    "RetryInvoker",
    "RuntimeHttpClient",
    "RuntimeTokenHttpInterceptor",
    "RuntimeVersionHttpInterceptor",
    "SendTaskHeartbeatRequest",
    "SubStatus",
    "SuperExecAuthHttpInterceptor",
    "TaskType",
    "constant",
    "fleet_http_connection",
    "flower_supernode",
    "guard_pulls",
    "leave_uvicorns_log_alone",
    "log_to_stdout",
    "public_key_to_bytes",
    "pull_task_input",
    "push_message",
    "push_task_output",
    "shorten_object_waits",
    "shorten_retry_waits",
    "start_client_internal",
    "use_fleet_client",
    "use_sleep",
    "watch_pushes",
]
