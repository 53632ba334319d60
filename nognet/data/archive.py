"""Unpack an uploaded ZIP archive so that it can do no harm.

No name in the archive becomes a path: folders and files are numbered, and `UnpackedArchive.names`
says what they were called. What an entry claims is checked before anything is written, and what
it really holds while it is written.
"""

from __future__ import annotations

import contextlib
import errno
import lzma
import re
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nognet.errors import SiteDataError

MAX_ENTRIES = 200_000
"""More files than any export of one patient has."""
MAX_DIRECTORY_BYTES = 64 * 2**20
"""Python reads the list of entries as a whole, so it must not be huge."""
CHUNK_BYTES = 1 << 20
LARGEST_RATIO, RATIO_FROM_BYTES = 200, 256 * 2**20
"""A larger archive that packs all its entries tighter than this holds nothing but one value."""
IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
"""Suffixes by which readers tell a format; no other part of a name is kept."""
OFFICE_SUFFIXES = (".docx", ".xlsx", ".pptx", ".odt", ".ods", ".odp", ".jar", ".epub")
"""ZIP archives by content, but documents: left for the readers to turn away."""
_MARKS = {
    b"PK\x03\x04": "ZIP",
    b"PK\x05\x06": "ZIP",
    b"PK\x07\x08": "ZIP",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "RAR",
}
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_END, _END64_PLACE, _END64 = b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06"
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, struct.error, RuntimeError,
            NotImplementedError, UnicodeDecodeError, ValueError, OverflowError)  # fmt: skip
"""What Python's reader raises on damaged, encrypted or unsupported entries."""


@dataclass(frozen=True)
class UnpackedArchive:
    """An archive's files, in a private folder that lives as long as the ``with`` block.

    Attributes:
        folder: The temporary folder.
        names: Name in the archive of every file written, in the order of the archive.
    """

    folder: Path
    names: Mapping[Path, str]


def archive_kind(path: Path) -> str:
    """Tell by its first bytes which kind of archive a file is; empty where it is none.

    A DICOM file is none, whatever its preamble holds.

    Raises:
        OSError: the file can't be read.
    """
    with path.open("rb") as file:
        head = file.read(512)
    if head[128:132] == b"DICM":
        return ""
    if head[257:262] == b"ustar":
        return "TAR"
    if head[:2] == b"\x1f\x8b" and path.name.lower().endswith((".tgz", ".tar.gz")):
        return "TAR"
    return next((kind for mark, kind in _MARKS.items() if head.startswith(mark)), "")


def is_archive(path: Path) -> bool:
    """Tell by content whether a file is an archive (ZIP, or one that isn't supported)."""
    try:
        return path.is_file() and archive_kind(path) != ""
    except OSError:
        return False


@contextlib.contextmanager
def unpacked(
    path: Path, *, max_bytes: int, max_entries: int = MAX_ENTRIES
) -> Iterator[UnpackedArchive]:
    """Unpack a ZIP archive into a private temporary folder that is deleted at the end.

    Args:
        path: The archive.
        max_bytes: Most bytes that all entries together may unpack to.
        max_entries: Most entries.

    Raises:
        SiteDataError: code ``zip-unsafe`` (paths out of the archive, links, encryption, damage,
            archives within, another kind of archive), ``too-large``, or ``disk-full``.
    """
    try:
        kind = archive_kind(path)
    except OSError as err:
        raise SiteDataError(f"{path}: can't be read: {err.strerror}", code="unreadable") from err
    if kind != "ZIP":
        found = f"{kind} archives are not supported" if kind else "not a ZIP archive"
        raise _unsafe(path, f"{found}; unpack it and give the folder")
    with contextlib.ExitStack() as stack:
        archive = stack.enter_context(_opened(path, max_entries))
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        _check_claims(path, archive.infolist(), max_bytes, max_entries)
        folder = Path(stack.enter_context(_private_folder(path, sum(e.file_size for e in entries))))
        yield UnpackedArchive(folder, _write_all(path, archive, entries, folder, max_bytes))


@contextlib.contextmanager
def _opened(path: Path, max_entries: int) -> Iterator[zipfile.ZipFile]:
    _check_directory(path, max_entries)
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGED as err:
        raise _unsafe(path, f"the archive is damaged ({type(err).__name__})") from err
    with archive:
        yield archive


def _check_directory(path: Path, max_entries: int) -> None:
    """Refuse a list of entries too large to be read, by what the archive's end says of it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 65_557 - 20))
        tail = file.read()
        at = tail.rfind(_END)
        if at < 0 or len(tail) < at + 22:
            raise _unsafe(path, "the archive has no end: it is cut short")
        count, directory_bytes = struct.unpack_from("<HL", tail, at + 10)
        place = tail.rfind(_END64_PLACE, 0, at)
        if place >= 0:
            file.seek(min(struct.unpack_from("<Q", tail, place + 8)[0], size))
            record = file.read(56)
            if record[:4] == _END64 and len(record) == 56:
                count, directory_bytes = struct.unpack_from("<QQ", record, 32)
    if directory_bytes > MAX_DIRECTORY_BYTES or count > max_entries:
        raise SiteDataError(
            f"{path}: the archive lists {count} entries in {directory_bytes} bytes; at most "
            f"{max_entries} entries are allowed",
            code="too-large",
        )


def _check_claims(
    path: Path, entries: list[zipfile.ZipInfo], max_bytes: int, max_entries: int
) -> None:
    """Check what the entries say of themselves."""
    if len(entries) > max_entries:
        raise SiteDataError(
            f"{path}: {len(entries)} entries; at most {max_entries} are allowed", code="too-large"
        )
    for entry in entries:
        fault = _fault_of(entry)
        if fault:
            raise _unsafe(path, f"entry '{printable(entry.orig_filename)}' {fault}")
    _check_overlap(path, entries)
    claimed = sum(entry.file_size for entry in entries)
    if claimed > max_bytes:
        raise _too_large(path, claimed, max_bytes)
    packed = sum(entry.compress_size for entry in entries)
    if claimed > RATIO_FROM_BYTES and claimed > LARGEST_RATIO * packed:
        message = f"{path}: {packed} bytes unpack to {claimed}, as no images do (a bomb?)"
        raise SiteDataError(f"{message}; unpack it and give the folder", code="too-large")


def _fault_of(entry: zipfile.ZipInfo) -> str:
    name = entry.orig_filename.replace("\\", "/")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if "\x00" in name:
        return "has a name with a zero byte"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "has an absolute path"
    if ".." in name.split("/"):
        return "leads out of the archive"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device, not a file"
    if entry.flag_bits & _ENCRYPTED:
        return "is encrypted; unpack the archive with its password and give the folder"
    return ""


def _check_overlap(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Refuse entries that share bytes of the archive: how a small file unpacks to anything."""
    ordered = sorted(entries, key=lambda entry: entry.header_offset)
    starts = [entry.header_offset for entry in ordered]
    ends = [entry.header_offset + 30 + entry.compress_size for entry in ordered]
    if any(end > following for end, following in zip(ends, starts[1:], strict=False)):
        raise _unsafe(path, "entries share the same bytes of the archive")
    if ends and ends[-1] > path.stat().st_size:
        raise _unsafe(path, "an entry ends after the archive does: it is cut short")


@contextlib.contextmanager
def _private_folder(path: Path, claimed_bytes: int) -> Iterator[str]:
    """Make a folder that only this user can read (0700), where there is room for the entries."""
    with tempfile.TemporaryDirectory(prefix="nognet-", ignore_cleanup_errors=True) as folder:
        free = shutil.disk_usage(folder).free
        if claimed_bytes > free:
            raise _disk_full(path, folder, f"{claimed_bytes} bytes are needed, {free} are free")
        yield folder


def _write_all(
    path: Path,
    archive: zipfile.ZipFile,
    entries: list[zipfile.ZipInfo],
    folder: Path,
    max_bytes: int,
) -> dict[Path, str]:
    names: dict[Path, str] = {}
    folders: dict[PurePosixPath, Path] = {PurePosixPath(): folder}
    left = max_bytes
    for number, entry in enumerate(entries, start=1):
        name = PurePosixPath(entry.filename.replace("\\", "/"))
        into = folders.setdefault(name.parent, folder / f"folder{len(folders):06d}")
        target = into / f"{number:06d}{_kept_suffix(name.name)}"
        shown = printable(str(name))
        try:
            into.mkdir(exist_ok=True)
            left -= _write(archive, entry, target, left)
        except _DAMAGED as err:
            raise _unsafe(path, f"entry '{shown}' is damaged ({type(err).__name__})") from err
        except OSError as err:
            if err.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise _unsafe(path, f"entry '{shown}' can't be unpacked: {err.strerror}") from err
            raise _disk_full(path, str(folder), f"at entry '{shown}'") from err
        if left < 0:
            raise _too_large(path, max_bytes - left, max_bytes)
        if is_archive(target) and not shown.lower().endswith(OFFICE_SUFFIXES):
            raise _unsafe(path, f"entry '{shown}' is itself an archive; unpack it first")
        names[target] = shown
    return names


def _write(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, room: int) -> int:
    """Write one entry; stop as soon as it is larger than `room`. Returns the bytes written."""
    written = 0
    with archive.open(entry) as source, target.open("xb") as file:
        while written <= room and (chunk := source.read(CHUNK_BYTES)):
            written += len(chunk)
            file.write(chunk)
    return written


def _kept_suffix(name: str) -> str:
    lowered = name.lower()
    return next((suffix for suffix in IMAGE_SUFFIXES if lowered.endswith(suffix)), "")


def printable(text: str) -> str:
    """Replace what would steer a terminal; the length of a name is kept in bounds."""
    shown = "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
    return shown if len(shown) <= 200 else f"{shown[:199]}\N{HORIZONTAL ELLIPSIS}"


def _unsafe(path: Path, what: str) -> SiteDataError:
    return SiteDataError(f"{path}: {what}", code="zip-unsafe")


def _too_large(path: Path, found: int, allowed: int) -> SiteDataError:
    return SiteDataError(
        f"{path}: unpacks to {found} bytes or more; at most {allowed} are allowed "
        "(preparation.max_unpacked_bytes)",
        code="too-large",
    )


def _disk_full(path: Path, folder: str, what: str) -> SiteDataError:
    return SiteDataError(
        f"{path}: no room to unpack in {folder}: {what}; free some, or set TMPDIR to a larger disk",
        code="disk-full",
    )
