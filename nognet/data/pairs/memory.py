"""What a site remembers of a patient between runs: digests of files, facts, what became of pairs.

One file a patient in the state folder, readable by the site alone, for messages hold paths. A file
is not read again while its size, times and inode stay as they were; whoever sets a file's mtime
back can't set its ctime back.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nognet.data.ct.image import files_behind
from nognet.data.pairs.outcome import TRANSIENT, NoduleOutcome, TimeFacts
from nognet.errors import SiteDataError
from nognet.files import write_text_atomic

MEMORY_VERSION = 1
MEMORY_FOLDER = "memory"
SETTLED_NS = 2_000_000_000
"""A file changed so shortly before it was read may change again within the clock's tick."""
MOST_KEPT = 4
"""Facts and pairs that a run did not ask for are kept up to so many times those it did."""
LEAST_KEPT = 64

Stamp = tuple[int, int, int, int]
"""Size in bytes, mtime and ctime in nanoseconds, inode."""


class Memory:
    """What is known of one patient; read at the start, saved after each step."""

    def __init__(self, path: Path) -> None:
        """Read what there is; a damaged or missing file is an empty memory."""
        self._path = path
        content = _read(path)
        self._files: dict[str, dict[str, Any]] = content.get("files", {})
        self._entries: dict[str, dict[str, Any]] = content.get("entries", {})
        self._digests: dict[Path, str] = {}
        self._asked: set[str] = set()
        self._changed = False

    def digest(self, path: Path) -> str:
        """Digest all files that something is read from; their names have no say.

        Raises:
            SiteDataError: there is nothing at that path, or it can't be read.
        """
        if path not in self._digests:
            each = sorted(self._file_digest(file) for file in files_behind(path))
            self._digests[path] = hashlib.sha256("".join(each).encode()).hexdigest()
        return self._digests[path]

    def facts(self, key: str, paths: Sequence[Path]) -> TimeFacts | None:
        """Recall the facts of a time point."""
        values = self._recall(f"time {key}", paths)
        with contextlib.suppress(KeyError, TypeError, ValueError):
            return TimeFacts.from_json(values) if values is not None else None
        return None

    def keep_facts(self, key: str, paths: Sequence[Path], facts: TimeFacts) -> None:
        """Remember the facts of a time point, unless they may be otherwise next time."""
        rows = (facts.ct, *facts.masks)
        codes = {finding.code for row in rows for finding in row.findings}
        if not codes & TRANSIENT:
            self._keep(f"time {key}", paths, facts.as_json())

    def pairs(self, key: str, paths: Sequence[Path]) -> tuple[NoduleOutcome, ...] | None:
        """Recall what became of the nodules between two times."""
        values = self._recall(f"pair {key}", paths)
        with contextlib.suppress(KeyError, TypeError, ValueError):
            if values is not None:
                return tuple(NoduleOutcome.from_json(value) for value in values)
        return None

    def keep_pairs(self, key: str, paths: Sequence[Path], made: Iterable[NoduleOutcome]) -> None:
        """Remember what became of the nodules, unless it may be otherwise next time."""
        kept = list(made)
        codes = {finding.code for outcome in kept for finding in outcome.findings}
        if not codes & TRANSIENT:
            self._keep(f"pair {key}", paths, [outcome.as_json() for outcome in kept])

    def save(self) -> None:
        """Write the memory to disk in one step, if anything was learnt.

        Raises:
            SiteDataError: the state folder can't be written.
        """
        if not self._changed:
            return
        content = {
            "version": MEMORY_VERSION,
            "files": self._files,
            "entries": dict(self._entries_worth_keeping()),
        }
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_text_atomic(self._path, json.dumps(content, allow_nan=False), mode=0o600)
        except OSError as err:
            raise SiteDataError(
                f"{self._path}: can't be written ({err.strerror}); 'state' in site.yaml has to "
                "name a folder that may be written, with room on its disk",
                code="state-write",
            ) from err
        self._changed = False

    def forget_other_files(self, paths: Iterable[Path]) -> None:
        """Drop the digests of folders that the table doesn't lead to any more."""
        roots = tuple(str(path) for path in paths)
        gone = [f for f in self._files if not any(_below(f, root) for root in roots)]
        for folder in gone:
            del self._files[folder]
        self._changed |= bool(gone)

    def _file_digest(self, path: Path) -> str:
        try:
            before = _stamp(path)
            folder = self._files.setdefault(str(path.parent), {})
            known = folder.get(path.name)
            if isinstance(known, list) and len(known) == 5 and tuple(known[:4]) == before:
                return str(known[4])
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            after = _stamp(path)
        except OSError as err:
            raise SiteDataError(
                f"{path}: the file can't be read ({err.strerror})", code="unreadable"
            ) from err
        self._changed |= folder.pop(path.name, None) is not None
        if before == after and time.time_ns() - max(after[1:3]) > SETTLED_NS:
            folder[path.name] = [*after, digest]
            self._changed = True
        return digest

    def _recall(self, key: str, paths: Sequence[Path]) -> Any:  # noqa: ANN401  any JSON value
        entry = self._entries.get(key)
        self._asked.add(key)
        if not isinstance(entry, dict):
            return None
        values, old = entry.get("values"), entry.get("paths")
        if old != [str(path) for path in paths] and _names_any(values, old):
            return None  # the files moved, and messages would name where they were
        return values

    def _keep(self, key: str, paths: Sequence[Path], values: Any) -> None:  # noqa: ANN401
        entry = {"paths": [str(path) for path in paths], "values": values}
        self._asked.add(key)
        if self._entries.get(key) != entry:
            self._entries.pop(key, None)  # the newest come last
            self._entries[key] = entry
            self._changed = True

    def _entries_worth_keeping(self) -> Iterator[tuple[str, Any]]:
        """Keep what this run asked for, and the newest of the rest."""
        rest = [key for key in self._entries if key not in self._asked]
        room = max(MOST_KEPT * len(self._asked), LEAST_KEPT)
        dropped = set(rest[: max(len(rest) - room, 0)])
        for key, entry in self._entries.items():
            if key not in dropped:
                yield key, entry


def memory_of(state: Path, patient_id: str) -> Memory:
    """Open the memory of a patient in a site's state folder."""
    return Memory(state / MEMORY_FOLDER / f"{patient_id}.json")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict) or content.get("version") != MEMORY_VERSION:
        return {}
    parts = (content.get("files"), content.get("entries"))
    if not all(isinstance(part, dict) for part in parts):
        return {}
    content["files"] = {k: v for k, v in content["files"].items() if isinstance(v, dict)}
    return content


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _names_any(values: Any, paths: Any) -> bool:  # noqa: ANN401  any JSON values
    text = json.dumps(values, ensure_ascii=False)
    return not isinstance(paths, list) or any(str(path) in text for path in paths)


def _below(folder: str, root: str) -> bool:
    return folder == root or folder.startswith(root + os.sep) or folder == str(Path(root).parent)
