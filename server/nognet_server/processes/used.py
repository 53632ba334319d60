"""What holds once: remembered for as long as it could be tried again, restarts included.

The file is appended to before the answer is given, 40 bytes a use (time, SHA-256), and written anew
when most of it is old. A record that the death of its writer cut short is dropped.
"""

from __future__ import annotations

import logging
import os
import struct
from collections import deque
from collections.abc import Callable
from pathlib import Path

from nognet.files import atomic_path

_RECORD = struct.Struct("<d32s")
_SPARE_RECORDS = 10_000
log = logging.getLogger("nognet.server")
Seconds = Callable[[], float]


class UsedOnce:
    """Digests that were used; each holds once within `keep_s` seconds.

    Where the file can't be written (a full disk), memory alone keeps them until it can: the sites
    go on working, and a restart within these minutes would forget.
    """

    def __init__(self, keep_s: float, now: Seconds, path: Path | None = None) -> None:
        self.keep_s, self.now, self.path = keep_s, now, path
        self._held: set[bytes] = set()
        self._order: deque[tuple[float, bytes]] = deque()
        self._written = 0
        self._file: int | None = None
        self._is_failing = False
        if path is not None:
            for at, digest in _records(path):
                self._remember(at, digest)
            self._forget()
            self._try(self._rewrite)

    def __len__(self) -> int:
        """Count what is remembered."""
        return len(self._held)

    def use(self, digest: bytes) -> bool:
        """Use a SHA-256 digest up; False if it was before."""
        self._forget()
        if digest in self._held:
            return False
        at = self.now()
        self._remember(at, digest)
        self._try(lambda: self._append(at, digest))
        return True

    def _remember(self, at: float, digest: bytes) -> None:
        self._held.add(digest)
        self._order.append((at, digest))

    def _forget(self) -> None:
        horizon = self.now() - self.keep_s
        while self._order and self._order[0][0] < horizon:
            self._held.discard(self._order.popleft()[1])

    def _append(self, at: float, digest: bytes) -> None:
        if self.path is None:
            return
        if self._file is None or self._written > 2 * len(self._order) + _SPARE_RECORDS:
            self._rewrite()  # which holds this one, too
            return
        if os.write(self._file, _RECORD.pack(at, digest)) < _RECORD.size:
            self._close()  # a full disk took half of it: written anew the next time
        self._written += 1

    def _rewrite(self) -> None:
        if self.path is None:
            return
        self._close()
        with atomic_path(self.path, mode=0o600) as temporary:
            temporary.write_bytes(b"".join(_RECORD.pack(*item) for item in self._order))
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        self._written = len(self._order)

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as err:
            self._close()
            if not self._is_failing:
                log.warning(
                    "%s can't be written (%s): until it can, a restart forgets which requests were "
                    "answered, and one that was captured could be sent again for five minutes",
                    self.path,
                    err.strerror,
                )
            self._is_failing = True
        else:
            self._is_failing = False


def _records(path: Path) -> list[tuple[float, bytes]]:
    """Read the whole records of a file; none where there is no file."""
    try:
        content = path.read_bytes()
    except OSError:
        return []
    whole = len(content) - len(content) % _RECORD.size
    return [(float(at), bytes(digest)) for at, digest in _RECORD.iter_unpack(content[:whole])]
