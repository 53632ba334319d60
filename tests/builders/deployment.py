"""A whole deployment in a folder: keys, study, sites with tiny stores; and its processes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from nognet.data.store import write_store
from nognet.pki.authority import create_coordinator
from nognet.pki.site_keys import create_site_key, register_site
from nognet.types import Split
from tests.builders.federation import ROI, roi_pair

SEED = 11
SPLITS: tuple[Split, ...] = ("train",) * 3 + ("validation",) * 2 + ("test",) * 2


def free_ports(count: int) -> list[int]:
    """Find ports that are free now."""
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [s.getsockname()[1] for s in sockets]


def tiny_study(**changes: Any) -> dict[str, Any]:
    """Values of a study that trains for moments."""
    values: dict[str, Any] = {
        "name": "tiny",
        "seed": SEED,
        "rounds": 2,
        "roi": {"size_vox": ROI.size_vox},
        "network": {"width": 4, "embedding_width": 8, "attention": False},
        "training": {"steps_per_round": 2, "batch_size": 2, "warmup_steps": 0},
        "federation": {"minimum_sites": 2, "join_timeout_s": 60, "round_timeout_s": 120},
    }
    return values | changes


def write_tiny_store(folder: Path, number: int) -> None:
    """Write the prepared pairs of one site: seven patients with a growing ball each."""
    rng = np.random.default_rng((SEED, number))
    pairs = [roi_pair(patient, rng) for patient in range(len(SPLITS))]
    splits = {pair.patient_id: split for pair, split in zip(pairs, SPLITS, strict=True)}
    write_store(folder, pairs, splits, roi=ROI)


@dataclass
class Running:
    """A started command and what it printed so far."""

    process: subprocess.Popen[str]
    log: Path

    @property
    def output(self) -> str:
        """What it has printed so far, both streams."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, pattern: str, timeout_s: float = 60.0) -> re.Match[str]:
        """Wait until a pattern is printed.

        Raises:
            TimeoutError: it was not; what was printed is in the message.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            found = re.search(pattern, self.output)
            if found:
                return found
            if self.process.poll() is not None and not re.search(pattern, self.output):
                break
            time.sleep(0.05)
        raise TimeoutError(f"{pattern!r} was not printed:\n{self.output}")

    def wait(self, timeout_s: float = 90.0) -> int:
        """Wait for its end and return its exit code.

        Raises:
            TimeoutError: it did not end; what was printed is in the message.
        """
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired as err:
            raise TimeoutError(f"did not end:\n{self.output}") from err

    def family(self) -> list[int]:
        """Its living descendants and itself, by pid."""
        return descendants(self.process.pid)


@dataclass
class Deployment:
    """A coordinator and its sites on this machine, every path in one folder."""

    folder: Path
    sites: tuple[str, ...]
    port: int
    control_port: int
    started: list[Running] = field(default_factory=list)

    @property
    def study(self) -> Path:
        """The study's file."""
        return self.folder / "coordinator" / "study.yaml"

    @property
    def runs(self) -> Path:
        """Folder of run folders."""
        return self.folder / "coordinator" / "runs"

    def site_file(self, name: str) -> Path:
        """The configuration of a site."""
        return self.folder / name / "site.yaml"

    def edit(self, path: Path, **changes: Any) -> None:
        """Change top-level keys of a YAML file."""
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        path.write_text(yaml.safe_dump(values | changes), encoding="utf-8")

    def server(self, *arguments: str) -> Running:
        """Start nognet-server."""
        chosen = arguments or ("--study", str(self.study))
        return self._start("server", "nognet_server.commands.main", chosen)

    def client(self, name: str, *arguments: str, **environment: str) -> Running:
        """Start a site's nognet-client, with more arguments and environment."""
        chosen = ("--site", str(self.site_file(name)), *arguments)
        return self._start(name, "nognet_client.commands", chosen, environment)

    def edit_server(self, path: Path, **changes: Any) -> None:
        """Change keys of the `server:` section of a YAML file."""
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        self.edit(path, server=values["server"] | changes)

    def run(
        self, command: str, *arguments: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``server`` or ``client`` with other arguments, to its end."""
        module = {"server": "nognet_server.commands.main", "client": "nognet_client.commands"}[
            command
        ]
        return subprocess.run(
            [sys.executable, "-c", f"from {module} import main; main()", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
            env={**os.environ, **environment},
        )

    def clients(self) -> dict[str, Running]:
        """Start all sites."""
        return {name: self.client(name) for name in self.sites}

    def stop(self) -> None:
        """End whatever is still running."""
        for running in self.started:
            if running.process.poll() is None:
                running.process.terminate()
        for running in self.started:
            try:
                running.process.wait(15)
            except subprocess.TimeoutExpired:
                running.process.kill()
                running.process.wait()

    def _start(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str] | None = None,
    ) -> Running:
        log = self.folder / f"{name}-{len(self.started)}.log"
        command = [sys.executable, "-c", f"from {module} import main; main()", *arguments]
        values = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=values, text=True
            )
        self.started.append(Running(process, log))
        return self.started[-1]


def build_deployment(
    folder: Path,
    sites: Sequence[str] = ("hospital_a", "hospital_b"),
    hosts: Sequence[str] = ("127.0.0.1",),
    **study: Any,
) -> Deployment:
    """Make keys, configuration and tiny stores for a coordinator and its sites."""
    port, control_port = free_ports(2)
    home = folder / "coordinator"
    files = create_coordinator(home / "pki", hosts)
    for number, name in enumerate(sites):
        _, public = create_site_key(name, folder / name / "keys")
        register_site(files.sites, public)
        write_tiny_store(folder / name / "cache", number)
        site = {
            "name": name,
            "studies": "studies.csv",
            "seed": number + 1,
            "device": "cpu",
            "threads": 1,
            "roi": {"size_vox": ROI.size_vox},
            # splits of two and three patients: at the default of 5 they would give no figures
            "egress": {"min_patients": 1},
            "server": {
                "address": f"127.0.0.1:{port}",
                "ca": str(files.ca),
                "key": f"keys/{name}.key",
            },
        }
        (folder / name / "site.yaml").write_text(yaml.safe_dump(site), encoding="utf-8")
    server = {
        "listen": f"127.0.0.1:{port}",
        "control_port": control_port,
        "ca": "pki/ca.crt",
        "certificate": "pki/server.crt",
        "key": "pki/server.key",
        "sites": "pki/sites",
    }
    values = tiny_study(**study) | {"server": server}
    (home / "study.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return Deployment(folder, tuple(sites), port, control_port)


@contextlib.contextmanager
def deployment(
    folder: Path,
    sites: Sequence[str] = ("hospital_a", "hospital_b"),
    hosts: Sequence[str] = ("127.0.0.1",),
    **study: Any,
) -> Iterator[Deployment]:
    """Build a deployment, and end all its processes at the end."""
    built = build_deployment(folder, sites, hosts, **study)
    try:
        yield built
    finally:
        built.stop()


def descendants(pid: int) -> list[int]:
    """List a process and its living descendants, from /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                if fields[0] != "Z":
                    parents[int(entry.name)] = int(fields[1])
    found = [pid] if pid in parents else []
    for known in found:
        found.extend(child for child, parent in parents.items() if parent == known)
    return found


def alive(pids: Sequence[int]) -> list[int]:
    """List those of `pids` that still run (zombies don't)."""
    return [pid for pid in pids if descendants(pid)[:1] == [pid]]


def wait_until_gone(pids: Sequence[int], timeout_s: float = 10.0) -> list[int]:
    """Wait until none of `pids` is alive; return those that are after all."""
    deadline = time.monotonic() + timeout_s
    while (left := alive(pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def pid_running(module: str, among: Sequence[int]) -> int:
    """Find the process among `among` that runs a module."""
    for pid in among:
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if module.encode() in words:
                return pid
    raise LookupError(f"no process of {list(among)} runs {module}")


def grpc_health(port: int, service: str = "") -> str:
    """Ask a health port as a container's probe does; gives the status, or the error's code."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
        except grpc.RpcError as err:
            return str(err.code().name)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def kill(pid: int) -> None:
    """End a process at once, as the kernel does when memory is short."""
    os.kill(pid, signal.SIGKILL)
