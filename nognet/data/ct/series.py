"""Say of a CT series whether it can be trusted, and choose the one to read where several lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nognet.data.ct.folder import FolderContents, group_headers, list_files, read_folder
from nognet.data.ct.geometry_checks import stack_slices
from nognet.data.ct.header import SliceHeader
from nognet.data.ct.slice_checks import (
    declared_gap_findings,
    declared_tilt_findings,
    identity_findings,
    matrix_findings,
    not_an_image_of_ct,
    slice_findings,
)
from nognet.data.findings import Finding, refuse_if_any, without_repeats
from nognet.errors import GeometryError, SiteDataError
from nognet.types import Geometry, Matrix3, Vector3

__all__ = [
    "FolderContents",
    "SeriesReport",
    "choose_series",
    "examine_series",
    "group_headers",
    "left_out_findings",
    "list_files",
    "not_an_image_of_ct",
    "read_folder",
]


FILES_NAMED = 3
"""So many files with one and the same fault are named, the others counted."""


@dataclass(frozen=True)
class SeriesReport:
    """A series with everything found on it.

    Attributes:
        series_uid: SeriesInstanceUID, possibly empty.
        headers: Its slices, sorted along the normal where they make a volume.
        geometry: The grid; None where the slices make no volume.
        findings: Refusals and warnings.
    """

    series_uid: str
    headers: tuple[SliceHeader, ...]
    geometry: Geometry | None
    findings: tuple[Finding, ...]

    @property
    def usable(self) -> bool:
        """Whether the series can be read."""
        return self.geometry is not None and all(f.severity != "refused" for f in self.findings)

    @property
    def slice_mm(self) -> float:
        """Thickness of its slices, or their gap where that is larger or alone known."""
        gap_mm = self.geometry.spacing_mm[2] if self.geometry else 0.0
        return max(gap_mm, self.headers[0].thickness_mm or 0.0)

    @property
    def axial(self) -> bool:
        """Whether its slices are nearer to the axial plane than to another one."""
        return all(finding.code != "not-axial" for finding in self.findings)


def examine_series(headers: Sequence[SliceHeader]) -> SeriesReport:
    """Check the slices of one series and work out its grid; never raises on what they hold."""
    uid = headers[0].series_uid
    aside = [h for h in headers if not_an_image_of_ct(h) is not None]
    slices = [h for h in headers if not_an_image_of_ct(h) is None]
    findings = [f for f in map(not_an_image_of_ct, aside) if f is not None]
    if not slices:
        return SeriesReport(uid, tuple(headers), None, without_repeats(findings))
    findings += _few_of_each(
        [finding for header in slices for finding in slice_findings(header)],
        {header.path.name for header in slices},
    )
    findings += identity_findings(slices)
    placed = [h for h in slices if h.position_mm and h.orientation and h.pixel_spacing_mm]
    if len(placed) < len(slices):
        n_absent = len(slices) - len(placed)
        message = f"{n_absent} of {len(slices)} images have no position, orientation or spacing"
        findings.append(Finding("no-position", "refused", message))
        return SeriesReport(uid, tuple(slices), None, without_repeats(findings))
    stack, faults = stack_slices(
        np.array([h.position_mm for h in placed]), np.array([h.orientation for h in placed])
    )
    found = without_repeats([*matrix_findings(placed), *findings, *faults])
    if stack is None:
        return SeriesReport(uid, tuple(placed), None, found)
    ordered = tuple(placed[i] for i in stack.order)
    found = without_repeats(
        [
            *found,
            *declared_gap_findings(ordered, stack.gap_mm),
            *declared_tilt_findings(ordered, stack.normal),
        ]
    )
    return SeriesReport(uid, ordered, _geometry(ordered, stack.gap_mm), found)


def _few_of_each(findings: Sequence[Finding], names: set[str]) -> Iterator[Finding]:
    """Tell of the first files with a fault by name, and count the others."""
    seen: Counter[tuple[str, str]] = Counter()
    for finding in dict.fromkeys(findings):
        name, _, words = finding.message.partition(": ")
        if name not in names:
            yield finding
            continue
        seen[finding.code, words] += 1
        if seen[finding.code, words] <= FILES_NAMED:
            yield finding
    for (code, words), count in seen.items():
        if count > FILES_NAMED:
            message = f"{count - FILES_NAMED} more files likewise: {words}"
            yield next(replace(f, message=message) for f in findings if f.code == code)


def choose_series(
    path: Path, series_uid: str | None = None, *, prefer: Sequence[str] = ()
) -> SeriesReport:
    """Find the CT series at or below a path that is to be read.

    Where several are usable and none was named, the one in `prefer` is taken, else an axial one,
    of these the thinnest, of these the one with most slices; a warning says so.

    Args:
        path: A DICOM file, or a folder of them.
        series_uid: The series wanted, where several lie there: its UID, or a key of `read_folder`.
        prefer: UIDs of series to take before others: those that a mask was drawn on.

    Raises:
        GeometryError: no series found is usable (the code says why).
        SiteDataError: there is no CT series.
    """
    contents = read_folder(path)
    damaged = [f for _, f in contents.left_aside if f.severity == "refused"]
    wanted = [
        headers
        for key, headers in contents.series.items()
        if series_uid in (None, key, headers[0].series_uid)
        and any(not_an_image_of_ct(h) is None for h in headers)
    ]
    if not wanted:
        raise _no_series(path, contents, series_uid)
    reports = sorted(map(examine_series, wanted), key=lambda report: _rank(report, prefer))
    best = reports[0]
    refuse_if_any([*damaged, *best.findings], _shown(path, reports))
    findings = [*best.findings, *left_out_findings(best, contents)]
    if len(reports) > 1:
        findings.append(_choice(reports, prefer))
    return replace(best, findings=without_repeats(findings))


def left_out_findings(best: SeriesReport, contents: FolderContents) -> Iterator[Finding]:
    """Warn of what may have been a slice: empty files, and other images under the same UID."""
    empty = sum(path.stat().st_size == 0 for path, _ in contents.left_aside if path.is_file())
    if empty:
        message = f"{empty} files here are empty: a copy that broke off?"
        yield Finding("truncated", "warning", message)
    for headers in contents.series.values():
        reason = not_an_image_of_ct(headers[0])
        if reason is not None and best.series_uid in {headers[0].series_uid} - {""}:
            message = f"{len(headers)} images of this series were left aside: {reason.message}"
            yield Finding(reason.code, "warning", message)


def _rank(report: SeriesReport, prefer: Sequence[str]) -> tuple[object, ...]:
    """Key by which the best series sorts first; the last parts make the order a total one."""
    uid, first = report.series_uid, report.headers[0]
    wish = prefer.index(uid) if uid in prefer else len(prefer)
    by_form = (not report.axial, round(report.slice_mm, 3), -len(report.headers))
    return (not report.usable, wish, *by_form, first.kernel, uid, str(first.path))


def _shown(path: Path, reports: Sequence[SeriesReport]) -> str:
    if len(reports) == 1:
        return str(path)
    return f"{path}: none of {len(reports)} CT series is usable; the best, {_describe(reports[0])}"


def _choice(reports: Sequence[SeriesReport], prefer: Sequence[str]) -> Finding:
    """Say which of several series was taken, and why."""
    best, others = reports[0], [report for report in reports[1:] if report.usable]
    if not others:
        reason = "the only usable one"
    elif best.series_uid in prefer:
        reason = "the mask was drawn on it"
    elif best.axial and not all(report.axial for report in others):
        reason = "axial"
    elif round(best.slice_mm, 3) < min(round(report.slice_mm, 3) for report in others):
        reason = "the thinnest"
    elif len(best.headers) > max(len(report.headers) for report in others):
        reason = "the one with most slices"
    else:
        reason = "alike to others, so by kernel and UID"
    left = "; ".join(_describe(report) for report in reports[1:4])
    more = f" and {len(reports) - 4} more" if len(reports) > 4 else ""
    return Finding(
        "several-series",
        "warning",
        f"{len(reports)} CT series lie here; taken: {_describe(best)} ({reason}); left: {left}"
        f"{more}; name one in the column 'series' to be sure",
    )


def _describe(report: SeriesReport) -> str:
    words = [f"{len(report.headers)} slices"]
    if report.slice_mm:
        words.append(f"{report.slice_mm:.4g} mm")
    if report.headers[0].kernel:
        words.append(f"kernel {report.headers[0].kernel}")
    refused = next((f.code for f in report.findings if f.severity == "refused"), "")
    if refused:
        words.append(f"refused: {refused}")
    return f"{report.series_uid or '(empty UID)'} [{', '.join(words)}]"


def _geometry(ordered: Sequence[SliceHeader], gap_mm: float) -> Geometry | None:
    first = ordered[0]
    if not (first.matrix and first.pixel_spacing_mm and first.orientation and first.position_mm):
        return None
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    axes = np.stack([row, column, np.cross(row, column)], axis=1)
    axes /= np.linalg.norm(axes, axis=0)
    rows, columns = first.matrix
    between_rows, between_columns = first.pixel_spacing_mm
    return Geometry(
        size=(columns, rows, len(ordered)),
        spacing_mm=(between_columns, between_rows, gap_mm),
        origin_mm=_vector(first.position_mm),
        direction=_matrix(axes),
    )


def _vector(values: Sequence[float]) -> Vector3:
    x, y, z = (float(v) for v in values)
    return x, y, z


def _matrix(axes: np.ndarray) -> Matrix3:
    return _vector(axes[0]), _vector(axes[1]), _vector(axes[2])


def _no_series(path: Path, contents: FolderContents, series_uid: str | None) -> SiteDataError:
    if series_uid is not None:
        return SiteDataError(
            f"{path}: no CT series {series_uid} here; {len(contents.series)} other series",
            code="no-series",
        )
    reports = [examine_series(headers) for headers in contents.series.values()]
    reasons = [f for report in reports for f in report.findings]
    reasons += [finding for _, finding in contents.left_aside]
    words = "; ".join(dict.fromkeys(f.message for f in reasons[:20])) or "the folder is empty"
    code = reasons[0].code if reasons else "no-series"
    return GeometryError(f"{path}: no CT series here: {words}", code=code)
