"""What a site runs: the apps of its own installed release, and nothing that came with a run.

Stock Flower unpacks and imports the coordinator's bundle at the hospital. Here the bundle is looked
at as data, and refused if it is more than a list of names.
"""

from __future__ import annotations

import io
import tomllib
import zipfile
import zlib
from typing import Any

import nognet
from nognet.errors import WireError

ALLOWED_FILES = frozenset({"pyproject.toml", ".info/CONTENT"})
COMPONENTS = {
    "serverapp": "nognet_server.app:app",
    "clientapp": "nognet_client.app:app",
}
MAX_BUNDLE_BYTES = 64 * 1024
"""Ours has about 700 bytes; what is much larger isn't even looked into."""
_COMPRESSIONS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""Others take memory as the bundle says, and fail in ways of their own."""


class RefusedBundleError(WireError):
    """The run asks for other code than what is installed here."""

    default_code = "refused-bundle"


def check_bundle(content: bytes, *, installed: str = nognet.__version__) -> None:
    """Check that a bundle names the installed apps of this release and carries nothing else.

    Raises:
        RefusedBundleError: it carries files, names other components, or wants another version.
    """
    pyproject = _read_pyproject(content)
    try:
        components = pyproject["tool"]["flwr"]["app"]["components"]
        version = pyproject["project"]["version"]
    except (KeyError, TypeError) as err:
        raise RefusedBundleError(
            "the bundle names no apps or no version", code="bundle-form"
        ) from err
    if components != COMPONENTS:
        raise RefusedBundleError(
            f"the bundle names other apps ({components}) than the installed {COMPONENTS}",
            code="bundle-components",
        )
    if version != installed:
        raise RefusedBundleError(
            f"the run is of nognet {version}, installed here is {installed}; install the same "
            "release at coordinator and site",
            code="bundle-version",
        )


def _read_pyproject(content: bytes) -> dict[str, Any]:
    if len(content) > MAX_BUNDLE_BYTES:
        raise RefusedBundleError(
            f"the bundle has {len(content)} bytes, expected a list of names", code="bundle-size"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            extra = set(archive.namelist()) - ALLOWED_FILES
            if extra:
                raise RefusedBundleError(
                    f"the bundle carries {len(extra)} file(s) of its own; this site runs installed "
                    "code only",
                    code="bundle-files",
                )
            info = archive.getinfo("pyproject.toml")
            if info.compress_type not in _COMPRESSIONS:
                raise RefusedBundleError("the bundle is compressed strangely", code="bundle-form")
            if info.file_size > MAX_BUNDLE_BYTES:
                raise RefusedBundleError(
                    "the bundle's pyproject.toml is too long", code="bundle-size"
                )
            return tomllib.loads(archive.read(info).decode("utf-8"))
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, RuntimeError) as err:
        raise RefusedBundleError("the bundle can't be read", code="bundle-form") from err
