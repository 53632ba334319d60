"""The coordinator's two children: how they are started, and in which order they end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from nognet.console import LogFormat
from nognet.supervision.children import Child, ChildSpec, flower_environment, stop_children
from nognet.supervision.events import EventPipe
from nognet_server.processes.control import Control
from nognet_server.processes.startup import Coordinator
from nognet_server.processes.status import SERVER_LOG
from nognet_server.runs.folder import RunFolder


@dataclass(frozen=True)
class ServeOptions:
    """What the command line of a start says.

    Attributes:
        resume: Go on with the run in the folder.
        log_format: Of the lines on stderr and of the children's log files.
        health_port: Loopback port of the gRPC health service; None for none.
        insecure: No TLS on the public listener, which is on loopback then.
    """

    resume: bool = False
    log_format: LogFormat = LogFormat.text
    health_port: int | None = None
    insecure: bool = False


@dataclass(frozen=True)
class Processes:
    """The two children, the pipe through which they tell what they do, and the control client."""

    superlink: Child
    executor: Child
    pipe: EventPipe
    control: Control


@contextlib.contextmanager
def running_processes(
    coordinator: Coordinator, folder: RunFolder, token: str, options: ServeOptions
) -> Iterator[Processes]:
    """Start both children, and end them at the end of the block, the executor first."""
    environment = flower_environment(coordinator.state / "flower", os.environ)
    pipe = EventPipe()
    control = Control(coordinator.control_address, coordinator.loopback.ca, token)
    superlink = Child(_superlink_spec(coordinator, folder, options), environment)
    executor = Child(_executor_spec(coordinator, folder, pipe, options), environment)
    try:
        superlink.start()
        executor.start()
        yield Processes(superlink, executor, pipe, control)
    finally:
        stop_children((executor,))
        stop_children((superlink,))
        control.close()
        pipe.close()


def _superlink_spec(
    coordinator: Coordinator, folder: RunFolder, options: ServeOptions
) -> ChildSpec:
    loopback, server = coordinator.loopback, coordinator.server
    certificate = ("--certificate", str(server.certificate), "--key", str(server.key))
    signature = server.bundle_signature
    arguments = (
        *("--listen", server.listen),
        *(() if options.insecure else certificate),
        *(() if signature is None else ("--bundle-signature", str(signature))),
        *("--control-token", str(coordinator.token_file)),
        *("--used-signatures", str(coordinator.used_signatures)),
        *("--log-format", options.log_format, "--run", folder.path.name),
        "--",
        *("--host", "127.0.0.1", "--port", str(server.control_port)),
        *("--ssl-ca-certfile", str(loopback.ca)),
        *("--ssl-certfile", str(loopback.certificate)),
        *("--ssl-keyfile", str(loopback.key)),
        "--enable-supernode-auth",
        *("--database", str(coordinator.database)),
        *("--isolation", "process"),
        *("--superexec-auth-secret-file", str(coordinator.secret_file)),
    )
    module = "nognet_server.processes.superlink"
    return ChildSpec("superlink", module, arguments, folder.logs / "superlink.log")


def _executor_spec(
    coordinator: Coordinator, folder: RunFolder, pipe: EventPipe, options: ServeOptions
) -> ChildSpec:
    arguments = (
        *("--address", coordinator.control_address),
        *("--ca", str(coordinator.loopback.ca)),
        *("--secret", str(coordinator.secret_file)),
        *("--events", str(pipe.write_end)),
        *("--log-format", options.log_format, "--run", folder.path.name),
        *("--log-file", str(folder.logs / SERVER_LOG)),
    )
    return ChildSpec(
        "executor",
        "nognet_server.processes.executor",
        arguments,
        folder.logs / "serverapp.log",
        shows_stderr=True,
        inherited_fds=(pipe.write_end,),
    )
