"""A terminal to run commands on: a pty, and what its screen shows of the bytes that came."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Sequence
from dataclasses import dataclass

_PIECE = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


@dataclass(frozen=True)
class Shown:
    """What a command left on its terminal.

    Attributes:
        exit_code: Of the command.
        raw: All that it wrote, escape sequences too.
        stdout: What went to its stdout, which is a file.
    """

    exit_code: int
    raw: str
    stdout: str

    @property
    def lines(self) -> list[str]:
        """The screen at the end."""
        return screen(self.raw)

    @property
    def plain(self) -> str:
        """All that was ever written, without escape sequences."""
        return re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", self.raw)


def on_terminal(command: Sequence[str], *, columns: int = 100, **environment: str) -> Shown:
    """Run a command whose stderr is a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    variables = {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1", **environment}
    dropped = {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}
    inherited = {k: v for k, v in os.environ.items() if k not in dropped}
    with tempfile.TemporaryFile() as output:  # a pipe that nobody reads meanwhile would fill
        process = subprocess.Popen(
            command, stdout=output, stderr=theirs, env={**inherited, **variables}
        )
        os.close(theirs)
        try:
            raw = _everything(ours)
            process.wait(timeout=30)
        finally:
            process.kill()
            os.close(ours)
        output.seek(0)
        return Shown(process.returncode, raw, output.read().decode())


def python(script: str) -> list[str]:
    """Give the command that runs a script."""
    return [sys.executable, "-c", script]


def screen(raw: str) -> list[str]:
    """Draw bytes as a terminal does: lines that are not empty, without trailing blanks.

    Raises:
        ValueError: a sequence that is not known here.
    """
    lines, row, column, place = [""], 0, 0, 0
    while place < len(raw):
        found = _PIECE.match(raw, place)
        if found is None:
            raise ValueError(f"not known: {raw[place : place + 20]!r}")
        place = found.end()
        parameter, letter, control, text = found.groups()
        if text:
            lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + len(text) :]
            column += len(text)
        elif control == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif control == "\r":
            column = 0
        elif letter == "A":
            row = max(0, row - int(parameter or 1))
        elif letter == "K":
            lines[row] = "" if parameter == "2" else lines[row][:column]
        elif letter not in {"m", "h", "l"}:
            raise ValueError(f"not known: {found[0]!r}")
    return [line.rstrip() for line in lines if line.strip()]


def _everything(descriptor: int) -> str:
    """Read until the other side is closed, which Linux tells as an error."""
    parts = []
    while True:
        try:
            part = os.read(descriptor, 65536)
        except OSError:
            break
        if not part:
            break
        parts.append(part)
    return b"".join(parts).decode()
