"""End this process when its parent dies, even by SIGKILL."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when its parent does; call it first of all in a child.

    The parent may have died before the request was made: then this process has another parent
    already, and ends here. What the parent passes as `parent_pid` is its own pid, from before the
    fork. The kernel means the *thread* that forked, so children are started from main threads
    (prctl(2), PR_SET_PDEATHSIG).
    """
    if sys.platform == "linux":
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    else:
        threading.Thread(target=_watch, args=(parent_pid,), daemon=True).start()
    if os.getppid() != parent_pid:
        os._exit(1)


def _watch(parent_pid: int) -> None:
    """Where the kernel can't tell: look every half second whether the parent is still ours."""
    while os.getppid() == parent_pid:
        time.sleep(0.5)
    os._exit(1)
