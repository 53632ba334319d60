"""One row for every series, mask and other file below a path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

from nognet.config import PreparationConfig
from nognet.data.archive import OFFICE_SUFFIXES, is_archive, unpacked
from nognet.data.findings import Finding
from nognet.data.inspect_tree.examine import refusal
from nognet.data.inspect_tree.masks import KnownCt, MaskFile, is_at_home, mask_row
from nognet.data.inspect_tree.part import Part, Progress, look_into
from nognet.data.inspect_tree.walk import Container, Found, never_read, walk
from nognet.data.inspection import Inspected
from nognet.errors import SiteDataError


def inspect(
    path: Path,
    *,
    limits: PreparationConfig | None = None,
    progress: Progress | None = None,
) -> list[Inspected]:
    """Inspect all that lies at or below a path: a folder, a file or a ZIP archive.

    CTs are read as a whole, one at a time; of each mask its fit to a CT below the path is checked.
    Whatever the files hold is a row, never an error.

    Args:
        path: Where to look.
        limits: The site's limits.
        progress: Told now and then how far it is.

    Returns:
        The rows in the order of their paths.

    Raises:
        SiteDataError: there is nothing at that path, or it can't be listed.
    """
    limits, tell = limits or PreparationConfig(), progress or (lambda *_: None)
    walked = walk(path)
    archives = [found for found in walked.files if _is_archive(found)]
    plain = look_into(_without(walked.files, archives), limits, tell)
    packed = [(found, _look_into_archive(found, limits, tell)) for found in archives]
    cts = [*plain.cts, *(ct for _, part in packed for ct in part.cts)]
    rows = [*walked.rows, *plain.rows, *(row for _, part in packed for row in part.rows)]
    rows += _mask_rows(plain.masks, cts, limits, tell)
    for found, part in packed:
        rows += _mask_rows_again(found, part.masks, cts, limits)
    return sorted(rows, key=lambda row: (Path(row.path).parts, row.kind, row.series_uid))


def _is_archive(found: Found) -> bool:
    return is_archive(found.real) and not found.real.name.lower().endswith(OFFICE_SUFFIXES)


def _without(files: Sequence[Found], others: Sequence[Found]) -> list[Found]:
    left_out = {found.real for found in others}
    return [found for found in files if found.real not in left_out]


def _look_into_archive(found: Found, limits: PreparationConfig, tell: Progress) -> Part:
    """Inspect an archive while it is unpacked; masks whose CT lies elsewhere are left for later."""
    try:
        with _opened(found, limits) as files:
            if not files:
                nothing = Finding("no-series", "skipped", "an empty archive")
                return Part(
                    (Inspected(found.shown, "archive", "ZIP", findings=(nothing,)),), (), ()
                )
            left_aside = {file: never_read(file.inner[-1], file.shown) for file in files}
            part = look_into([file for file in files if not left_aside[file]], limits, tell)
            settled = [mask for mask in part.masks if is_at_home(mask, part.cts)]
            rows = _mask_rows(settled, part.cts, limits, tell)
            later = tuple(mask for mask in part.masks if mask not in settled)
            never = (row for row in left_aside.values() if row)
            return Part((*part.rows, *rows, *never), part.cts, later)
    except (SiteDataError, OSError) as err:
        finding = refusal(err, found.real)
        return Part((Inspected(found.shown, "archive", "ZIP", findings=(finding,)),), (), ())


@contextmanager
def _opened(found: Found, limits: PreparationConfig) -> Iterator[list[Found]]:
    container = Container(Path(found.shown), is_archive=True)
    with unpacked(found.real, max_bytes=limits.max_unpacked_bytes) as archive:
        yield [
            Found(real, container, PurePosixPath(name).parts)
            for real, name in archive.names.items()
        ]


def _mask_rows(
    masks: Sequence[MaskFile], cts: Sequence[KnownCt], limits: PreparationConfig, tell: Progress
) -> list[Inspected]:
    rows = []
    for done, mask in enumerate(masks):
        tell(done, len(masks), "masks")
        rows.append(mask_row(mask, cts, limits))
    return rows


def _mask_rows_again(
    found: Found, masks: Sequence[MaskFile], cts: Sequence[KnownCt], limits: PreparationConfig
) -> list[Inspected]:
    """Unpack an archive once more for the masks whose CT was found elsewhere."""
    if not masks:
        return []
    try:
        with _opened(found, limits) as files:
            by_name = {file.inner: file for file in files}
            now = [replace(mask, found=by_name[mask.found.inner]) for mask in masks]
            return [mask_row(mask, cts, limits) for mask in now]
    except (SiteDataError, OSError) as err:
        finding = refusal(err, found.real)
        return [
            Inspected(mask.found.shown, "mask", mask.modality, findings=(finding,))
            for mask in masks
        ]
