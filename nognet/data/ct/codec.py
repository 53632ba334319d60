"""Decode compressed frames by SimpleITK, with nothing of the file's header reaching the decoder.

Each frame is handed over in a small DICOM file of our own that says only how the frame is stored.
So what comes back are the stored values, of one frame at a time, whatever the original file says
of slopes, positions or functional groups. Before that the frame's own header is read: a stream
that is larger than the image, lossy, or holds 8 bits is known before it is decoded.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nognet.data.ct.dicom_file import PixelElement
from nognet.data.ct.header import SliceHeader
from nognet.errors import SiteDataError

SECONDARY_CAPTURE = b"1.2.840.10008.5.1.4.1.1.7\0"
_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_J2K_START, _J2K_SIZE, _J2K_CODING, _J2K_TILE = b"\xff\x4f\xff\x51", 0x51, 0x52, 0x90
_JPEG_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_JPEG_LOSSLESS = {0xC3, 0xC7, 0xCB, 0xCF, 0xF7}
_JPEG_SCAN, _JPEG_LS = 0xDA, 0xF7


@dataclass(frozen=True)
class Codestream:
    """What a compressed frame says of itself.

    Attributes:
        rows: Rows of the image.
        columns: Columns of the image.
        components: Values a pixel.
        bits: Bits a value.
        lossy: Whether its coding can't give back what was put in.
        complete: Whether it has the mark of its end.
    """

    rows: int
    columns: int
    components: int
    bits: int
    lossy: bool
    complete: bool


def frame_spans(
    stream: BinaryIO, element: PixelElement, n_frames: int, path: Path
) -> list[list[tuple[int, int]]]:
    """List the fragments of every frame, as (start, length) in the stream.

    Raises:
        SiteDataError: the file ends early, or fragments can't be told apart into frames.
    """
    items: list[tuple[int, int]] = []
    stream.seek(element.start)
    end = element.start + element.available
    while True:
        head = stream.read(8)
        if head[:4] == _DELIMITER:
            break
        at = stream.tell()
        length = struct.unpack("<L", head[4:])[0] if len(head) == 8 else 0
        if head[:4] != _ITEM or at + length > end:
            raise SiteDataError(f"{path.name}: the file ends before its image", code="truncated")
        items.append((at, length))
        stream.seek(length, 1)
    if not items:
        raise SiteDataError(f"{path.name}: an image without fragments", code="no-pixels")
    table, *fragments = items
    if n_frames == 1 and fragments:
        return [fragments]
    if len(fragments) == n_frames:
        return [[fragment] for fragment in fragments]
    stream.seek(table[0])
    raw = stream.read(table[1])
    starts = [start for (start,) in struct.iter_unpack("<L", raw[: len(raw) // 4 * 4])]
    return _by_offsets(fragments, starts, n_frames, path)


def _by_offsets(
    fragments: list[tuple[int, int]], starts: list[int], n_frames: int, path: Path
) -> list[list[tuple[int, int]]]:
    """Group fragments by the basic offset table, whose zero is the first fragment's item."""
    if len(starts) == n_frames and fragments and sorted(set(starts)) == starts:
        first = fragments[0][0]
        which = np.searchsorted(starts, [at - first for at, _ in fragments], side="right") - 1
        spans = [[f for f, k in zip(fragments, which, strict=True) if k == i] for i in
                 range(n_frames)]  # fmt: skip
        if starts[0] == 0 and all(spans):
            return spans
    message = f"{len(fragments)} fragments can't be told apart into {n_frames} frames"
    raise SiteDataError(f"{path.name}: {message}", code="bad-tags")


def decode_frame(frame: bytes, header: SliceHeader, scratch: Path) -> NDArray[np.uint16]:
    """Decode one frame to its stored words ``(H, W)``.

    Args:
        frame: The compressed frame.
        header: The slice's header.
        scratch: A file that may be overwritten.

    Raises:
        SiteDataError: the frame is not what the header says, lossy, or can't be decoded.
    """
    rows, columns = header.matrix or (0, 0)
    _check_stream(codestream_of(frame), header)
    try:
        scratch.write_bytes(_wrapped(frame, header))
    except OSError as err:
        raise SiteDataError(f"{scratch.parent}: {err.strerror}", code="disk-full") from err
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(scratch))
    reader.SetImageIO("GDCMImageIO")
    try:
        array: NDArray[np.generic] = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as err:
        raise SiteDataError(
            f"{header.path.name}: the image can't be decoded (transfer syntax "
            f"{header.pixels.syntax})",
            code="truncated",
        ) from err
    if array.shape not in ((rows, columns), (1, rows, columns)) or array.dtype.kind not in "iu":
        raise SiteDataError(
            f"{header.path.name}: the decoded image is {array.shape} {array.dtype}, the header "
            f"says {(rows, columns)}",
            code="wrong-length",
        )
    return array.reshape(rows, columns).astype(np.uint16)


def _check_stream(stream: Codestream | None, header: SliceHeader) -> None:
    """Hold what a frame says of itself against the header."""
    name = header.path.name
    if stream is None:  # RLE has no header of its own
        return
    if (stream.rows, stream.columns) != header.matrix or stream.components != 1:
        raise SiteDataError(
            f"{name}: the compressed image is {stream.rows} x {stream.columns} x "
            f"{stream.components}, the header says {header.matrix}",
            code="wrong-length",
        )
    if stream.bits <= 8:
        message = f"{name}: not usable for HU: compressed with {stream.bits} bits a pixel"
        raise SiteDataError(message, code="eight-bit")
    if stream.lossy:
        raise SiteDataError(f"{name}: not usable for HU: lossy compression", code="lossy")
    if not stream.complete:
        raise SiteDataError(f"{name}: the compressed image is cut short", code="truncated")


def codestream_of(frame: bytes) -> Codestream | None:
    """Read a frame's own header: JPEG 2000, JPEG or JPEG-LS; None where it is none of them."""
    complete = frame.rstrip(b"\0").endswith(b"\xff\xd9")
    try:
        if frame[:2] == b"\xff\xd8":
            return _jpeg(frame, complete=complete)
        start = frame.find(_J2K_START, 0, 4096)
        return _j2k(frame, start, complete=complete) if start >= 0 else None
    except (struct.error, IndexError):  # it ends within its own header
        return Codestream(0, 0, 0, 0, lossy=False, complete=False)


def _j2k(frame: bytes, start: int, *, complete: bool) -> Codestream:
    """Read size and coding from the main header (ISO 15444-1, A.5.1 and A.6.1)."""
    at = start + 2
    size, lossy = (0, 0, 0, 0), False
    while frame[at] == 0xFF and frame[at + 1] != _J2K_TILE:
        if frame[at + 1] == _J2K_SIZE:
            width, height, left, top = struct.unpack_from(">4L", frame, at + 6)
            components = struct.unpack_from(">H", frame, at + 38)[0]
            size = (height - top, width - left, components, (frame[at + 40] & 0x7F) + 1)
        elif frame[at + 1] == _J2K_CODING:
            lossy = frame[at + 13] == 0  # the 9-7 wavelet can't be undone exactly
        at += 2 + int(struct.unpack_from(">H", frame, at + 2)[0])
    return Codestream(*size, lossy=lossy, complete=complete)


def _jpeg(frame: bytes, *, complete: bool) -> Codestream:
    """Read the frame header (ITU T.81, B.2.2), for JPEG-LS also NEAR (T.87, C.2.3)."""
    at, size, lossy, near = 2, (0, 0, 0, 0), False, 0
    while True:
        while frame[at + 1] == 0xFF:
            at += 1
        mark = frame[at + 1]
        if mark in _JPEG_FRAMES:
            bits, rows, columns, components = struct.unpack_from(">BHHB", frame, at + 4)
            size, lossy = (rows, columns, components, bits), mark not in _JPEG_LOSSLESS
            is_ls = mark == _JPEG_LS
        elif mark == _JPEG_SCAN:
            near = frame[at + 5 + 2 * frame[at + 4]] if size[0] and is_ls else 0
            return Codestream(*size, lossy=lossy or near > 0, complete=complete)
        at += 2 + int(struct.unpack_from(">H", frame, at + 2)[0])


def _wrapped(frame: bytes, header: SliceHeader) -> bytes:
    """Put a frame into a DICOM file that says nothing but how it is stored."""
    rows, columns = header.matrix or (0, 0)
    allocated, stored, high = header.pixels.bits
    syntax = header.pixels.syntax.encode("ascii", "replace")
    meta = b"".join(
        (
            _element(0x0002, 0x0002, b"UI", SECONDARY_CAPTURE),
            _element(0x0002, 0x0003, b"UI", b"2.25.1"),
            _element(0x0002, 0x0010, b"UI", syntax),
        )
    )
    numbers = {0x0002: 1, 0x0010: rows, 0x0011: columns, 0x0100: allocated, 0x0101: stored,
               0x0102: high, 0x0103: int(header.pixels.signed)}  # fmt: skip
    shape = [_element(0x0028, tag, b"US", struct.pack("<H", v)) for tag, v in numbers.items()]
    shape.insert(1, _element(0x0028, 0x0004, b"CS", b"MONOCHROME2"))
    even = frame + b"\0" * (len(frame) % 2)
    pixels = (
        struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
        + (_ITEM + bytes(4))
        + (_ITEM + struct.pack("<L", len(even)) + even)
        + (_DELIMITER + bytes(4))
    )
    return b"".join(
        (
            bytes(128) + b"DICM",
            _element(0x0002, 0x0000, b"UL", struct.pack("<L", len(meta))),
            meta,
            _element(0x0008, 0x0016, b"UI", SECONDARY_CAPTURE),
            _element(0x0008, 0x0018, b"UI", b"2.25.1"),
            *shape,
            pixels,
        )
    )


def _element(group: int, tag: int, vr: bytes, value: bytes) -> bytes:
    padding = b"\0" if vr == b"UI" else b" "
    even = value + padding * (len(value) % 2)
    return struct.pack("<HH2sH", group, tag, vr, len(even)) + even
