"""What is checked before a site's processes start: configuration, keys, data, the way out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from nognet.config import ServerLinkConfig, SiteConfig
from nognet.errors import ConfigError
from nognet.pki.checks import check_site_files, refuse_beyond_loopback
from nognet.pki.clock import clock_words, is_off
from nognet.pki.handshake import Reached, Unreachable, reach_coordinator
from nognet.supervision.children import StopRequest, back_off_s
from nognet.types import Split
from nognet_client.consent.words import consent_status
from nognet_client.processes.trust import check_trusted_entities

PROGRESS_EVERY_S = 5.0
_USES: dict[Split, str] = {"train": "train on", "validation": "validate", "test": "test"}
log = logging.getLogger("nognet.client")


def check_link(site: SiteConfig, *, insecure: bool = False) -> ServerLinkConfig:
    """Check that `site.yaml` names a coordinator, and the files that go with it.

    Args:
        site: The site's configuration.
        insecure: No TLS; on loopback only.

    Raises:
        ConfigError: there is no `server:` section, or an address elsewhere without TLS.
        ProvisionError: the CA certificate, the key or a trusted key can't be used.
    """
    if site.server is None:
        raise ConfigError(
            "site.yaml: server: missing; nognet-client needs server.address (host:port of the "
            "coordinator), server.ca (its ca.crt) and server.key (this site's key)"
        )
    if site.server.trusted_entities is not None:
        check_trusted_entities(site.server.trusted_entities)
    if insecure:
        refuse_beyond_loopback(site.server.address, "server.address")
        log.warning("--insecure: no TLS; this machine's users read along")
    for warning in check_site_files(site.server.ca, site.server.key):
        log.warning("%s", warning)
    return site.server


def wait_for_coordinator(
    link: ServerLinkConfig,
    stop: StopRequest,
    *,
    insecure: bool = False,
    reach: Callable[..., Reached | Unreachable] = reach_coordinator,
) -> bool:
    """Wait until the coordinator answers over TLS; False if a stop was requested meanwhile.

    A cause that may pass by itself is told whenever it changes; a clock that is off is warned of.

    Raises:
        ProvisionError: its certificate is refused, or what answers is no coordinator.
    """
    told: str | None = None
    tries = 0
    while not stop.requested:
        found = reach(link.address, None if insecure else link.ca)
        if isinstance(found, Reached):
            _warn_of_clock(found)
            return True
        if found.cause != told:
            log.info("waiting for the coordinator %s: %s", link.address, found.cause)
            told = found.cause
        tries += 1
        stop.wait(min(back_off_s(tries), 5.0))
    return False


def _warn_of_clock(reached: Reached) -> None:
    ahead_s = reached.clock_ahead_s
    if ahead_s is not None and is_off(ahead_s):
        log.warning(
            "%s; the coordinator refuses a site that is 5 s ahead or 300 s behind: synchronise it "
            "(NTP)",
            clock_words(ahead_s),
        )


def prepare(site: SiteConfig) -> None:
    """Prepare the site's data, or find it prepared, and say what there is.

    Raises:
        SiteDataError: the site's files can't be used.
    """
    from nognet.data.store import INDEX_NAME, open_store

    if not site.studies.exists() and (site.cache / INDEX_NAME).exists():
        log.info("%s isn't there; using the pairs prepared in %s", site.studies, site.cache)
        prepared = open_store(site.cache)
    else:
        from nognet.data.site.prepare import prepare_site

        log.info("preparing %s", site.studies)
        prepared = prepare_site(site, progress=_teller())
    counts = prepared.counts()
    parts = (f"{counts[split]['patients']} to {use}" for split, use in _USES.items())
    log.info("%s: patients: %s", site.name, ", ".join(parts))


def tell_consent(site: SiteConfig) -> None:
    """Say once what this site accepts, or that it set no limits.

    Raises:
        ConsentError: the record of what was done for each study can't be read.
    """
    words = consent_status(site)["text"]
    log.log(logging.WARNING if site.consent is None else logging.INFO, "consent: %s", words)


def tell_privacy(site: SiteConfig) -> None:
    """Warn where the site's own privacy bounds each run and not all of them together."""
    from nognet.privacy.policy import stricter, unlimited_words

    words = unlimited_words(stricter(None, site.privacy))
    if words is not None:
        log.warning("privacy: %s", words)


def _teller() -> Callable[[int, int, str], None]:
    """Tell the progress of the preparation every few seconds."""
    told = time.monotonic()

    def tell(done: int, total: int, what: str) -> None:
        nonlocal told
        if done == total or time.monotonic() - told > PROGRESS_EVERY_S:
            told = time.monotonic()
            log.info("preparing: %d of %d patients; %s", done, total, what)

    return tell
