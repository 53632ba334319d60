"""The likely cause of a lost connection, and which errors of TLS pass."""

from __future__ import annotations

import httpx
import pytest
from nognet_client.processes.link_causes import cause_of, passes

REQUEST = httpx.Request("POST", "https://x")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (httpx.ConnectError("[Errno 111] Connection refused"), "connection refused"),
        (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] ..."), "certificate is refused"),
        (httpx.ReadTimeout("timed out"), "no answer in time"),
        (httpx.ConnectError("Name or service not known"), "DNS"),
        (httpx.ReadError("EOF"), "was cut"),
        (httpx.ProxyError("407 Proxy Authentication Required"), "a user and a password"),
        (httpx.ProxyError("403 Forbidden"), "the proxy of HTTPS_PROXY refuses"),
        (
            httpx.HTTPStatusError("", request=REQUEST, response=httpx.Response(503)),
            "a proxy answers 503",
        ),
    ],
)
def test_the_likely_cause_is_named(error: httpx.HTTPError, words: str) -> None:
    assert words in cause_of(error)


def test_a_cut_within_tls_passes_and_a_refused_certificate_does_not() -> None:
    assert passes(httpx.ReadError("[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred"))
    assert passes(httpx.ReadError("The read operation timed out (ssl)"))
    assert not passes(httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] unexpected eof"))
