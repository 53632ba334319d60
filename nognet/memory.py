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
    status = _STATUS.read_text(encoding="ascii") if _STATUS.is_file() else ""
    found = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    if found:
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # KiB elsewhere
