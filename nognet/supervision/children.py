"""Children of a supervisor: started in sessions of their own, restarted with back-off, stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Self

STABLE_S = 60.0
"""A child that lived so long starts its back-off anew."""
MAX_WAIT_S = 30.0
STOP_GRACE_S = 8.0


def back_off_s(failures: int) -> float:
    """Seconds to wait before the next start after so many failures in a row.

    >>> [back_off_s(n) for n in range(6)]
    [0.0, 0.5, 1.0, 2.0, 4.0, 8.0]
    """
    return min(MAX_WAIT_S, 0.5 * 2.0 ** (failures - 1)) if failures > 0 else 0.0


@dataclass(frozen=True)
class ChildSpec:
    """How to start a child.

    Attributes:
        name: What it is called in messages and in the name of its log.
        module: Python module to run; its main gets `arguments` and calls `die_with_parent`.
        arguments: Command line after the module and ``--parent PID``.
        log: File for its stdout and, unless `shows_stderr`, its stderr; appended to.
        shows_stderr: Let its stderr through to the user.
        inherited_fds: File descriptors it keeps.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    log: Path
    shows_stderr: bool = False
    inherited_fds: tuple[int, ...] = ()


@dataclass
class Child:
    """A child process and the history of its starts (a thin shell around Popen)."""

    spec: ChildSpec
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    failures: int = 0
    started_at: float = 0.0
    next_start: float = 0.0

    @property
    def running(self) -> bool:
        """Whether it is alive."""
        return self.process is not None and self.process.poll() is None

    @property
    def due(self) -> bool:
        """Whether it is not running and its back-off is over."""
        return self.process is None and time.monotonic() >= self.next_start

    def start(self) -> None:
        """Start it, in a session of its own: Ctrl-C reaches the supervisor alone."""
        self.spec.log.parent.mkdir(parents=True, exist_ok=True)
        with self.spec.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    self.spec.module,
                    "--parent",
                    str(os.getpid()),
                    *self.spec.arguments,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=None if self.spec.shows_stderr else log,
                env=dict(self.environment),
                start_new_session=True,
                pass_fds=self.spec.inherited_fds,
            )
        self.started_at = time.monotonic()

    def reap(self) -> int | None:
        """Return the exit code once after it ended, and set when it may start again."""
        code = self.process.poll() if self.process is not None else None
        if code is None:
            return None
        self.process = None
        stable = time.monotonic() - self.started_at > STABLE_S
        self.failures = 1 if stable else self.failures + 1
        self.next_start = time.monotonic() + back_off_s(self.failures)
        return code

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines of its log, for a message."""
        try:
            text = self.spec.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])


def stop_children(children: Sequence[Child], *, grace_s: float = STOP_GRACE_S) -> None:
    """Ask all to end with SIGTERM, in the order given, and kill what is left after `grace_s`."""
    for child in children:
        if child.process is not None and child.running:
            child.process.terminate()
    deadline = time.monotonic() + grace_s
    for child in children:
        if child.process is None:
            continue
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(max(0.0, deadline - time.monotonic()))
        if child.running:
            child.process.kill()
            child.process.wait()


@dataclass
class StopRequest:
    """Set by SIGINT, SIGTERM and SIGHUP; asked by the loops of a supervisor."""

    requested: bool = False
    handlers: dict[int, Callable[[int, FrameType | None], object] | int | None] = field(
        default_factory=dict
    )

    def __enter__(self) -> Self:
        """Take over the signals."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self.handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def wait(self, seconds: float) -> bool:
        """Sleep, but not past a request; return whether one was made."""
        deadline = time.monotonic() + seconds
        while not self.requested and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))
        return self.requested

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True


def describe_exit(code: int) -> str:
    """Say how a process ended.

    >>> describe_exit(-9), describe_exit(3)
    ('killed by SIGKILL', 'exit code 3')
    """
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def parse_parent(arguments: Sequence[str]) -> tuple[int, list[str]]:
    """Take ``--parent PID`` off the front of a child's command line."""
    if len(arguments) < 2 or arguments[0] != "--parent":
        raise SystemExit("this module is started by its supervisor, not by hand")
    return int(arguments[1]), list(arguments[2:])


def flower_environment(
    flower_home: Path, base: Mapping[str, str], *, threads: int | None = None
) -> dict[str, str]:
    """Environment of a process that imports Flower: no telemetry, no update check, no pip.

    Args:
        flower_home: Folder that Flower may write to, in place of ``~/.flwr``.
        base: The environment to start from.
        threads: CPU threads of the numeric libraries, if limited.
    """
    scripts = Path(sys.executable).parent
    values = {
        **base,
        "FLWR_HOME": str(flower_home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "PATH": os.pathsep.join((str(scripts), base.get("PATH", os.defpath))),
        "PYTHONUNBUFFERED": "1",
        **past_the_proxy(base),
    }
    if threads is not None:
        values |= dict.fromkeys(_THREAD_VARIABLES, str(threads))
    return values


def past_the_proxy(base: Mapping[str, str]) -> dict[str, str]:
    """Environment that keeps loopback off a proxy, besides what is kept off it already."""
    given = base.get("no_proxy", base.get("NO_PROXY", ""))
    names = [*filter(None, given.split(",")), "127.0.0.1", "localhost"]
    value = ",".join(dict.fromkeys(names))
    return {"NO_PROXY": value, "no_proxy": value}


_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def any_running(children: Iterable[Child]) -> bool:
    """Whether one of them is alive."""
    return any(child.running for child in children)
