"""Try the way to the coordinator, and name the likely cause when it is blocked.

Flower's own client retries a refused connection and a refused certificate alike, without a word
about which it was. Here they are told apart: what can pass by itself (a server not up yet) is
returned, what needs a person (a wrong certificate) is raised.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from nognet.errors import ProvisionError
from nognet.pki.checks import names_of

HANDSHAKE_TIMEOUT_S = 10.0
# OpenSSL's X509_V_ERR_*
_NOT_YET_VALID = 9
_EXPIRED = 10
_WRONG_NAME = (62, 64)


@dataclass(frozen=True)
class Unreachable:
    """The coordinator can't be reached now, for a cause that may pass by itself."""

    cause: str


def split_address(address: str) -> tuple[str, int]:
    """Split ``host:port``."""
    host, _, port = address.rpartition(":")
    return host, int(port)


def probe_coordinator(
    address: str, ca: Path, *, timeout_s: float = HANDSHAKE_TIMEOUT_S
) -> Unreachable | None:
    """Make a TLS handshake and ask for /health; None when all is well.

    Raises:
        ProvisionError: the certificate is refused (wrong CA, name or date), or what answers
            there is no coordinator.
    """
    host, port = split_address(address)
    context = ssl.create_default_context(cafile=str(ca))
    try:
        with (
            socket.create_connection((host, port), timeout=timeout_s) as raw,
            context.wrap_socket(raw, server_hostname=host) as secured,
        ):
            return _ask_health(secured, address)
    except ssl.SSLCertVerificationError as err:
        raise _refused_certificate(err, address, ca, timeout_s) from err
    except ssl.SSLEOFError:
        return Unreachable("the connection was cut during the TLS handshake")
    except ssl.SSLError as err:
        raise ProvisionError(
            f"{address} doesn't speak TLS ({err.reason}); likely a wrong port in server.address, "
            "or a proxy in between",
            code="not-tls",
        ) from err
    except socket.gaierror:
        return Unreachable(f"the name {host} can't be resolved (DNS, or a typing error)")
    except ConnectionRefusedError:
        return Unreachable("connection refused (the server is not up, or the port is wrong)")
    except TimeoutError:
        return Unreachable("no answer (a firewall on the way out?)")
    except OSError as err:
        return Unreachable(f"network error ({err.strerror or type(err).__name__})")


def _ask_health(secured: ssl.SSLSocket, address: str) -> Unreachable | None:
    request = f"GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    secured.sendall(request.encode("ascii"))
    status = secured.recv(4096).split(b"\r\n", 1)[0].split()
    if len(status) < 2 or not status[0].startswith(b"HTTP/"):
        raise ProvisionError(
            f"{address} speaks TLS with a certificate of your CA, but not HTTP; likely a wrong "
            "port in server.address",
            code="not-a-coordinator",
        )
    code = status[1].decode("ascii", "replace")
    if code == "200":
        return None
    if code in ("502", "503", "504"):
        return Unreachable(f"a proxy answers {code}: the server behind it is not up")
    raise ProvisionError(
        f"{address} answers {code} to /health, so it is no nognet coordinator; check "
        "server.address in site.yaml",
        code="not-a-coordinator",
    )


def _refused_certificate(
    err: ssl.SSLCertVerificationError, address: str, ca: Path, timeout_s: float
) -> ProvisionError:
    host, _ = split_address(address)
    shown = _presented_certificate(address, timeout_s)
    if err.verify_code == _EXPIRED:
        when = f" on {shown.not_valid_after_utc:%Y-%m-%d}" if shown else ""
        return ProvisionError(
            f"the certificate of {address} (or its CA) expired{when}; the coordinator has to "
            "renew it (nognet provision coordinator --renew). Is this machine's clock right?",
            code="expired",
        )
    if err.verify_code == _NOT_YET_VALID:
        return ProvisionError(
            f"the certificate of {address} is not valid yet by this machine's clock; set the clock",
            code="not-yet-valid",
        )
    if err.verify_code in _WRONG_NAME:
        names = ", ".join(names_of(shown)) if shown else "unknown"
        return ProvisionError(
            f"the certificate of {address} is valid for {names or 'no name at all'}, not for "
            f"{host}; use one of these names in server.address, or the coordinator issues it "
            f"again with --host {host}",
            code="wrong-name",
        )
    issuer = f" (its issuer: {shown.issuer.rfc4514_string()})" if shown else ""
    return ProvisionError(
        f"the certificate of {address} is not signed by the CA in site.yaml ({ca}){issuer}; ask "
        "the coordinator for the right ca.crt. If the issuer is your own hospital, its firewall "
        "inspects TLS: have this address exempted",
        code="wrong-ca",
    )


def _presented_certificate(address: str, timeout_s: float) -> x509.Certificate | None:
    """Fetch the certificate without trusting it, to say what it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    host, port = split_address(address)
    with (
        contextlib.suppress(OSError, ValueError),
        socket.create_connection((host, port), timeout=timeout_s) as raw,
        context.wrap_socket(raw, server_hostname=host) as secured,
    ):
        der = secured.getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(der) if der else None
    return None
