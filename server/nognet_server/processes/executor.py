"""Runs ServerApps for SuperLink, each in a forked child.

In place of ``flower-superexec``, which starts ``flwr-serverapp`` with the task's token on the
command line, where every user of the machine reads it, and notices its death after a minute. Here
torch and the app are imported once, before the fork; the child's end is reported at once; and it
dies with its parents.

Run by the supervisor as ``python -m nognet_server.processes.executor --parent PID ...``.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from types import FrameType

from nognet.console import LogFormat, redirect_to_json, set_up_logging
from nognet.supervision.children import describe_exit, parse_parent
from nognet.supervision.events import EventWriter
from nognet.supervision.parent import die_with_parent
from nognet_server.processes import flower_internals as flower
from nognet_server.processes.arrivals import Arrivals
from nognet_server.processes.status import tell_phases
from nognet_server.runs.flower_config import SERVER_APP

POLL_S = 0.2
STOP_GRACE_S = 6.0
log = logging.getLogger("nognet.executor")


@dataclass(frozen=True)
class Address:
    """SuperLink's Runtime API on loopback."""

    host_port: str
    ca: bytes
    secret: bytes


class _Stopped(Exception):  # noqa: N818  not an error: the supervisor asked us to end
    pass


def execute_tasks(address: Address, events: EventWriter) -> None:
    """Take ServerApp tasks one after the other, until SIGTERM."""
    _import_once()
    flower.shorten_object_waits()
    client = flower.RuntimeHttpClient.from_server_address(
        server_address=address.host_port,
        insecure=False,
        root_certificates=address.ca,
        interceptors=[
            flower.RuntimeVersionHttpInterceptor(component_name="SuperExec"),
            flower.SuperExecAuthHttpInterceptor(
                master_secret=address.secret,
                protected_methods=frozenset({flower.ACQUIRE_TASK_METHOD}),
            ),
        ],
        retry_invoker=flower.make_simple_http_retry_invoker(),
    )
    events.send("executor-ready")
    wanted = flower.AcquireTaskRequest(supported_task_types=[flower.TaskType.SERVER_APP])
    while True:
        response = client.AcquireTask(wanted)
        if response.HasField("task") and response.token:
            _run_task(address, response.token, events)
        time.sleep(POLL_S)


def _import_once() -> None:
    """Import the app and torch before the fork, also what torch imports when it is first used."""
    importlib.import_module(SERVER_APP.partition(":")[0])
    import torch

    with torch.device("meta"):
        pass


def _run_task(address: Address, token: str, events: EventWriter) -> None:
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _serverapp_child(address, token, parent, events)
    events.send("serverapp-started", pid=pid)
    try:
        _, status = os.waitpid(pid, 0)
    except _Stopped:
        _end_child(pid)
        raise
    code = os.waitstatus_to_exitcode(status)
    events.send("serverapp-ended", describe_exit(code), code=code)


def _serverapp_child(address: Address, token: str, parent: int, events: EventWriter) -> None:
    """Be the ServerApp's process; never returns."""
    try:
        die_with_parent(parent)
        tell_phases(events)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        flower.use_pull(Arrivals().pull)
        flower.run_serverapp(
            runtime_api_address=address.host_port,
            log_queue=Queue(),
            token=token,
            insecure=False,
            certificates=address.ca,
            runtime_dependency_install=False,
        )
    except SystemExit as ended:
        code = ended.code
        _leave(code if isinstance(code, int) else int(code is not None))
    except BaseException:  # a forked child must never return into its parent's stack
        log.exception("the ServerApp's process failed")
        _leave(70)
    _leave(0)


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _end_child(pid: int) -> None:
    """Interrupt the ServerApp, so that it writes down where it stands; then make sure."""
    os.kill(pid, signal.SIGINT)
    deadline = time.monotonic() + STOP_GRACE_S
    while time.monotonic() < deadline:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _on_stop(_number: int, _frame: FrameType | None) -> None:
    # not SIG_IGN: a second SIGTERM on its way then ends in a traceback of Python's own
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    raise _Stopped


def main() -> None:
    """Run tasks until SIGTERM."""
    parent, arguments = parse_parent(sys.argv[1:])
    die_with_parent(parent)
    parser = argparse.ArgumentParser()
    for name in (
        "--address",
        "--ca",
        "--secret",
        "--events",
        "--log-format",
        "--log-file",
        "--run",
    ):
        parser.add_argument(name, required=True)
    options = parser.parse_args(arguments)
    log_format, fields = LogFormat(options.log_format), {"run": options.run}
    set_up_logging(log_format, fields=fields, file=Path(options.log_file))
    flower.log_to_stdout()
    if log_format is LogFormat.json:
        redirect_to_json(flower.LOGGERS, fields)
    signal.signal(signal.SIGTERM, _on_stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    address = Address(
        options.address, Path(options.ca).read_bytes(), Path(options.secret).read_bytes()
    )
    try:
        execute_tasks(address, EventWriter(int(options.events)))
    except _Stopped:
        sys.exit(0)


if __name__ == "__main__":
    main()
