"""The software that figures depend on, at both ends, and where it differs."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping

import nognet
from nognet.wire.contract import PROTOCOL_VERSION

_PACKAGES = ("torch", "flwr", "numpy")


def software_versions() -> dict[str, str]:
    """Name the software that this machine's numbers depend on."""
    return {
        "nognet": nognet.__version__,
        "protocol": str(PROTOCOL_VERSION),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def differing_software(ours: Mapping[str, str], theirs: Mapping[str, str]) -> dict[str, str]:
    """Name the packages whose versions differ, with both; `nognet` is the contract's to compare.

    Builds of one version (`2.9.0+cpu`, `2.9.0+cu128`) and patches of one Python are the same.

    >>> differing_software({"python": "3.11.4", "torch": "2.9.0"}, {"python": "3.11.9"})
    {'torch': '2.9.0 here, absent at the site'}
    """
    return {
        name: f"{ours.get(name, 'absent')} here, {theirs.get(name, 'absent')} at the site"
        for name in ("python", *_PACKAGES)
        if _compared(name, ours) != _compared(name, theirs)
    }


def _compared(name: str, versions: Mapping[str, str]) -> str:
    version = versions.get(name, "").partition("+")[0]
    return ".".join(version.split(".")[:2]) if name == "python" else version
