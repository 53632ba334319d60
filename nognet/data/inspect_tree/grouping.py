"""Sort the files of a tree: slices into series, masks, image files, and what is none of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nognet.data.ct.folder import DAMAGED, group_headers
from nognet.data.ct.header import SliceHeader, read_headers
from nognet.data.ct.image import files_behind, is_image_file
from nognet.data.ct.slice_checks import not_an_image_of_ct, slice_findings
from nognet.data.findings import Finding, Severity, without_repeats
from nognet.data.inspect_tree.walk import Found
from nognet.data.inspection import Inspected
from nognet.errors import SiteDataError

MASK_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.66.4": "SEG",
    "1.2.840.10008.5.1.4.1.1.66.7": "SEG",
    "1.2.840.10008.5.1.4.1.1.481.3": "RTSTRUCT",
}
Tell = Callable[[Found], None]


@dataclass(frozen=True)
class Group:
    """The slices of one CT series, and the place that stands for them.

    Attributes:
        slices: Headers, in no order.
        files: Files they are in.
        inner: Parts of the path of their one file or of the folder that holds them all.
    """

    slices: tuple[SliceHeader, ...]
    files: tuple[Found, ...]
    inner: tuple[str, ...]

    @property
    def shown(self) -> str:
        """How the row names it."""
        return self.files[0].container.show(self.inner)


@dataclass(frozen=True)
class Sorted:
    """The files of one container, sorted.

    Attributes:
        groups: CT series.
        masks: DICOM SEG and RTSTRUCT, with their modality.
        images: NIfTI, NRRD and MHA: CT or mask.
        unread: Files that are no DICOM, with the reason; refused where one may have held a slice.
        aside: Headers of the images that are no slices.
        rows: Rows of all others.
    """

    groups: tuple[Group, ...]
    masks: tuple[tuple[Found, str], ...]
    images: tuple[Found, ...]
    unread: tuple[tuple[Found, Finding], ...]
    aside: tuple[tuple[Found, SliceHeader], ...]
    rows: tuple[Inspected, ...]


def sort_files(files: Sequence[Found], tell: Tell) -> Sorted:
    """Read the header of every file and sort them by what they hold; `tell` hears of each."""
    images = [found for found in files if is_image_file(found.real)]
    belonging = _parts_of_images(images)
    headers: list[tuple[Found, SliceHeader]] = []
    masks: list[tuple[Found, str]] = []
    unread: list[tuple[Found, Finding]] = []
    rows: list[Inspected] = []
    known = {found.real for found in images}
    for found in files:
        tell(found)
        if found.real in known:
            continue
        try:
            read = read_headers(found.real)
        except SiteDataError as err:
            row = _left_aside(found, err, belonging)
            rows.append(row)
            unread += [(found, finding) for finding in row.findings]
            continue
        mask = _mask_modality(read[0])
        if mask:
            masks.append((found, mask))
        else:
            headers += [(found, header) for header in read]
    slices = [(f, h) for f, h in headers if not_an_image_of_ct(h) is None]
    others = [(f, h) for f, h in headers if not_an_image_of_ct(h) is not None]
    return Sorted(
        groups=tuple(_groups(slices)),
        masks=tuple(masks),
        images=tuple(images),
        unread=tuple(unread),
        aside=tuple(others),
        rows=(*rows, *_other_rows(others)),
    )


def _mask_modality(header: SliceHeader) -> str:
    if header.modality in ("SEG", "RTSTRUCT"):
        return header.modality
    return MASK_CLASSES.get(header.sop_class, "")


def _parts_of_images(images: Iterable[Found]) -> dict[Path, Found]:
    """Find the files that hold the values of a .mhd or .nhdr beside them."""
    parts: dict[Path, Found] = {}
    for found in images:
        if found.real.suffix.lower() in (".mhd", ".nhdr"):
            behind = files_behind(found.real)
            # more than two: the header names no single file, so none can be told to be its own
            parts |= dict.fromkeys(behind[1:], found) if len(behind) == 2 else {}
    return parts


def _left_aside(found: Found, err: SiteDataError, belonging: dict[Path, Found]) -> Inspected:
    severity: Severity = "refused" if err.code in DAMAGED else "skipped"
    message = str(err).removeprefix(f"{found.real}: ")
    if found.real in belonging:
        message = f"holds the values of {belonging[found.real].inner[-1]}"
    return Inspected(found.shown, "file", "", findings=(Finding(err.code, severity, message),))


def _groups(slices: Sequence[tuple[Found, SliceHeader]]) -> list[Group]:
    """Group slices into series; copies of a series in folders of their own are told apart."""
    place = {found.real: found for found, _ in slices}
    grouped = [
        [(place[header.path], header) for header in headers]
        for headers in group_headers([header for _, header in slices]).values()
    ]
    return [_group(part) for members in grouped for part in _apart(members)]


def _group(members: Sequence[tuple[Found, SliceHeader]]) -> Group:
    files = tuple(dict.fromkeys(found for found, _ in members))
    inner = files[0].inner if len(files) == 1 else common(found.folder for found in files)
    return Group(tuple(header for _, header in members), files, inner)


def _apart(
    members: list[tuple[Found, SliceHeader]],
) -> list[list[tuple[Found, SliceHeader]]]:
    """Part a series that lies in several folders several times.

    Folders are parted where each shares an image with another: then they hold copies. Series
    spread over folders without repeats, and repeats within one folder, stay together.
    """
    depth = len(common(found.folder for found, _ in members))
    parts: dict[tuple[str, ...], list[tuple[Found, SliceHeader]]] = defaultdict(list)
    for found, header in members:
        parts[found.folder[depth : depth + 1]].append((found, header))
    images = [{(h.sop_uid, h.frame) for _, h in part if h.sop_uid} for part in parts.values()]
    copies = len(parts) > 1 and all(
        any(one & other for other in images if other is not one) for one in images
    )
    if not copies:
        return [members]
    return [smaller for part in parts.values() for smaller in _apart(part)]


def _other_rows(others: Sequence[tuple[Found, SliceHeader]]) -> list[Inspected]:
    """Make a row of the images of one series that are left aside for one reason."""
    by_reason: dict[tuple[object, ...], list[tuple[Found, SliceHeader]]] = defaultdict(list)
    for found, header in others:
        reason = not_an_image_of_ct(header)
        folder = () if header.series_uid else found.folder
        by_reason[header.series_uid, folder, header.modality, reason].append((found, header))
    return [_other_row(members) for members in by_reason.values()]


def _other_row(members: Sequence[tuple[Found, SliceHeader]]) -> Inspected:
    group = _group(members)
    first = group.slices[0]
    reasons = [not_an_image_of_ct(first), *map(_cut_short, group.slices)]
    has_image = first.matrix is not None
    return Inspected(
        path=group.shown,
        kind="image" if has_image else "file",
        modality=first.modality,
        series_uid=first.series_uid,
        slices=len(group.slices) if has_image else 0,
        kernel=first.kernel,
        findings=without_repeats(reason for reason in reasons if reason),
    )


def _cut_short(header: SliceHeader) -> Finding | None:
    found = (f for f in slice_findings(header) if f.code == "truncated")
    return next((Finding(f.code, "skipped", f.message) for f in found), None)


def common(folders: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Find the longest beginning that all paths share."""
    listed = list(folders)
    first, last = min(listed), max(listed)
    for depth, (a, b) in enumerate(zip(first, last, strict=False)):
        if a != b:
            return first[:depth]
    return min(first, last, key=len)
