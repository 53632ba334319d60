"""DICOM files taken apart into elements and put together again, so that tests can damage them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from pathlib import Path

LONG = (b"OB", b"OW", b"OF", b"OD", b"SQ", b"UN", b"UT", b"UC", b"UR", b"OL")


@dataclass(frozen=True)
class Element:
    """One element of explicit VR, little endian; `length` overrides the true one."""

    tag: int
    vr: bytes
    value: bytes
    length: int | None = None

    def encoded(self) -> bytes:
        head = struct.pack("<HH", self.tag >> 16, self.tag & 0xFFFF) + self.vr
        length = len(self.value) if self.length is None else self.length
        if self.vr in LONG:
            return head + struct.pack("<HL", 0, length & 0xFFFFFFFF) + self.value
        return head + struct.pack("<H", length & 0xFFFF) + self.value


def take_apart(path: Path) -> tuple[bytes, list[Element]]:
    """Split a file into everything up to the data set, and the data set's elements."""
    raw = path.read_bytes()
    at = 132
    while raw[at : at + 2] == b"\x02\x00":
        at = _next(raw, at)[1]
    start, elements = at, []
    while at < len(raw):
        element, at = _next(raw, at)
        elements.append(element)
    return raw[:start], elements


def put_together(path: Path, head: bytes, elements: list[Element]) -> None:
    path.write_bytes(head + b"".join(element.encoded() for element in elements))


def changed(elements: list[Element], tag: int, **fields: object) -> list[Element]:
    """Change fields of the element with a tag."""
    return [replace(e, **fields) if e.tag == tag else e for e in elements]  # type: ignore[arg-type]


def _next(raw: bytes, at: int) -> tuple[Element, int]:
    group, number = struct.unpack_from("<HH", raw, at)
    vr = raw[at + 4 : at + 6]
    if vr in LONG:
        length, start = struct.unpack_from("<L", raw, at + 8)[0], at + 12
    else:
        length, start = struct.unpack_from("<H", raw, at + 6)[0], at + 8
    return Element(group << 16 | number, vr, raw[start : start + length]), start + length
