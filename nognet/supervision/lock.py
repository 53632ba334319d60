"""One supervisor a state folder: two would start each other's children and share one identity."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from nognet.errors import NognetError

_TRIES = 5
_PAUSE_S = 0.05


@contextlib.contextmanager
def exclusive(folder: Path, what: str) -> Iterator[None]:
    """Hold `folder` until the block ends; the kernel lets go of it when the process dies.

    Raises:
        NognetError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lock"
    with path.open("a+", encoding="ascii") as file:
        if not _take(file):
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise NognetError(
                f"{folder}: another {what} (pid {holder}) uses this state folder; stop it first, "
                "or give this one a folder of its own",
                code="already-running",
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def holder_of(folder: Path) -> int | None:
    """Give the pid of the process that holds `folder` now; None if none does."""
    try:
        with (folder / "lock").open(encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read())
            return None
    except (OSError, ValueError):
        return None


def _take(file: IO[str]) -> bool:
    """Lock a file; somebody who only looks who holds it does so for a moment."""
    for _ in range(_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PAUSE_S)
        else:
            return True
    return False
