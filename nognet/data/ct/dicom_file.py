"""Open a DICOM file whatever it holds: its tags, and where its pixels lie.

Nothing is loaded because a length says so: values that nobody asks for are passed over, and the
deflated syntax is inflated up to a limit.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.tag import Tag

from nognet.data.archive import archive_kind
from nognet.errors import SiteDataError

logging.getLogger("pydicom").setLevel(logging.CRITICAL)
# its warnings quote the values of tags, patients' names among them; what matters we say ourselves

MAX_INFLATED_BYTES = 256 * 2**20
"""A data set of the deflated syntax that inflates to more is refused."""
DEFER_BYTES = 64 * 2**20
"""Values longer than this are left in the file until they are asked for."""
UNDEFINED_LENGTH = 0xFFFFFFFF
DEFLATED = b"1.2.840.10008.1.2.1.99"
EXPLICIT = b"1.2.840.10008.1.2.1".ljust(len(DEFLATED), b"\0")
PYDICOM_ERRORS = (
    ValueError,  # numbers, UIDs and character sets that are none
    BytesLengthException,  # a value whose length doesn't fit its VR
    TypeError,  # values of another kind than the tag's
    AttributeError,  # a sequence that is none
    LookupError,  # tags, VRs and encodings that don't exist
    NotImplementedError,  # VRs without a reader
    ArithmeticError,  # decimals out of range
    struct.error,  # a value shorter than its VR needs
    EOFError,  # the file ends within an element
    RecursionError,  # sequences within sequences without end
)
"""What pydicom raises on damaged data sets; tests/data/ct/test_header_fuzz.py provokes them."""
_FIRST_ELEMENTS = (0x00, 0x01, 0x05, 0x08, 0x12, 0x13, 0x14, 0x16, 0x18, 0x20, 0x60)
"""Elements of group 0008 that a data set can begin with."""
_FIRST_VRS = (b"UL", b"CS", b"DA", b"TM", b"UI", b"LO")
_LONGEST_FIRST_VALUE = 256
_LONG_VRS = (b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT",
             b"UV")  # fmt: skip


@dataclass(frozen=True)
class PixelElement:
    """The value of PixelData in a stream that `opened` gives.

    Attributes:
        start: Its first byte.
        length: Its length in bytes; None where it is encapsulated (a sequence of fragments).
        available: Bytes from `start` to the end of the stream.
    """

    start: int
    length: int | None
    available: int


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a DICOM file; one of the deflated syntax is given inflated, as explicit VR.

    Raises:
        SiteDataError: the file can't be opened, or doesn't inflate within the limit.
    """
    try:
        file = path.open("rb")
    except OSError as err:
        raise _unreadable(path, err) from err
    with file:
        head = file.read(1024)
        if DEFLATED in head and head[128:132] == b"DICM":
            yield _inflated(path, file, head)
        else:
            file.seek(0)
            yield file


def size_of(stream: BinaryIO) -> int:
    """Give the length of a stream; its position stays."""
    here = stream.tell()
    end = stream.seek(0, os.SEEK_END)
    stream.seek(here)
    return end


def read_dataset(path: Path, tags: Sequence[str | int] | None = None) -> tuple[Dataset, int | None]:
    """Read a DICOM file up to its pixels, and where its PixelData starts (None if nowhere).

    Args:
        path: The file.
        tags: Keywords or numbers of the tags wanted; by default all.

    Raises:
        SiteDataError: the file is not DICOM (``not-dicom``), is cut short or damaged
            (``truncated``), or can't be read (``unreadable``).
    """
    with opened(path) as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd values are judged by us, tag by tag
        head = stream.read(132)
        stream.seek(0)
        try:
            data = pydicom.dcmread(
                stream,
                stop_before_pixels=True,
                specific_tags=None if tags is None else [Tag(tag) for tag in tags],
                defer_size=None if isinstance(stream, io.BytesIO) else DEFER_BYTES,
                force=_begins_at_once(head),
            )
        except InvalidDicomError as err:
            raise _not_dicom(path) from err
        except OSError as err:
            if err.errno is not None:
                raise _unreadable(path, err) from err
            raise _damaged(path, err) from err
        except PYDICOM_ERRORS as err:
            raise _damaged(path, err) from err
        offset, size = stream.tell(), size_of(stream)
    if offset > size:
        raise SiteDataError(f"{path}: the header is cut short", code="truncated")
    return data, offset if size - offset >= 8 else None


def pixel_element(path: Path, offset: int | None) -> PixelElement | None:
    """Read where the value of PixelData lies, from the offset that `read_dataset` gave.

    Raises:
        SiteDataError: the file can't be opened.
    """
    if offset is None:
        return None
    with opened(path) as stream:
        stream.seek(offset)
        head = stream.read(12)
        size = size_of(stream)
    order = ">" if head[:2] == b"\x7f\xe0" else "<"
    if len(head) < 8 or struct.unpack_from(order + "HH", head) != (0x7FE0, 0x0010):
        return None
    vr, start = head[4:6], offset + 8
    if vr in _LONG_VRS:
        if len(head) < 12:
            return None
        length, start = struct.unpack_from(order + "L", head, 8)[0], offset + 12
    elif vr.isalpha() and vr.isupper():
        length = struct.unpack_from(order + "H", head, 6)[0]
    else:
        length = struct.unpack_from(order + "L", head, 4)[0]
    return PixelElement(start, None if length == UNDEFINED_LENGTH else length, size - start)


def has_dicom_mark(path: Path) -> bool:
    """Tell by the mark after the preamble whether a file claims to be DICOM."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _begins_at_once(head: bytes) -> bool:
    """Tell whether a file without preamble and mark begins with its first element, as old ones do.

    That is one of the file-meta group or of the first group of a data set, with a VR or a short
    length behind it.
    """
    if head[128:132] == b"DICM" or len(head) < 132:
        return False
    for order in "<>":
        group, element, length = struct.unpack_from(f"{order}HHL", head)
        known = (group, element) == (2, 0) or (group == 8 and element in _FIRST_ELEMENTS)
        if known and (head[4:6] in _FIRST_VRS or length <= _LONGEST_FIRST_VALUE):
            return True
    return False


def _inflated(path: Path, file: BinaryIO, head: bytes) -> io.BytesIO:
    """Inflate what follows the file-meta group; its transfer syntax is set to explicit VR."""
    start = _meta_end(head)
    file.seek(start)
    packed = file.read(MAX_INFLATED_BYTES + 1)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = inflater.decompress(packed, MAX_INFLATED_BYTES)
    except zlib.error as err:
        raise SiteDataError(f"{path}: can't be inflated: {err}", code="truncated") from err
    if not inflater.eof:
        if len(content) >= MAX_INFLATED_BYTES or len(packed) > MAX_INFLATED_BYTES:
            limit = f"at most {MAX_INFLATED_BYTES} bytes are allowed"
            raise SiteDataError(f"{path}: inflates to more than {limit}", code="too-large")
        raise SiteDataError(f"{path}: the deflated data is cut short", code="truncated")
    return io.BytesIO(head[:start].replace(DEFLATED, EXPLICIT) + content)


def _meta_end(head: bytes) -> int:
    """Find where the file-meta group ends: its elements are explicit VR, little endian."""
    at = 132
    while head[at : at + 2] == b"\x02\x00" and at + 12 <= len(head):
        if head[at + 4 : at + 6] in _LONG_VRS:
            at += 12 + int(struct.unpack_from("<L", head, at + 8)[0])
        else:
            at += 8 + int(struct.unpack_from("<H", head, at + 6)[0])
    return at


def _not_dicom(path: Path) -> SiteDataError:
    """Say what a file without the mark is; one that lost its mark must not pass unseen."""
    try:
        kind = archive_kind(path)
        with path.open("rb") as file:
            head = file.read(140)
    except OSError as err:
        return _unreadable(path, err)
    if kind:
        message = f"{path}: not a DICOM file but an archive ({kind}), left closed"
        return SiteDataError(message, code="not-dicom")
    if not head:
        return SiteDataError(f"{path}: an empty file", code="not-dicom")
    in_preamble = len(head) < 132 and 2 * head.count(0) >= len(head)
    if in_preamble or head[132:136] == b"\x02\x00\x00\x00" or not head[:128].strip(b"\0"):
        message = f"{path}: a DICOM file without its mark: cut short or damaged"
        return SiteDataError(message, code="truncated")
    return SiteDataError(f"{path}: not a DICOM file", code="not-dicom")


def _damaged(path: Path, err: Exception) -> SiteDataError:
    return SiteDataError(
        f"{path}: the header is damaged or cut short ({type(err).__name__})", code="truncated"
    )


def _unreadable(path: Path, err: OSError) -> SiteDataError:
    return SiteDataError(f"{path}: can't be read: {err.strerror}", code="unreadable")
