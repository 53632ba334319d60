"""What children tell their supervisor: one JSON object a line, through an inherited pipe.

The log of a child is for reading after a fault; these events are few and are acted upon.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any

MAX_TEXT = 320
"""Characters of an event's text that are kept: a line has to fit into one write."""


@dataclass(frozen=True)
class Event:
    """One thing that happened in a child.

    Attributes:
        kind: Short stable name.
        text: For people; may be empty.
        values: What a program wants to know besides.
    """

    kind: str
    text: str = ""
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EventWriter:
    """Writes events to a file descriptor; without one, writes nothing."""

    descriptor: int | None

    def send(self, kind: str, text: str = "", **values: Any) -> None:  # noqa: ANN401  JSON values
        """Write one event; a supervisor that went away is no reason to fail."""
        if self.descriptor is None:
            return
        # json.dumps makes at most 12 bytes of a character
        line = json.dumps({"kind": kind, "text": text[:MAX_TEXT], "values": values}) + "\n"
        try:
            # one write of less than PIPE_BUF bytes is atomic: children may share the pipe
            os.write(self.descriptor, line.encode()[:4095])
        except OSError:
            return


class EventPipe:
    """The supervisor's end: children inherit `write_end`, `drain` gives what has come."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        os.set_blocking(self.read_end, False)
        self._rest = b""

    def drain(self) -> list[Event]:
        """Return the events that have arrived since the last call."""
        while True:
            try:
                data = os.read(self.read_end, 65536)
            except BlockingIOError:
                break
            if not data:
                break
            self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        return [event for line in lines if (event := _parse(line)) is not None]

    def close(self) -> None:
        """Close both ends."""
        os.close(self.read_end)
        os.close(self.write_end)


def _parse(line: bytes) -> Event | None:
    try:
        entry = json.loads(line)
        return Event(str(entry["kind"]), str(entry["text"]), dict(entry["values"]))
    except (ValueError, KeyError, TypeError):
        return None  # a line cut by the death of its writer
