"""Start and watch SuperLink and the executor, submit the run, and end with its exit code."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import httpx

from nognet.config import StudyConfig
from nognet.errors import INTERRUPTED_EXIT_CODE, FederationError, NognetError
from nognet.supervision.children import Child, StopRequest, describe_exit, stop_children
from nognet.supervision.health import HealthPort
from nognet.training_bar import StepLines
from nognet_server.processes.control import RunStatus
from nognet_server.processes.family import Processes, ServeOptions, running_processes
from nognet_server.processes.startup import Coordinator, check_ports, lay_ready
from nognet_server.processes.status import StatusFiles
from nognet_server.runs.beginning import PRETRAINING, lay_beginning
from nognet_server.runs.flower_config import RunSettings
from nognet_server.runs.folder import Outcome, RunFolder, disk_hint, read_outcome

START_TIMEOUT_S = 60.0
LOOP_S = 0.1
STATUS_EVERY_S = 1.0
LINGER_S = 2.5
"""A site at work asks every 1.5 s whether its run goes on."""
QUICK_DEATHS = 5
log = logging.getLogger("nognet.server")


def serve_run(
    coordinator: Coordinator, study: StudyConfig, folder: RunFolder, options: ServeOptions
) -> Outcome:
    """Run a study to its end, or until SIGINT, SIGTERM or SIGHUP.

    Raises:
        FederationError: a port is taken, or SuperLink or the executor can't run.
    """
    folders = (coordinator.state, folder.path)
    status = StatusFiles(folders, folder.path, study.rounds)
    try:
        outcome = _serve(coordinator, study, folder, options, status)
    except NognetError as err:
        status.change("failed", str(err), exit_code=err.exit_code)
        raise
    ended = {0: "completed", INTERRUPTED_EXIT_CODE: "interrupted"}
    state = ended.get(outcome.exit_code, "failed")
    status.change(state, outcome.message, exit_code=outcome.exit_code)
    return outcome


def _serve(
    coordinator: Coordinator,
    study: StudyConfig,
    folder: RunFolder,
    options: ServeOptions,
    status: StatusFiles,
) -> Outcome:
    check_ports(coordinator)
    token = lay_ready(coordinator)
    folder.outcome.unlink(missing_ok=True)
    settings = RunSettings(study, folder.path, resume=options.resume)
    with (
        StopRequest() as stop,
        HealthPort(options.health_port) as health,
        running_processes(coordinator, folder, token, options) as processes,
    ):
        if not _wait_until_healthy(processes, stop):
            return _interrupted(folder)
        health.set(serving=True)
        change = processes.control.register_sites(coordinator.sites)
        if change.removed:
            log.info("no longer registered: %s", ", ".join(change.removed))
        log.info(
            "listening on %s for %s",
            coordinator.server.listen,
            ", ".join(site.name for site in coordinator.sites),
        )
        processes.control.stop_unfinished_runs()
        watched = Watched(processes, status, health)
        if not _begin(watched, study, folder, stop):
            return _interrupted(folder)
        run = processes.control.start_run(settings.to_run_config())
        log.info("run %s: %s", study.name, folder.path)
        try:
            outcome = _follow_run(watched, run, folder, stop)
            if outcome is None:
                log.info("stopping")
                status.change("stopping")
                stop_children((processes.executor,))
        finally:
            _call_off(processes, run)
        return outcome or _interrupted(folder)


class _StopRequested(Exception):  # noqa: N818  no error: somebody wants to stop
    """Ends a pre-training between two steps."""


def _begin(watched: Watched, study: StudyConfig, folder: RunFolder, stop: StopRequest) -> bool:
    """Lay the run's first weights ready while sites dial in; whether nobody wants to stop."""
    lines = StepLines(PRETRAINING, log.info)

    def told(step: int, steps: int, loss: float) -> None:
        if stop.requested:
            raise _StopRequested
        _revive(watched.processes, folder)
        lines(step, steps, loss)
        watched.status.change("starting", f"{PRETRAINING}: step {step} of {steps}")

    try:
        lay_beginning(study, folder, told)
    except _StopRequested:
        return False
    return not stop.requested


def _call_off(processes: Processes, run: int) -> None:
    """End the run at SuperLink, and stay for a moment: sites still at work for it ask there."""
    try:
        processes.control.stop_run(run)
    except httpx.HTTPStatusError:
        pass  # it has ended
    except httpx.HTTPError:
        return  # SuperLink is gone: nobody can ask
    time.sleep(LINGER_S)


@dataclass(frozen=True)
class Watched:
    """A run's processes, and where their state is told."""

    processes: Processes
    status: StatusFiles
    health: HealthPort


def _follow_run(watched: Watched, run: int, folder: RunFolder, stop: StopRequest) -> Outcome | None:
    """Watch until the run has ended; None if a stop was requested."""
    processes, next_look = watched.processes, 0.0
    while not stop.wait(LOOP_S):
        ended = _drain(watched)
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
        status = _look(watched, run)
        if status is not None and status.is_finished:
            return read_outcome(folder) or _died(folder, status.details)
    return None


def _look(watched: Watched, run: int) -> RunStatus | None:
    """Ask SuperLink how the run stands; None while it is restarting."""
    try:
        status = watched.processes.control.run_status(run)
    except httpx.HTTPError:
        watched.health.set(serving=False)
        return None
    watched.health.set(serving=True)
    return status


def _drain(watched: Watched) -> bool:
    """Read what the children told; return whether the ServerApp has ended."""
    events = watched.processes.pipe.drain()
    for event in events:
        watched.status.on_event(event)
    return any(event.kind == "serverapp-ended" for event in events)


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
        f"the ServerApp ended without an outcome ({details}); {disk_hint(folder)}see "
        f"{folder.logs}, and go on with nognet-server --resume {folder.path}"
    )
    return Outcome(FederationError.exit_code, message)


def _interrupted(folder: RunFolder) -> Outcome:
    message = f"interrupted; go on with nognet-server --resume {folder.path}"
    return Outcome(INTERRUPTED_EXIT_CODE, message)
