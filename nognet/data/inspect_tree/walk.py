"""Walk a tree and leave nothing out: what can't be looked into is a row that says why."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nognet.data.findings import Finding, Severity
from nognet.data.inspection import Inspected
from nognet.errors import SiteDataError

INDEX_NAMES = ("DICOMDIR",)


@dataclass(frozen=True)
class Container:
    """A folder that is walked, or an archive that was unpacked.

    Attributes:
        base: The folder, or the archive's file.
        is_archive: Whether paths inside it are shown as ``archive.zip!entry``.
    """

    base: Path
    is_archive: bool = False

    def show(self, inner: Sequence[str]) -> str:
        """Write a path inside it as a row names it."""
        if self.is_archive and inner:
            return f"{self.base}!{'/'.join(inner)}"
        return str(self.base.joinpath(*inner))


@dataclass(frozen=True)
class Found:
    """A file.

    Attributes:
        real: Where its bytes lie.
        container: What it was found in.
        inner: Parts of its path in there.
    """

    real: Path
    container: Container
    inner: tuple[str, ...]

    @property
    def shown(self) -> str:
        """Its path as a row names it."""
        return self.container.show(self.inner)

    @property
    def folder(self) -> tuple[str, ...]:
        """Parts of its folder inside the container."""
        return self.inner[:-1]

    @property
    def place(self) -> tuple[str, ...]:
        """Parts of its folder, those of the container first."""
        return (*self.container.base.parts, *self.folder)


@dataclass(frozen=True)
class Walked:
    """Regular files in order of their paths, and rows of what is none or can't be opened."""

    files: tuple[Found, ...]
    rows: tuple[Inspected, ...]


def walk(path: Path) -> Walked:
    """List every file at or below a path; links to folders are told of, not followed.

    Raises:
        SiteDataError: there is nothing at that path, or it can't be listed.
    """
    if not path.is_dir():
        if not os.path.lexists(path):
            raise SiteDataError(f"{path}: no such file or folder", code="missing-file")
        return _sorted([path], Container(path.parent), [])
    rows: list[Inspected] = []

    def unlisted(err: OSError) -> None:
        if Path(err.filename) == path:
            raise SiteDataError(
                f"{path}: the folder can't be listed ({err.strerror})", code="unreadable"
            ) from err
        finding = Finding("unreadable", "refused", f"can't be listed ({err.strerror})")
        rows.append(Inspected(str(err.filename), "file", "", findings=(finding,)))

    files: list[Path] = []
    for folder, folders, names in os.walk(path, onerror=unlisted):
        here = Path(folder)
        links = (here / name for name in folders if (here / name).is_symlink())
        rows += [_file_row(link, "unreadable", "skipped", "a link to a folder") for link in links]
        files += [here / name for name in names]
    return _sorted(files, Container(path), rows)


def _sorted(files: Iterable[Path], container: Container, rows: list[Inspected]) -> Walked:
    found = []
    for file in sorted(files):
        row = _not_a_file(file)
        if row is not None:
            rows.append(row)
        else:
            found.append(Found(file, container, file.relative_to(container.base).parts))
    return Walked(tuple(found), tuple(rows))


def _not_a_file(path: Path) -> Inspected | None:
    """Make the row of what readers leave aside unread: hidden files, indices, pipes, dead links."""
    if path.is_symlink() and not path.exists():
        return _file_row(path, "unreadable", "refused", "a link to nothing")
    if not path.is_file():
        return _file_row(path, "not-dicom", "skipped", "no regular file")
    return never_read(path.name, str(path))


def never_read(name: str, shown: str) -> Inspected | None:
    """Make the row of a file that is left aside for its name: hidden, or an index; else None."""
    if name in INDEX_NAMES:
        return _file_row(shown, "not-ct", "skipped", "an index of files, without an image")
    if name.startswith("."):
        return _file_row(shown, "not-dicom", "skipped", "a hidden file, never read")
    return None


def _file_row(path: Path | str, code: str, severity: Severity, message: str) -> Inspected:
    return Inspected(str(path), "file", "", findings=(Finding(code, severity, message),))
