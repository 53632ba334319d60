"""Run a program that kills itself at moments, and read what it tells of each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def told_by(program: str, folder: Path, *, timeout_s: float) -> dict[str, Any]:
    """Run a module to its end; give its lines of JSON by their moment."""
    done = subprocess.run(
        [sys.executable, "-m", program, str(folder)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line["moment"]: line for line in lines}
