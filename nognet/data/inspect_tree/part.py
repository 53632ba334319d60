"""Inspect the files of one folder or one unpacked archive."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from nognet.config import PreparationConfig
from nognet.data.ct.series import (
    FolderContents,
    examine_series,
    group_headers,
    left_out_findings,
)
from nognet.data.findings import Finding, without_repeats
from nognet.data.inspect_tree.examine import (
    DAMAGE,
    ExaminedCt,
    examine_image_file,
    examine_report,
    image_format,
    refusal,
)
from nognet.data.inspect_tree.grouping import Group, Sorted, sort_files
from nognet.data.inspect_tree.image_kind import guess_kind
from nognet.data.inspect_tree.masks import KnownCt, MaskFile
from nognet.data.inspect_tree.walk import Found
from nognet.data.inspection import Inspected
from nognet.data.masks.reading import MaskSource
from nognet.errors import SiteDataError

Progress = Callable[[int, int, str], None]
"""Told how many files of how many were looked at, and what is being done."""


@dataclass(frozen=True)
class Part:
    """What one folder or archive holds.

    Attributes:
        rows: Rows of all but the masks.
        cts: Its CTs, for masks to be held against.
        masks: Its masks, still to be examined.
    """

    rows: tuple[Inspected, ...]
    cts: tuple[KnownCt, ...]
    masks: tuple[MaskFile, ...]


def look_into(files: Sequence[Found], limits: PreparationConfig, tell: Progress) -> Part:
    """Sort files and read the CTs among them, one at a time."""
    seen = 0

    def seen_one(_: Found) -> None:
        nonlocal seen
        tell(seen, len(files), "headers")
        seen += 1

    found = sort_files(files, seen_one)
    tell(len(files), len(files), "headers")
    cts, rows = [], list(found.rows)
    masks = [MaskFile(file, modality) for file, modality in found.masks]
    n_slices = [len(group.slices) for group in found.groups]
    for k, group in enumerate(found.groups):
        tell(sum(n_slices[:k]), sum(n_slices), "slices")
        cts.append(_examine_group(group, found, limits))
    tell(sum(n_slices), sum(n_slices), "slices")
    for file in found.images:
        looked_at = _look_at_image(file, limits)
        if isinstance(looked_at, MaskFile):
            masks.append(looked_at)
        elif isinstance(looked_at, KnownCt):
            cts.append(looked_at)
        else:
            rows.append(looked_at)
    return Part((*rows, *(ct.row for ct in cts)), tuple(cts), tuple(masks))


def _examine_group(group: Group, among: Sorted, limits: PreparationConfig) -> KnownCt:
    """Examine a series as `examine_ct` does at its path: what lies beside it may be a slice too."""
    report = examine_series(group.slices)
    unread = [(file, finding) for file, finding in among.unread if _is_below(file, group.inner)]
    aside = [header for file, header in among.aside if _is_below(file, group.inner)]
    damaged = (
        replace(finding, message=f"{file.inner[-1]}: {finding.message}")
        for file, finding in unread
        if finding.severity == "refused"
    )
    beside = FolderContents(
        group_headers(aside), tuple((file.real, finding) for file, finding in unread)
    )
    found = (*damaged, *report.findings, *left_out_findings(report, beside), *_twins(group, among))
    report = replace(report, findings=without_repeats(found))
    examined = examine_report(report, group.shown, limits)
    return _known(_named(examined, group.files), group.files[0], group.inner)


def _twins(group: Group, among: Sorted) -> Iterator[Finding]:
    """Warn where one SeriesInstanceUID holds several reconstructions in one place."""
    uid = group.slices[0].series_uid
    others = [
        other
        for other in among.groups
        if other is not group and other.slices[0].series_uid == uid and other.inner == group.inner
    ]
    if uid and others:
        listed = "; ".join(f"{_in_short(other)}" for other in others[:3])
        message = f"the same SeriesInstanceUID holds {len(others)} more: {listed}"
        yield Finding("several-series", "warning", f"{message}; this one: {_in_short(group)}")


def _in_short(group: Group) -> str:
    kernel = group.slices[0].kernel
    return f"{len(group.slices)} slices" + (f", kernel {kernel}" if kernel else "")


def _is_below(file: Found, inner: tuple[str, ...]) -> bool:
    return file.inner[: len(inner)] == inner


def _look_at_image(found: Found, limits: PreparationConfig) -> KnownCt | MaskFile | Inspected:
    """Take an image file for a CT, a mask, or neither."""
    modality = image_format(found.real)
    try:
        guess = guess_kind(found.real, max_voxels=limits.max_volume_voxels)
    except (SiteDataError, *DAMAGE) as err:
        finding = refusal(err, found.real)
        if finding.code == "not-ct":
            finding = replace(finding, severity="skipped")
        return Inspected(found.shown, "image", modality, findings=(finding,))
    if guess.kind == "mask":
        return MaskFile(found, modality, guess.reason)
    examined = examine_image_file(found.real, found.shown, limits)
    row = replace(examined.row, note=guess.reason)
    return _known(_named(replace(examined, row=row), [found]), found, found.folder)


def _known(examined: ExaminedCt, first: Found, inner: tuple[str, ...]) -> KnownCt:
    """Keep what masks are held against, and let go of the voxels."""
    grid = examined.geometry
    frame = examined.frame_of_reference
    source = None if grid is None else MaskSource(grid, examined.row.series_uid, frame)
    return KnownCt(source, (*first.container.base.parts, *inner), examined.row)


def _named(examined: ExaminedCt, files: Sequence[Found]) -> ExaminedCt:
    """Let messages on files of an archive name its entries, not the copies that were unpacked."""
    if not files[0].container.is_archive:
        return examined
    return replace(examined, row=entries_named(examined.row, files))


def entries_named(row: Inspected, files: Sequence[Found]) -> Inspected:
    """Put names of entries for those of their unpacked copies in all messages of a row."""
    names = {str(file.real): file.shown for file in files}
    names |= {file.real.name: file.inner[-1] for file in files}
    pattern = re.compile("|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)))
    renamed = (
        replace(f, message=pattern.sub(lambda match: names[match[0]], f.message))
        for f in row.findings
    )
    return replace(row, findings=tuple(renamed))
