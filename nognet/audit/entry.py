"""One line of the log: its canonical bytes, and the hash that chains it to the line before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

GENESIS = "0" * 64
"""What the first line has in place of a previous hash."""


@dataclass(frozen=True)
class Entry:
    """A line.

    Attributes:
        index: From 0, without gaps.
        time: ISO 8601 in UTC.
        event: What happened; JSON values.
        previous: Hash of the line before, `GENESIS` for the first.
        hash: SHA-256 over the canonical JSON of all the above.
    """

    index: int
    time: str
    event: Mapping[str, Any]
    previous: str
    hash: str

    @classmethod
    def after(cls, last: Entry | None, event: Mapping[str, Any], time: str) -> Entry:
        """Make the line that follows `last`.

        Raises:
            ValueError: the event is not made of JSON values, or holds NaN or an infinity.
        """
        index = 0 if last is None else last.index + 1
        previous = GENESIS if last is None else last.hash
        values = {"index": index, "time": time, "event": dict(event), "previous": previous}
        return cls(index, time, dict(event), previous, _digest(values))

    @property
    def expected_hash(self) -> str:
        """The hash that this line's contents have."""
        values = asdict(self)
        del values["hash"]
        return _digest(values)

    def to_line(self) -> bytes:
        """Write the line, with its newline."""
        return canonical(asdict(self)) + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Entry | None:
        """Read a line without its newline; None if it is none that `to_line` writes.

        Any other spelling of the same JSON (blanks, another order, a key twice) is none.
        """
        try:
            values = json.loads(line)
            entry = cls(**values)
            is_own = entry.to_line() == line + b"\n" and isinstance(entry.event, dict)
        except (ValueError, TypeError, RecursionError):
            return None
        typed = isinstance(entry.index, int) and isinstance(entry.hash, str)
        return entry if is_own and typed else None


def canonical(value: object) -> bytes:
    """Serialise JSON so that equal values have equal bytes.

    >>> canonical({"b": 1, "a": [True, None]})
    b'{"a":[true,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(values)).hexdigest()
