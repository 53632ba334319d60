"""Look at the text header of a MetaImage before ITK does, which ends the process on some.

ITK also goes on where the compressed values can't be unpacked: what it then gives as values is
whatever lay in memory. So the compressed stream is held against the size that the header claims.
"""

from __future__ import annotations

import math
import re
import zlib
from pathlib import Path
from typing import BinaryIO

from nognet.errors import SiteDataError

META_SUFFIXES = (".mha", ".mhd")
_HEADER_BYTES = 65_536
_CHUNK_BYTES = 1 << 20
_FIELD = re.compile(rb"^[ \t]*(\w+)[ \t]*[=:][ \t]*([^\r\n]*)\r?\n?", re.MULTILINE)
_TYPE_BYTES = {
    b"CHAR": 1, b"UCHAR": 1, b"SHORT": 2, b"USHORT": 2, b"INT": 4, b"UINT": 4, b"LONG": 4,
    b"ULONG": 4, b"LONG_LONG": 8, b"ULONG_LONG": 8, b"FLOAT": 4, b"DOUBLE": 8,
}  # fmt: skip


def check_meta_image(path: Path) -> None:
    """Refuse a MetaImage that ITK would crash on, or read wrongly without a word.

    Raises:
        SiteDataError: code ``truncated`` (no sound number of dimensions, compressed values cut
            short), ``bad-tags`` (values of a file elsewhere), or ``no-position`` (no spacing).
        OSError: the file can't be read.
    """
    if not path.name.lower().endswith(META_SUFFIXES):
        return
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
        end = _last_field(head)
        fields = {found[1]: found[2].strip() for found in _FIELD.finditer(head, 0, end)}
        numbers = [f[2].strip() for f in _FIELD.finditer(head, 0, end) if f[1] == b"NDims"]
        for number in numbers:
            if number not in (b"2", b"3", b"4"):
                raise SiteDataError(
                    f"{path}: the header is damaged (NDims is "
                    f"{number[:20].decode('ascii', 'replace')})",
                    code="truncated",
                )
        check_detached(path, fields.get(b"ElementDataFile", b""))
        if b"DimSize" in fields and not {b"ElementSpacing", b"ElementSize"} & set(fields):
            message = f"{path}: the header has no ElementSpacing: how large a voxel is isn't known"
            raise SiteDataError(message, code="no-position")
        if fields.get(b"CompressedData", b"").lower() in (b"true", b"1"):
            _check_compressed(path, fields, file, end)


def check_detached(path: Path, name: bytes) -> None:
    """Refuse a header that names a file elsewhere as the one that holds its values.

    Raises:
        SiteDataError: code ``bad-tags``.
    """
    parts = name.decode("utf-8", "replace").replace("\\", "/").split("/")
    if parts[0] == "" < name.decode("utf-8", "replace") or ".." in parts or parts[0][1:2] == ":":
        raise SiteDataError(
            f"{path}: its values are said to lie outside of its folder; put both side by side",
            code="bad-tags",
        )


def _last_field(head: bytes) -> int:
    """Find where the header ends: after ElementDataFile, which is always its last field."""
    ends = (found.end() for found in _FIELD.finditer(head) if found[1] == b"ElementDataFile")
    return next(ends, len(head))


def _check_compressed(path: Path, fields: dict[bytes, bytes], file: BinaryIO, end: int) -> None:
    """Unpack the values once and count them."""
    kind = fields.get(b"ElementType", b"").removeprefix(b"MET_")
    try:
        sizes = [int(number) for number in fields.get(b"DimSize", b"").split()]
        channels = int(fields.get(b"ElementNumberOfChannels", b"1"))
        packed = int(fields.get(b"CompressedDataSize", b"0"))
    except ValueError as err:
        raise SiteDataError(f"{path}: the header is damaged", code="truncated") from err
    name = fields.get(b"ElementDataFile", b"")
    if kind not in _TYPE_BYTES:
        return  # arrays and the like: turned away later
    needed = math.prod(sizes) * channels * _TYPE_BYTES[kind]
    if name.upper() == b"LOCAL":
        file.seek(end)
        found = _unpacked_bytes(file, packed, needed)
    else:
        values = path.parent / name.decode("utf-8", "replace")
        if not values.is_file():
            return  # a list or a pattern of files, or none: ITK says so itself
        with values.open("rb") as beside:
            found = _unpacked_bytes(beside, packed or values.stat().st_size, needed)
    if found != needed:
        raise SiteDataError(
            f"{path}: the compressed values end early or are damaged ({found} of {needed} bytes "
            "can be unpacked)",
            code="truncated",
        )


def _unpacked_bytes(file: BinaryIO, packed: int, limit: int) -> int:
    """Count the bytes that `packed` bytes unpack to, up to one chunk beyond `limit`."""
    inflater, seen = zlib.decompressobj(zlib.MAX_WBITS | 32), 0
    try:
        while packed > 0 and not inflater.eof and (raw := file.read(min(packed, _CHUNK_BYTES))):
            packed -= len(raw)
            while raw and not inflater.eof and seen <= limit:
                seen += len(inflater.decompress(raw, _CHUNK_BYTES))
                raw = inflater.unconsumed_tail
            if seen > limit:
                return seen
        # what the last call held back for want of room
        seen += len(inflater.flush()) if not inflater.eof else 0
    except zlib.error:
        return seen if seen < limit else 0
    return seen
