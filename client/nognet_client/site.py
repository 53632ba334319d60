"""A site that is ready to work, and the software that its numbers depend on."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import dataclass

import nognet
from nognet.config import SiteConfig
from nognet.data.store import PreparedSite
from nognet.wire.contract import PROTOCOL_VERSION
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
    return {
        **({FAULTS: faults} if faults else {}),
        "nognet": nognet.__version__,
        "protocol": str(PROTOCOL_VERSION),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("torch", "flwr", "numpy")},
    }
