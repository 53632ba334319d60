"""A site that is ready to work, and the software that its numbers depend on."""

from __future__ import annotations

from dataclasses import dataclass

from nognet.config import SiteConfig
from nognet.data.store import PreparedSite
from nognet.wire import software
from nognet.wire.records import FAULTS


@dataclass(frozen=True)
class Site:
    """A site that is ready to work."""

    config: SiteConfig
    prepared: PreparedSite

    @property
    def facts(self) -> tuple[str, str]:
        """What the site's replies depend on besides the task."""
        return self.config.digest(), self.prepared.fingerprint


def software_versions(faults: str = "") -> dict[str, str]:
    """Name the software that the site's numbers depend on, and a rehearsal's faults, if any."""
    return {**({FAULTS: faults} if faults else {}), **software.software_versions()}
