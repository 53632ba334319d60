"""Why the coordinator was not reached, in words, and which errors of TLS pass by themselves."""

from __future__ import annotations

import httpx


def passes(error: httpx.TransportError) -> bool:
    """Whether an error of TLS is a cut, which passes by itself.

    Flower takes any error with "ssl" in its text for a refused certificate and gives the call up:
    the reply in hand, or the whole loop (http_retry.py). A server that is killed in the middle of a
    transfer looks so.
    """
    text = str(error).lower()
    return "certificate" not in text and any(word in text for word in ("eof", "timed out"))


def cause_of(error: httpx.HTTPError) -> str:
    """Say the likely cause of an error, in words."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"a proxy answers {error.response.status_code}: the server behind it is not up"
    text = str(error).lower()
    for kind, word, cause in _CAUSES:
        if isinstance(error, kind) and word in text:
            return cause
    return "the connection was cut: server or proxy restarting"


_CAUSES: tuple[tuple[type[httpx.HTTPError], str, str], ...] = (
    (httpx.ProxyError, "407", "the proxy of HTTPS_PROXY wants a user and a password"),
    (httpx.ProxyError, "", "the proxy of HTTPS_PROXY refuses the way, or can't reach the server"),
    (
        httpx.HTTPError,
        "certificate",
        "its certificate is refused (renewed from another CA, expired, or inspected TLS)",
    ),
    (httpx.ConnectError, "refused", "connection refused: the server is down or restarting"),
    (httpx.TimeoutException, "", "no answer in time: network cut, or the server is overloaded"),
    (httpx.ConnectError, "", "no connection: network or DNS"),
)
"""The first line whose kind and word fit tells the likely cause."""
