"""One task in a forked child: the app called, its reply handed over, its death reported."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

import httpx
from flwr.app import Context, Message

from nognet.errors import NognetError
from nognet.supervision.parent import die_with_parent
from nognet_client.guard import public_code, told
from nognet_client.processes import flower_internals as flower

log = logging.getLogger("nognet.worker")
ClientApp = Callable[[Message, Context], Message]
HEARTBEAT_S = 2.0
"""So often the SuperNode is asked whether it still wants the task: it ends with a stopped run."""
ENDING_S = 1.0
"""A child that has handed its reply over, so that the task is wanted no more, ends within this."""


def fork_and_wait(
    connect: Callable[[], flower.RuntimeHttpClient],
    app: ClientApp,
    message: Message,
    context: Context,
) -> int:
    """Run the app in a forked child; return its exit code (negative: the signal).

    Each side connects for itself, after the fork: over one connection the child could read the
    answer to a heartbeat as that to its reply, and would hand over none of the reply's parts.
    """
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _be_child(connect, app, message, context, parent)
    with connect() as client:
        return _wait(client, pid)


def _wait(client: flower.RuntimeHttpClient, pid: int) -> int:
    while True:
        code = _code_within(pid, HEARTBEAT_S)
        if code is None and not _is_wanted(client):
            code = _code_within(pid, ENDING_S)
            if code is None:
                os.kill(pid, signal.SIGTERM)
        if code is not None:
            return code


def _code_within(pid: int, seconds: float) -> int | None:
    """Wait for a child's exit code (negative: the signal); None where it goes on for longer."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return None


def _is_wanted(client: flower.RuntimeHttpClient) -> bool:
    try:
        return bool(client.SendTaskHeartbeat(flower.SendTaskHeartbeatRequest()).success)
    except (httpx.HTTPStatusError, httpx.TransportError):
        return False  # the SuperNode has ended, or was restarted, and knows this task no more


def _be_child(
    connect: Callable[[], flower.RuntimeHttpClient],
    app: ClientApp,
    message: Message,
    context: Context,
    parent: int,
) -> NoReturn:
    """Run the app and push its reply; never returns into the worker's stack."""
    code = 70
    try:
        die_with_parent(parent)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        reply, failure = reply_of(app, message, context)
        client = connect()
        flower.push_message(client, reply, context)
        flower.push_task_output(
            client,
            context=context if failure is None else None,
            sub_status=flower.SubStatus.COMPLETED if failure is None else flower.SubStatus.FAILED,
            details=failure or "",
        )
        code = 0
    except (httpx.HTTPError, flower.ObjectPushError) as err:  # the way to the coordinator is cut
        log.warning(
            "the reply can't be handed over now (%s); it is kept, and given when the coordinator "
            "asks again",
            type(err).__name__,
        )
    except BaseException:  # a forked child must never return into its parent's stack
        log.exception("the task's process failed to hand over its reply")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def reply_of(app: ClientApp, message: Message, context: Context) -> tuple[Message, str | None]:
    """Call the app; an exception becomes its class and code, and nothing else of it leaves."""
    try:
        return app(message, context), None
    except NognetError as err:
        log.error("%s", err)  # noqa: TRY400  its message says what to do
        public = public_code(err)
    except Exception as err:  # the guard at the site's edge (style.md 9)
        log.exception("the %s task failed", message.metadata.message_type)
        public = public_code(err)
    public = told(message, context, public)
    error = flower.Error(code=flower.ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=public)
    return Message(error, reply_to=message), public
