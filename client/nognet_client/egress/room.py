"""Room for the record on a full disk: a file that is made shorter when nothing else can be written.

Nothing leaves without its record, and a hospital's disk fills up at night. So a megabyte is kept,
enough for some hundred messages.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

_log = logging.getLogger("nognet.client")
RESERVE_BYTES = 1_048_576
_STEP_BYTES = 65_536
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
Written = TypeVar("Written")


def with_room(folder: Path, write: Callable[[], Written]) -> Written:
    """Write a small file; on a full disk give up some of the room kept for it, and try again.

    Args:
        folder: Where the reserve is kept.
        write: Leaves nothing behind when it fails.

    Raises:
        OSError: it can't be written, and no room is left.
    """
    reserve = folder / ".reserve"
    _fill_up(reserve)
    while True:
        try:
            return write()
        except OSError as err:
            if err.errno not in _FULL or not _shorten(reserve):
                raise


def _fill_up(reserve: Path) -> None:
    """Make the reserve, or make it whole again once the disk has room for much more."""
    with contextlib.suppress(OSError):
        reserve.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        size = reserve.stat().st_size if reserve.exists() else 0
        free = shutil.disk_usage(reserve.parent).free
        if size >= RESERVE_BYTES or free < 2 * RESERVE_BYTES:
            return
        file = os.open(reserve, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(file, 0, RESERVE_BYTES)
        finally:
            os.close(file)


def _shorten(reserve: Path) -> bool:
    size = reserve.stat().st_size if reserve.exists() else 0
    if size == 0:
        return False
    left = max(0, size - _STEP_BYTES)
    os.truncate(reserve, left)
    _log.warning(
        "%s: the disk is full; the record of what leaves takes from the room kept for it, %d kB "
        "of which are left. Free some space: without a record nothing leaves this site",
        reserve.parent,
        left // 1000,
    )
    return True
