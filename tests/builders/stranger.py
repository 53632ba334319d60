"""What a stranger has: a port, the CA certificate, and bytes that no HTTP client would send."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.control_pb2 import ListNodesRequest
from nognet_server.processes.control import Control

from nognet.pki.checks import load_site_key
from tests.builders.deployment import Deployment, Running

PROTOBUF = {"content-type": "application/protobuf", "accept": "application/protobuf"}


@dataclass(frozen=True)
class Target:
    """A run that goes on, and what a stranger knows of it: a port and the CA certificate."""

    deployment: Deployment
    server: Running

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.deployment.port

    @property
    def context(self) -> ssl.SSLContext:
        ca = self.deployment.folder / "coordinator" / "pki" / "ca.crt"
        return ssl.create_default_context(cafile=str(ca))

    @property
    def state(self) -> Path:
        return self.deployment.folder / "coordinator" / "server-state"

    def post(self, path: str, message: Any, headers: dict[str, str] | None = None) -> int:
        """Post a message to the public port; return the status."""
        with httpx.Client(verify=self.context, trust_env=False, timeout=10) as client:
            answer = client.post(
                f"https://127.0.0.1:{self.deployment.port}{path}",
                content=message if isinstance(message, bytes) else message.SerializeToString(),
                headers=PROTOBUF | (headers or {}),
            )
        return answer.status_code

    def post_privately(self, path: str, message: Any, headers: dict[str, str]) -> int:
        """Post a message to the control port on loopback; return the status."""
        context = ssl.create_default_context(cafile=str(self.state / "loopback" / "ca.crt"))
        with httpx.Client(verify=context, trust_env=False, timeout=10) as client:
            answer = client.post(
                f"https://127.0.0.1:{self.deployment.control_port}{path}",
                content=message.SerializeToString(),
                headers=PROTOBUF | headers,
            )
        return answer.status_code

    def raw(self, sent: bytes, wait_s: float = 5.0) -> bytes:
        """Send bytes as they are, which an HTTP client would tidy up; return the answer."""
        answer = b""
        with self.connected() as secured:
            secured.settimeout(wait_s)
            with contextlib.suppress(OSError):
                secured.sendall(sent)
                while part := secured.recv(65536):
                    answer += part
        return answer

    @contextlib.contextmanager
    def connected(self) -> Iterator[ssl.SSLSocket]:
        with (
            socket.create_connection(self.address, timeout=10) as raw,
            self.context.wrap_socket(raw, server_hostname="127.0.0.1") as secured,
        ):
            yield secured

    def site_key(self, name: str) -> ec.EllipticCurvePrivateKey:
        return load_site_key(self.deployment.folder / name / "keys" / f"{name}.key")

    def nodes(self) -> dict[str, int]:
        """Names and node ids, as only the coordinator knows them."""
        token = (self.state / "control.token").read_text(encoding="ascii")
        address = f"127.0.0.1:{self.deployment.control_port}"
        control = Control(address, self.state / "loopback" / "ca.crt", token)
        try:
            found = control._client.ListNodes(ListNodesRequest()).nodes_info
        finally:
            control.close()
        return {node.name: node.node_id for node in found}


def wait_until_up(target: Target, timeout_s: float = 60.0) -> None:
    """Wait until somebody speaks TLS on the public port."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), target.connected():
            return
        time.sleep(0.1)
    raise TimeoutError(f"nothing speaks TLS on {target.address}")


def head(line: str, *headers: str) -> bytes:
    """Write a request's head as it is."""
    return "\r\n".join([line, "Host: x", *headers, "", ""]).encode("latin-1")


def status_of(answer: bytes) -> int | None:
    """Read the status of an answer; None where there is no answer."""
    return int(answer.split(b" ")[1]) if answer.startswith(b"HTTP/1.1 ") else None


def drip(sockets: list[socket.socket], stop: threading.Event) -> None:
    """Send a byte a second over each connection that has got as far as TLS."""
    while not stop.wait(1.0):
        for opened in sockets:
            if isinstance(opened, ssl.SSLSocket):
                with contextlib.suppress(OSError):
                    opened.sendall(b"x")


def is_cut(opened: socket.socket) -> bool:
    """Whether the other side has ended a connection."""
    opened.settimeout(2)
    try:
        return opened.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True
