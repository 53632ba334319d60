"""Start and watch a site's SuperNode and worker, and say in one line a change what they do."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nognet.config import ServerLinkConfig, SiteConfig
from nognet.console import LogFormat
from nognet.errors import INTERRUPTED_EXIT_CODE, ConfigError, NognetError, ProvisionError
from nognet.files import atomic_path, write_json_atomic
from nognet.supervision.children import (
    Child,
    ChildSpec,
    StopRequest,
    describe_exit,
    flower_environment,
    stop_children,
)
from nognet.supervision.events import Event, EventPipe
from nognet_client.processes.startup import wait_for_coordinator

LOOP_S = 0.1
EXIT_LOOP_ENDED = 75
QUICK_DEATHS = 5
"""A worker that dies so often in a row can't work: the client ends and says so."""
_TASKS = {"query": "joining a run", "train": "training", "evaluate": "evaluating"}
log = logging.getLogger("nognet.client")


@dataclass
class SiteStatus:
    """What the site does now; each change is one line, and `status.json` for other programs."""

    path: Path
    address: str
    text: str = ""
    was_connected: bool = False
    task_since: float = field(default_factory=time.monotonic)

    def change(self, state: str, text: str, *, level: int = logging.INFO) -> None:
        """Note and tell a state, unless it is what was told last."""
        if text == self.text:
            return
        self.text = text
        log.log(level, "%s", text)
        with contextlib.suppress(OSError):  # a full disk must not end the round
            write_json_atomic(self.path, {"state": state, "text": text, "time": time.time()})

    def on_event(self, event: Event) -> None:
        """Follow what the children tell."""
        if event.kind == "connected":
            again = "reconnected" if self.was_connected else "connected"
            self.was_connected = True
            self.change("waiting", f"{again} to {self.address}; waiting for a round")
        elif event.kind == "lost":
            self.change("lost", f"lost the coordinator {self.address}: {event.text}; trying again")
        elif event.kind == "lease":
            self.change("connecting", event.text)
        elif event.kind == "refused":
            self.change("refused", f"refused a run: {event.text}", level=logging.ERROR)
        elif event.kind == "task":
            self.task_since = time.monotonic()
            self.change("working", _task_text(event))
        elif event.kind == "task-ended":
            seconds = time.monotonic() - self.task_since
            how = f"done in {seconds:.1f} s"
            if event.values.get("code"):
                how = f"DIED after {seconds:.1f} s ({describe_exit(int(event.values['code']))})"
            self.change("waiting", f"{_task_text(event)}: {how}; waiting")


def _task_text(event: Event) -> str:
    kind = str(event.values.get("task", "")).split(".", maxsplit=1)[0]
    name, number = _TASKS.get(kind, kind), event.values.get("round")
    return f"{name}, round {number}" if number and kind != "query" else name


@dataclass(frozen=True)
class SiteProcesses:
    """The two children and the pipe through which they tell what they do."""

    supernode: Child
    worker: Child
    pipe: EventPipe


def supervise(
    site: SiteConfig, link: ServerLinkConfig, site_file: Path, log_format: LogFormat
) -> int:
    """Keep the site connected until SIGINT or SIGTERM; return the exit code.

    Raises:
        ProvisionError: the coordinator refuses this site for good.
        NognetError: the worker can't run on this machine.
    """
    status = SiteStatus(site.state / "status.json", link.address)
    with StopRequest() as stop:
        status.change("connecting", f"connecting to {link.address}")
        with _site_processes(site, link, site_file, log_format) as processes:
            while not stop.wait(LOOP_S):
                _follow(processes, status)
                _revive(processes, link, status, stop)
    status.change("stopped", "stopped")
    return INTERRUPTED_EXIT_CODE


def _follow(processes: SiteProcesses, status: SiteStatus) -> None:
    for event in processes.pipe.drain():
        if event.kind == "fatal":
            code = str(event.values.get("code"))
            status.change("refused", event.text, level=logging.ERROR)
            raise ProvisionError(event.text, code=code)
        status.on_event(event)


def _revive(
    processes: SiteProcesses, link: ServerLinkConfig, status: SiteStatus, stop: StopRequest
) -> None:
    """Start what has ended, after its back-off; the SuperNode only when the way is open."""
    for child in (processes.supernode, processes.worker):
        code = child.reap()
        if code is not None:
            _follow(processes, status)  # what it said last, perhaps why
            _note_end(child, code, status)
    worker = processes.worker
    if worker.due:
        if worker.failures >= QUICK_DEATHS:
            raise NognetError(
                f"the worker died {worker.failures} times in a row; the end of {worker.spec.log}:\n"
                f"{worker.log_tail()}",
                code="worker-dies",
            )
        worker.start()
    if processes.supernode.due and _way_is_open(link, status, stop):
        processes.supernode.start()


def _note_end(child: Child, code: int, status: SiteStatus) -> None:
    if child.spec.name == "supernode":
        if code != EXIT_LOOP_ENDED:
            log.debug("supernode: %s", describe_exit(code))
        status.change(
            "connecting",
            f"lost the coordinator {status.address}: the connection ended; reconnecting",
        )
    else:
        log.warning("the worker ended (%s); starting it again", describe_exit(code))


def _way_is_open(link: ServerLinkConfig, status: SiteStatus, stop: StopRequest) -> bool:
    """Look at the coordinator before a new start; a bad certificate ends a client only at first."""
    try:
        return wait_for_coordinator(link, stop)
    except ProvisionError as err:
        if not status.was_connected:
            raise
        status.change("lost", f"{err}; trying again", level=logging.ERROR)
        stop.wait(10.0)
        return False


@contextlib.contextmanager
def _site_processes(
    site: SiteConfig, link: ServerLinkConfig, site_file: Path, log_format: LogFormat
) -> Iterator[SiteProcesses]:
    secret = site.state / "flower" / "worker.secret"
    with atomic_path(secret, mode=0o600) as temporary:
        temporary.write_bytes(secrets.token_bytes(32))
    address = f"127.0.0.1:{_free_port()}"
    environment = flower_environment(site.state / "flower", os.environ, threads=site.threads)
    pipe = EventPipe()
    fds = (pipe.write_end,)
    supernode = ChildSpec(
        "supernode",
        "nognet_client.processes.supernode",
        _supernode_arguments(site, link, site_file, address, secret, pipe),
        site.state / "logs" / "supernode.log",
        inherited_fds=fds,
    )
    worker = ChildSpec(
        "worker",
        "nognet_client.processes.worker",
        (
            *("--address", address, "--secret", str(secret)),
            *("--events", str(pipe.write_end), "--log-format", log_format),
        ),
        site.state / "logs" / "worker.log",
        shows_stderr=True,
        inherited_fds=fds,
    )
    processes = SiteProcesses(Child(supernode, environment), Child(worker, environment), pipe)
    try:
        processes.worker.start()  # it imports torch while the way is looked at
        yield processes
    finally:
        stop_children((processes.worker, processes.supernode))
        pipe.close()


def _supernode_arguments(
    site: SiteConfig,
    link: ServerLinkConfig,
    site_file: Path,
    address: str,
    secret: Path,
    pipe: EventPipe,
) -> tuple[str, ...]:
    host, _, port = address.rpartition(":")
    return (
        *("--events", str(pipe.write_end)),
        *("--node-id-file", str(site.state / "flower" / "node-id")),
        "--",
        *("--superlink", link.address),
        *("--root-certificates", str(link.ca)),
        *("--auth-supernode-private-key", str(link.key)),
        *("--isolation", "process"),
        *("--superexec-auth-secret-file", str(secret)),
        *("--host", host, "--port", port),
        *("--node-config", f"site-config={_quoted(site_file)}"),
    )


def _quoted(path: Path) -> str:
    """Quote a path as Flower's node configuration reads it (TOML strings without escapes)."""
    text = str(path)
    if "'" not in text:
        return f"'{text}'"
    if '"' in text or "\\" in text:
        raise ConfigError(f"{path}: a path with quotes can't be passed to Flower; move the file")
    return f'"{text}"'


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
