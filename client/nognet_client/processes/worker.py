"""The site's executor: takes ClientApp tasks and runs the installed ClientApp, nothing else.

In place of ``flower-superexec`` and ``flwr-clientapp``, which import the bundle that came with the
run and start a Python a message. Here the bundle is checked as data and dropped; torch is imported
once; each task runs in a forked child (before any thread or CUDA context exists), whose death is
reported at once; and of an exception nothing leaves but its class and code.

Run by the supervisor as ``python -m nognet_client.processes.worker --parent PID ...``.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import httpx
from flwr.app import Context, Message

from nognet.console import LogFormat, redirect_to_json, set_up_logging
from nognet.errors import NognetError, TrainingError
from nognet.supervision.children import describe_exit, parse_parent
from nognet.supervision.events import EventWriter
from nognet.supervision.parent import die_with_parent
from nognet.wire.records import MALFORMED, ROUND_KEY
from nognet_client.guard import public_code, told
from nognet_client.processes import flower_internals as flower
from nognet_client.processes.policy import COMPONENTS, RefusedBundleError, check_bundle
from nognet_client.processes.task_child import ClientApp, fork_and_wait

POLL_S = 0.1
RETRY_S = 0.3
log = logging.getLogger("nognet.worker")


def installed_app(chaos: str = "") -> ClientApp:
    """Import the ClientApp of the installed release; with faults, that of a rehearsal."""
    if chaos:
        from nognet_client.chaos import deployed_chaotic_app

        return deployed_chaotic_app(chaos)
    module, _, name = COMPONENTS["clientapp"].partition(":")
    app: ClientApp = getattr(importlib.import_module(module), name)
    return app


def serve(address: str, secret: bytes, events: EventWriter, app: ClientApp) -> NoReturn:
    """Take ClientApp tasks from the local SuperNode, one after the other."""
    flower.shorten_object_waits()
    client = _runtime_client(
        address,
        flower.SuperExecAuthHttpInterceptor(
            master_secret=secret, protected_methods=frozenset({flower.ACQUIRE_TASK_METHOD})
        ),
    )
    events.send("worker-ready")
    # never AGENT_APP, MODEL, CONNECTOR: Flower's other kinds run what the coordinator says
    wanted = flower.AcquireTaskRequest(supported_task_types=[flower.TaskType.CLIENT_APP])
    while True:
        try:
            response = client.AcquireTask(wanted)
            if response.HasField("task") and response.token:
                run_task(address, response.token, app, events)
        except httpx.TransportError:
            time.sleep(RETRY_S)  # the SuperNode is restarting
        except httpx.HTTPStatusError as err:
            log.info("a task was given up: its run was stopped (%d)", err.response.status_code)
        time.sleep(POLL_S)


def run_task(address: str, token: str, app: ClientApp, events: EventWriter) -> None:
    """Run one task in a forked child and report how it ended."""

    def connect() -> flower.RuntimeHttpClient:
        return _runtime_client(address, flower.RuntimeTokenHttpInterceptor(token))

    client = connect()
    try:
        read = _read_task(client)
        if read is None:
            return
        message, context, bundle = read
        try:
            check_bundle(bundle)
        except RefusedBundleError as refusal:
            log.error("a run was refused: %s", refusal)  # noqa: TRY400  no traceback needed
            events.send("refused", str(refusal))
            _reply_error(client, message, context, flower.ErrorCode.INVALID_FAB, refusal)
            return
        told: dict[str, Any] = {"task": message.metadata.message_type, "round": _round_of(message)}
        events.send("task", **told)
        code = fork_and_wait(connect, app, message, context)
        if code != 0:
            log.error("the %s task's process ended: %s", told["task"], describe_exit(code))
            how = f"process-killed-{-code}" if code < 0 else f"process-exit-{code}"
            death = TrainingError("the task's process died without an answer", code=how)
            _reply_error(client, message, context, flower.ErrorCode.CLIENT_APP_CRASHED, death)
        events.send("task-ended", **told, code=code)
    finally:
        client.close()


def _read_task(client: flower.RuntimeHttpClient) -> tuple[Message, Context, bytes] | None:
    """Read a task; None of one that can't be read, which ends that task and not this process.

    What the supervisor sees die again and again it gives up, and the site would be gone.
    """
    try:
        message, context, _, bundle = flower.pull_task_input(client)
    except MALFORMED:
        log.exception("a task can't be read; it is given up, and the coordinator is told no more")
        flower.push_task_output(
            client, context=None, sub_status=flower.SubStatus.FAILED, details=""
        )
        return None
    return message, context, bundle.content


def _round_of(message: Message) -> int | None:
    if not message.has_content():
        return None
    for record in message.content.config_records.values():
        number = record.get(ROUND_KEY)
        if isinstance(number, int):
            return number
    return None


def _reply_error(
    client: flower.RuntimeHttpClient,
    message: Message,
    context: Context,
    code: int,
    error: NognetError,
) -> None:
    public = told(message, context, public_code(error))
    reply = Message(flower.Error(code=code, reason=public), reply_to=message)
    flower.push_message(client, reply, context)
    flower.push_task_output(
        client, context=None, sub_status=flower.SubStatus.FAILED, details=public
    )


def _runtime_client(
    address: str, credentials: flower.ProtobufClientInterceptor
) -> flower.RuntimeHttpClient:
    return flower.RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=True,  # loopback
        root_certificates=None,
        interceptors=[
            flower.RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"),
            credentials,
        ],
        retry_invoker=_retry_invoker(),
    )


def _retry_invoker() -> flower.RetryInvoker:
    """Try again a few times when the SuperNode doesn't answer.

    Flower's own tries for ever, and on a refused token sends its process SIGINT.
    """
    return flower.RetryInvoker(
        wait_gen_factory=lambda: flower.constant(RETRY_S),
        recoverable_exceptions=httpx.TransportError,
        max_tries=10,
        max_time=None,
    )


def main() -> None:
    """Run tasks until the supervisor ends this process."""
    parent, arguments = parse_parent(sys.argv[1:])
    die_with_parent(parent)
    parser = argparse.ArgumentParser()
    for name in ("--address", "--secret", "--events", "--log-format", "--site"):
        parser.add_argument(name, required=True)
    parser.add_argument("--chaos", default="")
    options = parser.parse_args(arguments)
    log_format, fields = LogFormat(options.log_format), {"site": options.site}
    set_up_logging(log_format, fields=fields)
    flower.log_to_stdout()
    if log_format is LogFormat.json:
        redirect_to_json(flower.LOGGERS, fields)
    events = EventWriter(int(options.events))
    secret = Path(options.secret).read_bytes()
    serve(options.address, secret, events, installed_app(options.chaos))


if __name__ == "__main__":
    main()
