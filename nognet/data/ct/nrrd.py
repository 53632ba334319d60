"""What ITK's reader of NRRD passes over: units, and a header without spacing or space."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from nognet.data.ct.meta_image import check_detached
from nognet.data.findings import Finding

NRRD_SUFFIXES = (".nrrd", ".nhdr")
_HEADER_BYTES = 65_536
_FIELD = re.compile(rb"^([A-Za-z][A-Za-z ]*):[ \t]*([^\r\n]*)", re.MULTILINE)
_PLACED = (b"space", b"space directions")
_SIZED = (b"space directions", b"spacings")


def nrrd_findings(path: Path) -> Iterator[Finding]:
    """Tell of a NRRD whose place or size in the world its header leaves open.

    Raises:
        SiteDataError: its values lie outside of its folder.
        OSError: the file can't be read.
    """
    if not path.name.lower().endswith(NRRD_SUFFIXES):
        return
    with path.open("rb") as file:
        head = re.split(rb"\r?\n\r?\n", file.read(_HEADER_BYTES), maxsplit=1)[0]
    fields = {found[1].lower(): found[2].strip() for found in _FIELD.finditer(head)}
    check_detached(path, fields.get(b"data file", fields.get(b"datafile", b"")))
    units = {unit.strip().lower() for unit in re.findall(rb'"([^"]*)"', _units(fields))}
    if units - {b"mm", b"millimeter", b"millimetre", b"", b"none", b"???"}:
        shown = b", ".join(sorted(units)).decode("ascii", "replace")[:40]
        yield Finding("bad-tags", "refused", f"lengths are given in {shown}, not in mm")
    if not any(name in fields for name in _SIZED):
        yield Finding("no-position", "refused", "the header has no spacing")
    elif not all(name in fields for name in _PLACED):
        message = "no space or no directions: where the image lies, and which way, is not known"
        yield Finding("no-position", "warning", message)


def _units(fields: dict[bytes, bytes]) -> bytes:
    return fields.get(b"space units", b"")
