"""Look at a server from outside: what its run does, which sites are there, whether it is well."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from nognet.config import ServerConfig, load_study
from nognet.errors import ConfigError, NognetError
from nognet.supervision.lock import holder_of
from nognet_server.processes.alive import answers
from nognet_server.processes.startup import Coordinator
from nognet_server.processes.status import LIVE, RunState, read_state, served_run
from nognet_server.runs.folder import RunFolder

FOLLOW_EVERY_S = 0.2


@dataclass(frozen=True)
class Place:
    """Where a server's files are: its state folder, and a run's folder if one was named."""

    server: ServerConfig
    run: Path | None = None

    @property
    def coordinator(self) -> Coordinator:
        """The paths and addresses of the server."""
        return Coordinator(self.server, ())

    @property
    def pid(self) -> int | None:
        """The process that runs now; where a run was named, only if it is at that one."""
        if self.run is not None and served_run(self.server.state) != self.run.resolve():
            return None
        return holder_of(self.server.state)

    def state(self) -> RunState | None:
        """Read what the run said of itself last."""
        return read_state(self.run or self.server.state)

    def run_folder(self) -> RunFolder:
        """Give the run that was named, or else the last one.

        Raises:
            NognetError: there was none.
        """
        if self.run is not None:
            return RunFolder(self.run)
        state = self.state()
        if state is None:
            raise NognetError(
                f"{self.server.state}: no run was started with this state folder", code="no-run"
            )
        return RunFolder(Path(state.run_folder))


def find_place(study: Path | None, run: Path | None) -> Place:
    """Find a server by its study, or by the folder of a run.

    Raises:
        ConfigError: there is no such file, or no server in it.
    """
    source = study or (run / "study.yaml" if run is not None else Path("study.yaml"))
    server = load_study(source).server
    if server is None:
        raise ConfigError(f"{source}: server: missing; it was not run by nognet-server")
    return Place(server, run.resolve() if run is not None else None)


def observe(place: Place) -> dict[str, Any]:
    """Tell a run's state, its figures so far and its sites, as JSON values."""
    state = place.state()
    if state is None:
        return {"state": "none", "text": "no run was started yet", "sites": {}}
    runs = place.pid is not None and place.pid == state.pid
    told = asdict(state)
    if state.state in LIVE and not runs:
        told |= {
            "state": "died",
            "text": f"its process ({state.pid}) died while it was: "
            f"{state.text}; go on with nognet-server --resume {state.run_folder}",
        }
    metrics = _metrics(Path(state.run_folder))
    return {
        **told,
        "rounds_done": len(metrics.get("rounds", ())),
        "sites": _sites(place, metrics, runs=runs),
    }


def is_healthy(place: Place) -> bool:
    """Whether the server's process is alive, at the run that was named, and SuperLink answers."""
    return place.pid is not None and answers(
        place.coordinator.control_address, place.coordinator.loopback.ca
    )


def stop(place: Place, timeout_s: float) -> RunState | None:
    """Ask the server to end as Ctrl-C does, and wait until it has; return its last state.

    Raises:
        NognetError: none runs, it is at another run than the one named, or it has not ended in
            time.
    """
    pid = place.pid
    if pid is None:
        raise _not_running(place)
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while place.pid == pid:
        if time.monotonic() > deadline:
            raise NognetError(f"pid {pid} has not ended within {timeout_s:.0f} s", code="not-ended")
        time.sleep(0.1)
    return place.state()


def _not_running(place: Place) -> NognetError:
    """Say that no server runs, or that the one that does is at another run."""
    state, code = place.server.state, "not-running"
    holder = holder_of(state)
    if holder is None:
        return NognetError(f"{state}: no nognet-server runs with this state folder", code=code)
    served = served_run(state)
    if served is None:
        return NognetError(
            f"{place.run}: the server of this state folder (pid {holder}) has not said yet at "
            "which run it is; try again, or stop it with --study in place of --run",
            code=code,
        )
    return NognetError(
        f"{place.run}: no server is at this run; the one of its state folder (pid {holder}) is at "
        f"{served}: to stop that, name it with --run",
        code=code,
    )


def log_lines(place: Place, process: str, lines: int, *, follow: bool) -> Iterator[str]:
    """Give the last lines of a log, and with `follow` what comes after.

    Raises:
        NognetError: there is no such log.
    """
    path = place.run_folder().logs / f"{process}.log"
    if not path.is_file():
        raise NognetError(f"{path}: no such log yet", code="no-log")
    with path.open(encoding="utf-8", errors="replace") as file:
        yield from [line.rstrip("\n") for line in file.readlines()[-lines:]]
        while follow:
            line = file.readline()
            if line:
                yield line.rstrip("\n")
            elif place.pid is None:
                return
            else:
                time.sleep(FOLLOW_EVERY_S)


def readable(line: str) -> str:
    """Write a JSON line of a log as a line for people; any other as it is.

    >>> readable('{"time": "2026-01-01T12:00:00+0000", "level": "info", "message": "training"}')
    '2026-01-01T12:00:00+0000 INFO    training'
    """
    try:
        entry = json.loads(line)
        return f"{entry['time']} {entry['level'].upper():7} {entry['message']}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return line


def _sites(place: Place, metrics: dict[str, Any], *, runs: bool) -> dict[str, str]:
    """Tell of each site whether it is there; of those asked no more, why."""
    states: dict[str, str] = dict.fromkeys(metrics.get("sites", ()), "unknown")
    if runs:
        with contextlib.suppress(httpx.HTTPError, OSError):  # SuperLink is starting or restarting
            states |= _online(place.coordinator)
    states |= {str(site): str(why) for site, why in metrics.get("barred", {}).items()}
    return dict(sorted(states.items()))


def _online(coordinator: Coordinator) -> dict[str, str]:
    from nognet_server.processes.control import Control  # with all of Flower

    token = coordinator.token_file.read_text(encoding="ascii")
    control = Control(coordinator.control_address, coordinator.loopback.ca, token)
    try:
        return control.node_states()
    finally:
        control.close()


def _metrics(folder: Path) -> dict[str, Any]:
    """Read a run's figures without their schema: one of another release has its sites too."""
    try:
        value = json.loads(RunFolder(folder).metrics.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
