"""One supervisor a state folder: two would start each other's children and share one identity."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from nognet.errors import NognetError


@contextlib.contextmanager
def exclusive(folder: Path, what: str) -> Iterator[None]:
    """Hold `folder` until the block ends; the kernel lets go of it when the process dies.

    Raises:
        NognetError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lock"
    with path.open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise NognetError(
                f"{folder}: another {what} (pid {holder}) uses this state folder; stop it first, "
                "or give this one a folder of its own",
                code="already-running",
            ) from err
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
