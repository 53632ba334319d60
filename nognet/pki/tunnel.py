"""The way out of a hospital: straight, or through its HTTP proxy; never a proxy for loopback.

The proxy is the one that the environment names (HTTPS_PROXY or ALL_PROXY, but not for what NO_PROXY
lists), because Flower's own client, which goes the same way afterwards, looks there too.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import socket
import urllib.request
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from nognet.errors import ProvisionError

_NEEDS_A_PERSON = (401, 403, 405, 407)
_MAX_ANSWER = 16 * 1024


class ProxyUnreachableError(OSError):
    """The proxy, or what it should reach, is not up now; the message says which."""


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy that opens tunnels (CONNECT).

    Attributes:
        host: Its name or address.
        port: Its port.
        credentials: Value of ``Proxy-Authorization``; never shown.
    """

    host: str
    port: int
    credentials: str | None = None

    @property
    def name(self) -> str:
        """The proxy as messages name it."""
        return f"{self.host}:{self.port}"


def proxy_for(host: str) -> Proxy | None:
    """Find the proxy on the way to a host; None if the way is straight.

    Raises:
        ProvisionError: the environment names a proxy that is none.
    """
    if is_loopback(host):
        return None
    proxies = urllib.request.getproxies()
    url = proxies.get("https") or proxies.get("all")
    if not url or urllib.request.proxy_bypass(host):
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        raise ProvisionError(
            f"HTTPS_PROXY names a proxy of the kind '{parts.scheme}', expected http://host:port "
            "(the tunnel through it is TLS all the way to the coordinator)",
            code="bad-proxy",
        )
    credentials = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        credentials = "Basic " + base64.b64encode(pair.encode()).decode("ascii")
    return Proxy(parts.hostname, parts.port or 80, credentials)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its own address or name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def connect(host: str, port: int, timeout_s: float) -> socket.socket:
    """Open a connection, through the proxy if there is one.

    Raises:
        OSError: there is no way (`ProxyUnreachableError`: because of the proxy).
        ProvisionError: the proxy refuses us or the address.
    """
    proxy = proxy_for(host)
    if proxy is None:
        return socket.create_connection((host, port), timeout=timeout_s)
    try:
        tunnel = socket.create_connection((proxy.host, proxy.port), timeout=timeout_s)
    except OSError as err:
        raise ProxyUnreachableError(
            f"the proxy {proxy.name} of HTTPS_PROXY can't be reached "
            f"({err.strerror or type(err).__name__})"
        ) from err
    with contextlib.ExitStack() as until_it_stands:
        until_it_stands.callback(tunnel.close)
        _ask_for_tunnel(tunnel, proxy, f"{host}:{port}")
        until_it_stands.pop_all()
    return tunnel


def _ask_for_tunnel(tunnel: socket.socket, proxy: Proxy, address: str) -> None:
    lines = [f"CONNECT {address} HTTP/1.1", f"Host: {address}"]
    if proxy.credentials is not None:
        lines.append(f"Proxy-Authorization: {proxy.credentials}")
    tunnel.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
    answer = b""
    while b"\r\n\r\n" not in answer and len(answer) < _MAX_ANSWER:
        part = tunnel.recv(1)  # what comes after the head is the coordinator's
        if not part:
            break
        answer += part
    status = answer.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
    if len(status) < 2 or not status[0].startswith("HTTP/") or not status[1].isdigit():
        raise ProxyUnreachableError(f"the proxy {proxy.name} of HTTPS_PROXY gives no HTTP answer")
    code = int(status[1])
    if 200 <= code < 300:
        return
    words = " ".join(status[1:])
    if code in _NEEDS_A_PERSON:
        advice = (
            "put user and password into HTTPS_PROXY (http://user:password@host:port)"
            if code == 407
            else f"have {address} allowed there, or list it in NO_PROXY"
        )
        raise ProvisionError(
            f"the proxy {proxy.name} refuses {address}: {words}; {advice}", code="proxy-refuses"
        )
    raise ProxyUnreachableError(f"the proxy {proxy.name} can't reach {address}: {words}")
