"""Try the way to the coordinator, and name the likely cause when it is blocked.

Flower's own client retries a refused connection and a refused certificate alike, without a word
about which it was. Here they are told apart: what can pass by itself (a server not up yet) is
returned, what needs a person (a wrong certificate) is raised.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from nognet.errors import ProvisionError
from nognet.pki.clock import clock_ahead_s
from nognet.pki.refusals import Shown, refused_certificate
from nognet.pki.tunnel import ProxyUnreachableError, connect, proxy_for

HANDSHAKE_TIMEOUT_S = 10.0
_MAX_HEAD = 16 * 1024


class _SaysNothingError(OSError):
    """The other end closed the connection without a word."""


@dataclass(frozen=True)
class Unreachable:
    """The coordinator can't be reached now, for a cause that may pass by itself."""

    cause: str


@dataclass(frozen=True)
class Reached:
    """The coordinator answered.

    Attributes:
        clock_ahead_s: Seconds that this machine's clock is ahead of the coordinator's.
        certificate_ends: When the coordinator's certificate expires; None without TLS.
        proxy: The proxy on the way.
    """

    clock_ahead_s: float | None = None
    certificate_ends: dt.datetime | None = None
    proxy: str | None = None


def split_address(address: str) -> tuple[str, int]:
    """Split ``host:port``."""
    host, _, port = address.rpartition(":")
    return host, int(port)


def reach_coordinator(
    address: str, ca: Path | None, *, timeout_s: float = HANDSHAKE_TIMEOUT_S
) -> Reached | Unreachable:
    """Make a TLS handshake and ask for /health.

    Args:
        address: ``host:port``.
        ca: The CA's certificate; None for no TLS at all.
        timeout_s: For each step.

    Raises:
        ProvisionError: the certificate is refused (wrong CA, name or date), a proxy refuses us, or
            what answers there is no coordinator.
    """
    host, port = split_address(address)
    try:
        proxy = proxy_for(host)
        with connect(host, port, timeout_s) as raw:
            via = proxy.name if proxy else None
            if ca is None:
                return _ask_health(raw, address, None, via)
            context = ssl.create_default_context(cafile=str(ca))
            with context.wrap_socket(raw, server_hostname=host) as secured:
                der = secured.getpeercert(binary_form=True)
                shown = x509.load_der_x509_certificate(der) if der else None
                return _ask_health(secured, address, shown, via)
    except ssl.SSLCertVerificationError as err:
        raise refused_certificate(err, address, ca, _look_unverified(address, timeout_s)) from err
    except ssl.SSLEOFError:
        return Unreachable("the connection was cut during the TLS handshake")
    except ssl.SSLError as err:
        raise _not_tls(err, address, timeout_s) from err
    except OSError as err:
        return Unreachable(_network_cause(err, host))


def _network_cause(err: OSError, host: str) -> str:
    if isinstance(err, ProxyUnreachableError):
        return str(err)
    if isinstance(err, socket.gaierror):
        return f"the name {host} can't be resolved (DNS, or a typing error)"
    if isinstance(err, ConnectionRefusedError):
        return "connection refused (the server is not up, or the port is wrong)"
    if isinstance(err, TimeoutError):
        return "no answer (a firewall on the way out?)"
    return f"network error ({err.strerror or type(err).__name__})"


def _ask_health(
    connection: socket.socket, address: str, certificate: x509.Certificate | None, via: str | None
) -> Reached | Unreachable:
    try:
        status, headers = _get_health(connection, address)
    except _SaysNothingError:
        return Unreachable(
            "the connection is taken and closed without an answer (a proxy or load balancer whose "
            "server is not up, or a wrong port)"
        )
    if status is None:
        raise ProvisionError(
            f"{address} takes the connection, but doesn't speak HTTP; likely a wrong port in "
            "server.address",
            code="not-a-coordinator",
        )
    if status in (502, 503, 504):
        return Unreachable(f"a proxy answers {status}: the server behind it is not up")
    if status != 200:
        raise ProvisionError(
            f"{address} answers {status} to /health, so it is no nognet coordinator; check "
            "server.address in site.yaml",
            code="not-a-coordinator",
        )
    return Reached(
        clock_ahead_s=clock_ahead_s(headers.get("date", "")),
        certificate_ends=certificate.not_valid_after_utc if certificate else None,
        proxy=via,
    )


def _get_health(connection: socket.socket, address: str) -> tuple[int | None, dict[str, str]]:
    """Ask for /health; give status and headers, no status where the answer is not HTTP.

    Raises:
        _SaysNothingError: the connection was closed without a byte.
    """
    request = f"GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    connection.sendall(request.encode("ascii"))
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _MAX_HEAD:
        part = connection.recv(4096)
        if not part:
            break
        head += part
    if not head:
        raise _SaysNothingError
    first, *lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    words = first.split()
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdigit():
        return None, {}
    pairs = (line.partition(":") for line in lines)
    return int(words[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}


def _not_tls(err: ssl.SSLError, address: str, timeout_s: float) -> ProvisionError:
    host, port = split_address(address)
    status = None
    with contextlib.suppress(OSError), connect(host, port, timeout_s) as raw:
        status, _ = _get_health(raw, address)
    found = f"answers plain HTTP ({status})" if status else f"gives {err.reason}"
    return ProvisionError(
        f"{address} doesn't speak TLS: it {found}; likely a wrong port in server.address, a proxy "
        "in between, or a server started with --insecure",
        code="not-tls",
    )


def _look_unverified(address: str, timeout_s: float) -> Shown:
    """Fetch certificate and clock without trusting them, to say what they are."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    host, port = split_address(address)
    certificate, ahead_s = None, None
    with (
        contextlib.suppress(OSError, ValueError),
        connect(host, port, timeout_s) as raw,
        context.wrap_socket(raw, server_hostname=host) as secured,
    ):
        der = secured.getpeercert(binary_form=True)
        certificate = x509.load_der_x509_certificate(der) if der else None
        _, headers = _get_health(secured, address)
        ahead_s = clock_ahead_s(headers.get("date", ""))
    return Shown(certificate, ahead_s)
