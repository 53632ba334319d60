"""What is checked and laid ready before the coordinator's processes start."""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from nognet.config import ServerConfig, StudyConfig
from nognet.errors import ConfigError, FederationError, ProvisionError
from nognet.files import atomic_path
from nognet.pki.authority import CoordinatorFiles, write_loopback_certificate
from nognet.pki.checks import check_server_files, refuse_beyond_loopback
from nognet.pki.site_keys import RegisteredSite, registered_sites

log = logging.getLogger("nognet.server")


@dataclass(frozen=True)
class Coordinator:
    """A checked coordinator: what its processes need.

    Attributes:
        server: The study's `server:` section.
        sites: The registered sites.
        state: Folder of SuperLink's database and secrets.
    """

    server: ServerConfig
    sites: tuple[RegisteredSite, ...]

    @property
    def state(self) -> Path:
        """Folder of what the processes keep."""
        return self.server.state

    @property
    def control_address(self) -> str:
        """Where SuperLink's control listener answers."""
        return f"127.0.0.1:{self.server.control_port}"

    @property
    def loopback(self) -> CoordinatorFiles:
        """Certificate of the control listener."""
        return CoordinatorFiles(self.state / "loopback")

    @property
    def database(self) -> Path:
        """SuperLink's state."""
        return self.state / "superlink.db"

    @property
    def used_signatures(self) -> Path:
        """Which of the sites' requests were answered in the last minutes."""
        return self.state / "used-signatures"

    @property
    def token_file(self) -> Path:
        """The control token."""
        return self.state / "control.token"

    @property
    def secret_file(self) -> Path:
        """The secret between SuperLink and the executor."""
        return self.state / "executor.secret"


def check_coordinator(study: StudyConfig, *, insecure: bool = False) -> Coordinator:
    """Check the study's server section, certificates and registered sites.

    Args:
        study: The study.
        insecure: No TLS on the public listener; on loopback only.

    Raises:
        ConfigError: there is no `server:` section, or one without TLS that others could reach.
        ProvisionError: a certificate, key or signature can't be used, or too few sites are
            registered.
    """
    server = study.server
    if server is None:
        raise ConfigError(
            "study.yaml: server: missing; nognet-server needs server.listen, ca, certificate, key "
            "and sites (nognet-sim runs the same study without them)"
        )
    if insecure:
        refuse_beyond_loopback(server.listen, "server.listen")
        log.warning(
            "--insecure: no TLS on %s; whoever is on this machine reads along", server.listen
        )
    else:
        _check_certificates(server)
    if server.bundle_signature is not None:
        from nognet_server.processes.bundle_signature import read_signature

        read_signature(server.bundle_signature)
    sites = registered_sites(server.sites)
    awaited = study.federation.sites_awaited
    if len(sites) < awaited:
        names = ", ".join(site.name for site in sites) or "none"
        raise ProvisionError(
            f"{server.sites}: {len(sites)} site(s) registered ({names}), but the study waits for "
            f"{awaited}; register the others (nognet provision register) or lower "
            "federation.minimum_sites",
            code="too-few-sites",
        )
    return Coordinator(server, sites)


def _check_certificates(server: ServerConfig) -> None:
    checked = check_server_files(server.ca, server.certificate, server.key)
    for warning in checked.warnings:
        log.warning("%s", warning)
    log.info("certificate for %s until %s", ", ".join(checked.hosts), checked.ends.date())


def check_ports(coordinator: Coordinator) -> None:
    """Check that both addresses are free.

    Raises:
        FederationError: something listens there already.
    """
    keys = {
        "server.listen": coordinator.server.listen,
        "server.control_port": coordinator.control_address,
    }
    for key, address in keys.items():
        host, _, port = address.rpartition(":")
        try:
            socket.create_server((host, int(port))).close()
        except OSError as err:
            raise FederationError(
                f"{key}: can't listen on {address} ({err.strerror}); another program listens "
                "there, or the address is not this machine's",
                code="port-taken",
            ) from err


def lay_ready(coordinator: Coordinator) -> str:
    """Write the secrets of this start and compact the database; return the control token."""
    coordinator.state.mkdir(parents=True, exist_ok=True)
    coordinator.state.chmod(0o700)
    write_loopback_certificate(coordinator.loopback.folder)
    token = secrets.token_urlsafe(32)
    _write_secret(coordinator.token_file, token.encode("ascii"))
    _write_secret(coordinator.secret_file, secrets.token_bytes(32))
    if coordinator.database.exists():
        # SQLite keeps the size of the largest round for ever otherwise
        with contextlib.closing(sqlite3.connect(coordinator.database)) as database:
            database.execute("VACUUM")
    return token


def _write_secret(path: Path, secret: bytes) -> None:
    with atomic_path(path, mode=0o600) as temporary:
        temporary.write_bytes(secret)
