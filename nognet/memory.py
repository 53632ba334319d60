"""How much memory this process has needed."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def largest_resident_bytes() -> int:
    """Give the largest resident memory that this process has had.

    On Linux from ``VmHWM``: ``ru_maxrss`` goes on from the process that started this one, so that a
    small child of a large parent would look as large as that.
    """
    found = _told("VmHWM")
    if found is not None:
        return found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # KiB elsewhere


def resident_bytes() -> int:
    """Give the resident memory of this process now; the largest so far where only that is told."""
    found = _told("VmRSS")
    return largest_resident_bytes() if found is None else found


def _told(name: str) -> int | None:
    """Read a line of Linux's status of this process; None elsewhere."""
    status = _STATUS.read_text(encoding="ascii") if _STATUS.is_file() else ""
    found = re.search(rf"^{name}:\s*(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None
