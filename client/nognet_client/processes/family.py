"""A site's two children: how they are started and ended."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nognet.config import ServerLinkConfig, SiteConfig
from nognet.console import LogFormat
from nognet.errors import ConfigError
from nognet.files import atomic_path
from nognet.supervision.children import Child, ChildSpec, flower_environment, stop_children
from nognet.supervision.events import EventPipe


@dataclass(frozen=True)
class ClientOptions:
    """What the command line of a start says.

    Attributes:
        log_format: Of the lines on stderr and of the children's log files.
        health_port: Loopback port of the gRPC health service; None for none.
        insecure: No TLS; the coordinator is on loopback then.
        chaos: Faults to inflict, in a rehearsal; empty in every real run.
    """

    log_format: LogFormat = LogFormat.text
    health_port: int | None = None
    insecure: bool = False
    chaos: str = ""


@dataclass(frozen=True)
class SiteProcesses:
    """The two children and the pipe through which they tell what they do."""

    supernode: Child
    worker: Child
    pipe: EventPipe


@contextlib.contextmanager
def site_processes(
    site: SiteConfig, link: ServerLinkConfig, site_file: Path, options: ClientOptions
) -> Iterator[SiteProcesses]:
    """Start the worker, make the SuperNode ready to start, and end both with the block."""
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
        (
            *("--events", str(pipe.write_end)),
            *("--node-id-file", str(site.state / "flower" / "node-id")),
            *("--log-format", options.log_format, "--site", site.name),
            *(("--insecure",) if options.insecure else ()),
            "--",
            *_flower_arguments(link, site_file, address, secret),
        ),
        site.state / "logs" / "supernode.log",
        inherited_fds=fds,
    )
    worker = ChildSpec(
        "worker",
        "nognet_client.processes.worker",
        (
            *("--address", address, "--secret", str(secret)),
            *("--events", str(pipe.write_end)),
            *("--log-format", options.log_format, "--site", site.name),
            *(("--chaos", options.chaos) if options.chaos else ()),
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


def _flower_arguments(
    link: ServerLinkConfig, site_file: Path, address: str, secret: Path
) -> tuple[str, ...]:
    """Flags of flower-supernode."""
    host, _, port = address.rpartition(":")
    trusted = link.trusted_entities
    return (
        *("--superlink", link.address),
        *("--root-certificates", str(link.ca)),
        *(() if trusted is None else ("--trusted-entities", str(trusted))),
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
