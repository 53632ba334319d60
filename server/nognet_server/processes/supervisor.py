"""Start and watch SuperLink and the executor, submit the run, and end with its exit code."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx

from nognet.config import StudyConfig
from nognet.console import LogFormat
from nognet.errors import INTERRUPTED_EXIT_CODE, FederationError
from nognet.supervision.children import (
    Child,
    ChildSpec,
    StopRequest,
    describe_exit,
    flower_environment,
    stop_children,
)
from nognet.supervision.events import EventPipe
from nognet_server.processes.control import Control
from nognet_server.processes.startup import Coordinator, check_ports, lay_ready
from nognet_server.run_config import RunSettings
from nognet_server.run_folder import Outcome, RunFolder, read_outcome

START_TIMEOUT_S = 60.0
LOOP_S = 0.1
STATUS_EVERY_S = 1.0
QUICK_DEATHS = 5
log = logging.getLogger("nognet.server")


@dataclass(frozen=True)
class Processes:
    """The two children, the pipe through which they tell what they do, and the control client."""

    superlink: Child
    executor: Child
    pipe: EventPipe
    control: Control


def serve_run(
    coordinator: Coordinator,
    study: StudyConfig,
    folder: RunFolder,
    *,
    resume: bool,
    log_format: LogFormat,
) -> Outcome:
    """Run a study to its end, or until SIGINT or SIGTERM.

    Raises:
        FederationError: a port is taken, or SuperLink or the executor can't run.
    """
    check_ports(coordinator)
    token = lay_ready(coordinator)
    folder.outcome.unlink(missing_ok=True)
    settings = RunSettings(study, folder.path, resume=resume)
    with StopRequest() as stop, _processes(coordinator, folder, token, log_format) as processes:
        if not _wait_until_healthy(processes, stop):
            return _interrupted(folder)
        change = processes.control.register_sites(coordinator.sites)
        if change.removed:
            log.info("no longer registered: %s", ", ".join(change.removed))
        log.info(
            "listening on %s for %s",
            coordinator.server.listen,
            ", ".join(site.name for site in coordinator.sites),
        )
        processes.control.stop_unfinished_runs()
        run = processes.control.start_run(settings.to_run_config())
        log.info("run %s: %s", study.name, folder.path)
        outcome = _follow_run(processes, run, folder, stop)
        if outcome is not None:
            return outcome
        log.info("stopping")
        stop_children((processes.executor,))
        with contextlib.suppress(httpx.HTTPError):
            processes.control.stop_run(run)
        return _interrupted(folder)


def _follow_run(
    processes: Processes, run: int, folder: RunFolder, stop: StopRequest
) -> Outcome | None:
    """Watch until the run has ended; None if a stop was requested."""
    next_look = 0.0
    while not stop.wait(LOOP_S):
        ended = _drain(processes)
        _revive(processes, folder)
        if not ended and time.monotonic() < next_look:
            continue
        next_look = time.monotonic() + STATUS_EVERY_S
        outcome = read_outcome(folder)
        if outcome is not None:
            interrupted = outcome.exit_code == INTERRUPTED_EXIT_CODE
            return _interrupted(folder) if interrupted else outcome
        if ended:
            return _died(folder, "its process ended without a word")
        with contextlib.suppress(httpx.HTTPError):  # SuperLink is restarting: ask again
            status = processes.control.run_status(run)
            if status.is_finished:
                return read_outcome(folder) or _died(folder, status.details)
    return None


def _drain(processes: Processes) -> bool:
    """Read what the children told; return whether the ServerApp has ended."""
    return any(event.kind == "serverapp-ended" for event in processes.pipe.drain())


def _revive(processes: Processes, folder: RunFolder) -> None:
    """Restart a child that died; the run survives SuperLink's death, not the executor's."""
    for child in (processes.superlink, processes.executor):
        code = child.reap()
        if code is not None:
            log.warning("%s ended (%s)", child.spec.name, describe_exit(code))
            if child is processes.executor:
                raise FederationError(
                    f"the executor of the ServerApp ended ({describe_exit(code)}); go on with "
                    f"nognet-server --resume {folder.path}. The end of {child.spec.log}:\n"
                    f"{child.log_tail()}",
                    code="executor-died",
                )
        if child.due:
            _give_up_on_quick_deaths(child)
            child.start()


def _give_up_on_quick_deaths(child: Child) -> None:
    if child.failures >= QUICK_DEATHS:
        raise FederationError(
            f"{child.spec.name} died {child.failures} times in a row; the end of "
            f"{child.spec.log}:\n{child.log_tail()}",
            code="superlink-dies",
        )


def _wait_until_healthy(processes: Processes, stop: StopRequest) -> bool:
    started = time.monotonic()
    while not stop.wait(0.05):
        if processes.control.is_healthy():
            log.info("SuperLink is up after %.1f s", time.monotonic() - started)
            return True
        child = processes.superlink
        if not child.running or time.monotonic() - started > START_TIMEOUT_S:
            raise FederationError(
                f"SuperLink did not start; the end of {child.spec.log}:\n{child.log_tail()}",
                code="superlink-start",
            )
    return False


def _died(folder: RunFolder, details: str) -> Outcome:
    message = (
        f"the ServerApp ended without an outcome ({details}); see {folder.logs}, and go on with "
        f"nognet-server --resume {folder.path}"
    )
    return Outcome(FederationError.exit_code, message)


def _interrupted(folder: RunFolder) -> Outcome:
    message = f"interrupted; go on with nognet-server --resume {folder.path}"
    return Outcome(INTERRUPTED_EXIT_CODE, message)


@contextlib.contextmanager
def _processes(
    coordinator: Coordinator, folder: RunFolder, token: str, log_format: LogFormat
) -> Iterator[Processes]:
    environment = flower_environment(coordinator.state / "flower", os.environ)
    pipe = EventPipe()
    control = Control(coordinator.control_address, coordinator.loopback.ca, token)
    superlink = Child(_superlink_spec(coordinator, folder), environment)
    executor = Child(_executor_spec(coordinator, folder, pipe, log_format), environment)
    try:
        superlink.start()
        executor.start()
        yield Processes(superlink, executor, pipe, control)
    finally:
        stop_children((executor,))
        stop_children((superlink,))
        control.close()
        pipe.close()


def _superlink_spec(coordinator: Coordinator, folder: RunFolder) -> ChildSpec:
    loopback, server = coordinator.loopback, coordinator.server
    arguments = (
        *("--listen", server.listen),
        *("--certificate", str(server.certificate), "--key", str(server.key)),
        *("--control-token", str(coordinator.token_file)),
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
    coordinator: Coordinator, folder: RunFolder, pipe: EventPipe, log_format: LogFormat
) -> ChildSpec:
    arguments = (
        *("--address", coordinator.control_address),
        *("--ca", str(coordinator.loopback.ca)),
        *("--secret", str(coordinator.secret_file)),
        *("--events", str(pipe.write_end), "--log-format", log_format),
    )
    return ChildSpec(
        "executor",
        "nognet_server.processes.executor",
        arguments,
        folder.logs / "serverapp.log",
        shows_stderr=True,
        inherited_fds=(pipe.write_end,),
    )
