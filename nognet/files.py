"""Write files so that a crash leaves the old one or the new one, never half of one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DISK_TROUBLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
"""Errors by which a disk says that nothing can be written to it."""


@contextlib.contextmanager
def atomic_path(path: Path, *, mode: int = 0o644) -> Iterator[Path]:
    """Yield a temporary path beside `path`; at the end it replaces `path`, synced to disk.

    On an exception the temporary file is removed and `path` is untouched.

    Raises:
        OSError: the folder can't be written (for example a full disk).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty hidden folder beside `path`; at the end it becomes `path`, synced to disk.

    On an exception it is removed; what a killed process left of it is, at the next try. One process
    at a time may make `path`.

    Raises:
        OSError: the folder can't be written (for example a full disk), or `path` holds something.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for inner, _, names in os.walk(temporary, topdown=False):
            for name in names:
                with Path(inner, name).open("rb") as written:
                    os.fsync(written.fileno())
            _sync_folder(Path(inner))
        temporary.rename(path)
        _sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    """Bring a new name to the disk: after a power cut the old file would be there again.

    A count of what was done, or a key that was used, would be forgotten. Some file systems of a
    network have no such thing.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as err:
        if err.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def held(lock: Path) -> Iterator[None]:
    """Let one process at a time into a `with` block; another one waits for the file's lock.

    Of two that read the same record, and write it, what one wrote would be forgotten. The folder is
    made for its owner alone.

    Raises:
        OSError: the lock's file can't be written.
    """
    lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with lock.open("w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_text_atomic(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Write text as UTF-8 in one step."""
    with atomic_path(path, mode=mode) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json_atomic(path: Path, value: Any) -> None:  # noqa: ANN401  any JSON value
    """Write a value as indented JSON in one step; a number that is not finite is an error.

    Raises:
        ValueError: the value holds NaN or an infinity.
    """
    write_text_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
