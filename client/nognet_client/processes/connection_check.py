"""Try the way to the coordinator step by step, without joining anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from nognet.config import ServerLinkConfig, SiteConfig
from nognet.errors import FederationError, NognetError, ProvisionError
from nognet.pki.checks import load_site_key
from nognet.pki.clock import clock_ahead_s, clock_words, is_off
from nognet.pki.handshake import Reached, Unreachable, reach_coordinator
from nognet_client.processes import flower_internals as flower
from nognet_client.processes.link import REASON_HEADER
from nognet_client.processes.startup import check_link


@dataclass(frozen=True)
class Step:
    """One step of the check.

    Attributes:
        name: What was looked at.
        text: What was found.
        error: Why it failed; None where it did not.
    """

    name: str
    text: str
    error: NognetError | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the step as JSON values."""
        code = None if self.error is None else self.error.code
        return {"step": self.name, "ok": self.error is None, "text": self.text, "code": code}


def check_steps(site: SiteConfig, *, insecure: bool = False) -> Iterator[Step]:
    """Look at files, way, certificate, clock and registration; ends with what fails first."""
    name = "files"
    try:
        link = check_link(site, insecure=insecure)
        yield Step(name, f"{link.key} and {link.ca} can be used")
        name = "way and certificate"
        found = reach_coordinator(link.address, None if insecure else link.ca)
        if isinstance(found, Unreachable):
            raise FederationError(f"{link.address}: {found.cause}", code="unreachable")
        yield Step(name, _way_words(link.address, found))
        name = "clock"
        yield Step(name, _clock_words(found))
        name = "registration"
        yield Step(name, _registration(link, insecure=insecure))
    except NognetError as err:
        yield Step(name, str(err), err)


def _way_words(address: str, reached: Reached) -> str:
    via = f" through the proxy {reached.proxy}" if reached.proxy else ""
    ends = reached.certificate_ends
    until = f"; its certificate is valid until {ends:%Y-%m-%d}" if ends else " without TLS"
    return f"{address} answers{via}{until}"


def _clock_words(reached: Reached) -> str:
    ahead_s = reached.clock_ahead_s
    if ahead_s is None:
        return "the answer carries no date; not compared"
    if is_off(ahead_s):
        raise ProvisionError(
            f"{clock_words(ahead_s)}; the coordinator refuses a site that is 5 s ahead or 300 s "
            "behind: synchronise it (NTP)",
            code="clock",
        )
    return f"differs from the coordinator's by {abs(ahead_s):.0f} s"


def _registration(link: ServerLinkConfig, *, insecure: bool) -> str:
    """Ask to come online with an interval that is refused: it tells that the key is known.

    Raises:
        ProvisionError: the coordinator doesn't know the key, or refuses its signature.
        FederationError: the answer is none that a coordinator gives.
    """
    status, headers = _activate_for_no_time(link, insecure=insecure)
    if headers.get(REASON_HEADER) == "unregistered":
        raise ProvisionError(
            f"{link.address} doesn't know the key {link.key}; send its .pub file to the "
            "coordinator and have it registered (nognet provision register)",
            code="unregistered",
        )
    if status == 401:
        ahead_s = clock_ahead_s(headers.get("date", ""))
        words = f": {clock_words(ahead_s)}" if ahead_s is not None and is_off(ahead_s) else ""
        raise ProvisionError(
            f"{link.address} refuses the signature of {link.key}{words}", code="signature"
        )
    if status == 400:
        return "the coordinator knows this site's key"
    raise FederationError(f"{link.address} answers {status} to a signed request", code="answer")


def _activate_for_no_time(link: ServerLinkConfig, *, insecure: bool) -> tuple[int, httpx.Headers]:
    key = load_site_key(link.key)
    client = flower.FleetHttpClient.from_server_address(
        server_address=link.address,
        insecure=insecure,
        root_certificates=None if insecure else link.ca.read_bytes(),
        interceptors=[flower.NodeAuthHttpInterceptor(key, key.public_key())],
    )
    request = flower.ActivateNodeRequest(
        public_key=flower.public_key_to_bytes(key.public_key()), heartbeat_interval=0.0
    )
    try:
        client.ActivateNode(request)
    except httpx.HTTPStatusError as err:
        return err.response.status_code, err.response.headers
    except httpx.HTTPError as err:
        raise FederationError(f"{link.address}: {err}", code="unreachable") from err
    finally:
        client.close()
    return 200, httpx.Headers()
