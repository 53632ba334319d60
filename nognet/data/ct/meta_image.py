"""Look at the text header of a MetaImage before ITK does, which ends the process on some."""

from __future__ import annotations

import re
from pathlib import Path

from nognet.errors import SiteDataError

META_SUFFIXES = (".mha", ".mhd")
_HEADER_BYTES = 65_536
_NUMBER = re.compile(rb"^\s*NDims\s*[=:]([^\r\n]*)", re.MULTILINE)


def check_meta_image(path: Path) -> None:
    """Refuse a MetaImage whose number of dimensions is none: ITK would crash on it.

    Raises:
        SiteDataError: code ``truncated``.
        OSError: the file can't be read.
    """
    if not path.name.lower().endswith(META_SUFFIXES):
        return
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    for found in _NUMBER.findall(head):
        if found.strip() not in (b"2", b"3", b"4"):
            raise SiteDataError(
                f"{path}: the header is damaged (NDims is {found[:20].decode('ascii', 'replace')})",
                code="truncated",
            )
