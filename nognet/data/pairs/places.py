"""Where the files of a time point lie while it is read: archives are unpacked once each."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

from nognet.data.archive import UnpackedArchive, is_archive, unpacked
from nognet.data.findings import Finding
from nognet.data.inspection import Inspected
from nognet.errors import NognetError

UNFORESEEN = (
    OSError, RuntimeError, ValueError, ArithmeticError, MemoryError, LookupError, TypeError,
)  # fmt: skip
"""What readers of others raise on damaged files where we did not think of it."""


class Places:
    """Where things lie while a time point is read: archives are unpacked once each."""

    def __init__(self, stack: contextlib.ExitStack, max_bytes: int) -> None:
        self._stack = stack
        self._max_bytes = max_bytes
        self._open: dict[Path, UnpackedArchive] = {}

    def of(self, path: Path) -> Path:
        """Give the folder that a path stands for if it is an archive, else the path."""
        if path not in self._open:
            if not is_archive(path):
                return path
            archive = self._stack.enter_context(unpacked(path, max_bytes=self._max_bytes))
            self._open[path] = archive
        return self._open[path].folder

    def words(self, text: str) -> str:
        """Name archives and their entries where a message names the unpacked files."""
        for path, archive in self._open.items():
            if str(archive.folder) not in text:
                continue
            for file, name in archive.names.items():
                if str(file) in text:
                    text = text.replace(str(file), f"{path}!{name}")
            text = text.replace(str(archive.folder), str(path))
        return text

    def finding(self, err: BaseException) -> Finding:
        """Turn an error into a refusal."""
        if isinstance(err, NognetError):
            return Finding(err.code, "refused", self.words(str(err)))
        if isinstance(err, MemoryError):
            return Finding("too-large", "refused", "it doesn't fit into memory")
        return Finding("unexpected", "refused", self.words(f"{type(err).__name__}: {err}"))

    def shown(self, row: Inspected, path: Path) -> Inspected:
        """Name a row's place as the table does."""
        findings = tuple(replace(f, message=self.words(f.message)) for f in row.findings)
        return replace(row, path=str(path), findings=findings)
