"""What figures depend on besides the command: the processor, and the commit of the code."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import nognet

_CPU_INFO = Path("/proc/cpuinfo")
_GIT_WITHIN_S = 10.0


@dataclass(frozen=True)
class Commit:
    """The commit that is checked out.

    Attributes:
        sha: All 40 digits.
        changed: Whether files that git follows differ from it.
    """

    sha: str
    changed: bool


def processor_name(info: Path = _CPU_INFO) -> str:
    """Name the CPU's model as Linux tells it; elsewhere as Python does, at least its architecture.

    Args:
        info: Linux' own file.
    """
    try:
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(filter(None, models), platform.processor() or platform.machine())


def checkout_commit(root: Path | None = None) -> Commit | None:
    """Find the commit that the package runs from; None where it is installed without its history.

    Args:
        root: Folder that holds the package; by default the one of the running code. Only its own
            `.git` counts: an installed package may lie in some other project's checkout.
    """
    where = root if root is not None else Path(nognet.__file__).resolve().parents[1]
    if not (where / ".git").exists():
        return None
    sha = _git(where, "rev-parse", "--verify", "HEAD")
    changes = _git(where, "status", "--porcelain", "--untracked-files=no")
    return None if not sha or changes is None else Commit(sha, bool(changes))


def versions() -> dict[str, Any]:
    """Record the versions of nognet, torch and Python, and the commit that runs."""
    commit = checkout_commit()
    return {
        "nognet": nognet.__version__,
        "commit": None if commit is None else asdict(commit),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _git(root: Path, *arguments: str) -> str | None:
    """Ask git; None where it is missing, refuses or takes too long."""
    command = ["git", "--git-dir", str(root / ".git"), "--work-tree", str(root), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_GIT_WITHIN_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
