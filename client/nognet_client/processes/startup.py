"""What is checked before a site's processes start: configuration, keys, data, the way out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from nognet.config import ServerLinkConfig, SiteConfig
from nognet.errors import ConfigError
from nognet.pki.checks import check_site_files
from nognet.pki.handshake import Unreachable, probe_coordinator
from nognet.supervision.children import StopRequest, back_off_s
from nognet.types import Split

PROGRESS_EVERY_S = 5.0
_USES: dict[Split, str] = {"train": "train on", "validation": "validate", "test": "test"}
log = logging.getLogger("nognet.client")


def check_link(site: SiteConfig) -> ServerLinkConfig:
    """Check that `site.yaml` names a coordinator, and the files that go with it.

    Raises:
        ConfigError: there is no `server:` section.
        ProvisionError: the CA certificate or the key can't be used.
    """
    if site.server is None:
        raise ConfigError(
            "site.yaml: server: missing; nognet-client needs server.address (host:port of the "
            "coordinator), server.ca (its ca.crt) and server.key (this site's key)"
        )
    for warning in check_site_files(site.server.ca, site.server.key):
        log.warning("%s", warning)
    return site.server


def wait_for_coordinator(
    link: ServerLinkConfig,
    stop: StopRequest,
    *,
    probe: Callable[..., Unreachable | None] = probe_coordinator,
) -> bool:
    """Wait until the coordinator answers over TLS; False if a stop was requested meanwhile.

    A cause that may pass by itself is told whenever it changes.

    Raises:
        ProvisionError: its certificate is refused, or what answers is no coordinator.
    """
    told: str | None = None
    tries = 0
    while not stop.requested:
        found = probe(link.address, link.ca)
        if found is None:
            return True
        if found.cause != told:
            log.info("waiting for the coordinator %s: %s", link.address, found.cause)
            told = found.cause
        tries += 1
        stop.wait(min(back_off_s(tries), 5.0))
    return False


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


def _teller() -> Callable[[int, int, str], None]:
    """Tell the progress of the preparation every few seconds."""
    told = time.monotonic()

    def tell(done: int, total: int, what: str) -> None:
        nonlocal told
        if done == total or time.monotonic() - told > PROGRESS_EVERY_S:
            told = time.monotonic()
            log.info("preparing: %d of %d patients; %s", done, total, what)

    return tell
