"""What a site refuses to run."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Mapping

import pytest
from nognet_client.processes.policy import MAX_BUNDLE_BYTES, RefusedBundleError, check_bundle
from nognet_server.processes.bundle import thin_bundle

import nognet


def zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def unzipped(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


OURS = unzipped(thin_bundle().content)


def code_of(content: bytes) -> str:
    with pytest.raises(RefusedBundleError) as refused:
        check_bundle(content)
    return refused.value.public_code


def test_the_coordinators_bundle_is_accepted_and_has_no_code() -> None:
    check_bundle(thin_bundle().content)
    assert set(OURS) == {"pyproject.toml", ".info/CONTENT"}


@pytest.mark.parametrize(
    "name", ["nognet_client/app.py", "evil.py", "data.txt", "../pyproject.toml", "sub/"]
)
def test_a_bundle_with_a_file_of_its_own_is_refused(name: str) -> None:
    assert code_of(zipped(OURS | {name: b"import os"})) == "RefusedBundleError:bundle-files"


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_bundle_that_is_compressed_strangely_is_refused(compression: int, damaged: bool) -> None:
    """What is raised otherwise would end the worker, and after a few times the site."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("pyproject.toml", OURS["pyproject.toml"])
    content = bytearray(buffer.getvalue())
    if damaged:
        start = 30 + len("pyproject.toml")
        content[start + 9 : start + 15] = bytes(6)
    assert code_of(bytes(content)) == "RefusedBundleError:bundle-form"


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b"nognet_client.app:app", b"os:system", "bundle-components"),
        (b"nognet_server.app:app", b"other:app", "bundle-components"),
        (nognet.__version__.encode(), b"99.0.0", "bundle-version"),
        (b"[project]", b"[project", "bundle-form"),
        (b"[tool.flwr.app.components]", b"[tool.flwr.other]", "bundle-form"),
    ],
)
def test_a_bundle_that_names_something_else_is_refused(old: bytes, new: bytes, code: str) -> None:
    changed = OURS["pyproject.toml"].replace(old, new)
    assert changed != OURS["pyproject.toml"]
    assert code_of(zipped(OURS | {"pyproject.toml": changed})) == f"RefusedBundleError:{code}"


def test_a_third_component_is_refused() -> None:
    extra = OURS["pyproject.toml"].replace(
        b"[tool.flwr.app.components]", b'[tool.flwr.app.components]\nagentapp = "os:system"'
    )
    assert code_of(zipped({"pyproject.toml": extra})) == "RefusedBundleError:bundle-components"


def test_what_is_no_archive_is_refused() -> None:
    assert code_of(b"") == "RefusedBundleError:bundle-form"
    assert code_of(zipped({".info/CONTENT": b""})) == "RefusedBundleError:bundle-form"


def test_a_bundle_that_swells_is_refused_before_it_is_read() -> None:
    bomb = zipped({"pyproject.toml": b"#" * (64 * MAX_BUNDLE_BYTES)})
    assert len(bomb) < MAX_BUNDLE_BYTES
    assert code_of(bomb) == "RefusedBundleError:bundle-size"
    assert code_of(b"x" * (MAX_BUNDLE_BYTES + 1)) == "RefusedBundleError:bundle-size"


def test_the_message_tells_the_site_which_release_to_install() -> None:
    with pytest.raises(RefusedBundleError, match=r"is of nognet .*, installed here is 9\.9\.9"):
        check_bundle(thin_bundle().content, installed="9.9.9")


def test_a_damaged_or_encrypted_bundle_is_refused_and_doesnt_end_the_worker() -> None:
    whole = zipped(OURS)
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 0xFF
        with contextlib.suppress(RefusedBundleError):  # no other error, whatever byte is wrong
            check_bundle(bytes(changed))
    encrypted = bytearray(whole)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := whole.find(mark, at + 1)) >= 0:
            encrypted[at + offset] |= 1
    assert code_of(bytes(encrypted)) == "RefusedBundleError:bundle-form"
