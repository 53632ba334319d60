"""Find the CT series below a folder and say of each whether it can be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nognet.data.ct.geometry_checks import stack_slices
from nognet.data.ct.header import (
    CT_CLASSES,
    SliceHeader,
    is_compressed,
    read_headers,
)
from nognet.data.findings import Finding, Severity, refuse_if_any, without_repeats
from nognet.errors import GeometryError, SiteDataError
from nognet.types import Geometry, Matrix3, Vector3


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
        return self.geometry is not None and all(f.severity == "warning" for f in self.findings)


@dataclass(frozen=True)
class FolderContents:
    """What lies below a folder: series by their UID, and files left aside with the reason."""

    series: Mapping[str, tuple[SliceHeader, ...]]
    left_aside: tuple[tuple[Path, Finding], ...]


def list_files(path: Path) -> list[Path]:
    """List the file itself, or all files below a folder, sorted; hidden ones are left out.

    Raises:
        SiteDataError: there is nothing at that path.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise SiteDataError(f"{path}: no such file or folder", code="missing-file")
    below = (p for p in path.rglob("*") if p.is_file())
    return sorted(p for p in below if not p.name.startswith(".") and p.name != "DICOMDIR")


def read_folder(path: Path) -> FolderContents:
    """Read the headers of all files at or below a path and group them by series.

    Raises:
        SiteDataError: there is nothing at that path.
    """
    series: dict[str, list[SliceHeader]] = {}
    left_aside: list[tuple[Path, Finding]] = []
    for file in list_files(path):
        try:
            headers = read_headers(file)
        except SiteDataError as err:
            severity: Severity = "refused" if err.code == "truncated" else "skipped"
            left_aside.append((file, Finding(err.code, severity, str(err))))
            continue
        for header in headers:
            series.setdefault(header.series_uid, []).append(header)
    grouped = {uid: tuple(headers) for uid, headers in series.items()}
    return FolderContents(grouped, tuple(left_aside))


def examine_series(headers: Sequence[SliceHeader]) -> SeriesReport:
    """Check the slices of one series and work out its grid; never raises on what they hold."""
    uid = headers[0].series_uid
    aside = [h for h in headers if not_an_image_of_ct(h) is not None]
    slices = [h for h in headers if not_an_image_of_ct(h) is None]
    findings = [f for f in map(not_an_image_of_ct, aside) if f is not None]
    if not slices:
        return SeriesReport(uid, tuple(headers), None, without_repeats(findings))
    findings += [finding for header in slices for finding in _slice_findings(header)]
    findings += _identity_findings(slices)
    placed = [h for h in slices if h.position_mm and h.orientation and h.pixel_spacing_mm]
    if len(placed) < len(slices):
        n_absent = len(slices) - len(placed)
        message = f"{n_absent} of {len(slices)} images have no position, orientation or spacing"
        findings.append(Finding("no-position", "refused", message))
        return SeriesReport(uid, tuple(slices), None, without_repeats(findings))
    stack, faults = stack_slices(
        np.array([h.position_mm for h in placed]), np.array([h.orientation for h in placed])
    )
    found = without_repeats([*findings, *_matrix_findings(placed), *faults])
    if stack is None:
        return SeriesReport(uid, tuple(placed), None, found)
    ordered = tuple(placed[i] for i in stack.order)
    return SeriesReport(uid, ordered, _geometry(ordered, stack.gap_mm), found)


def choose_series(path: Path, series_uid: str | None = None) -> SeriesReport:
    """Find the one CT series at or below a path that can be read.

    Args:
        path: A DICOM file, or a folder of them.
        series_uid: The series wanted, where several lie there.

    Raises:
        GeometryError: the series found is refused (the code says why).
        SiteDataError: there is no CT series, or several and no word which.
    """
    contents = read_folder(path)
    truncated = [f for _, f in contents.left_aside if f.severity == "refused"]
    wanted = {
        uid: headers
        for uid, headers in contents.series.items()
        if series_uid in (None, uid) and any(not_an_image_of_ct(h) is None for h in headers)
    }
    if not wanted:
        raise _no_series(path, contents, series_uid)
    reports = [examine_series(headers) for headers in wanted.values()]
    usable = [report for report in reports if report.usable]
    if len(reports) > 1 and len(usable) != 1:
        listed = ", ".join(f"{r.series_uid or '(empty UID)'} ({len(r.headers)})" for r in reports)
        raise GeometryError(
            f"{path}: {len(reports)} CT series lie here: {listed}; give the folder of one, or its "
            "UID in the column 'series'",
            code="several-series",
        )
    report = usable[0] if usable else reports[0]
    refuse_if_any([*truncated, *report.findings], str(path))
    return report


def not_an_image_of_ct(header: SliceHeader) -> Finding | None:
    """Say why a file is no slice of a CT volume, if so."""
    if header.modality not in ("CT", "") or (
        header.modality == "" and header.sop_class not in CT_CLASSES
    ):
        shown = header.modality or "no modality"
        return Finding("not-ct", "skipped", f"not CT: {shown}")
    if "LOCALIZER" in header.image_type:
        return Finding("localizer", "skipped", "localizer (scout) images")
    if header.pixels.samples != 1 or header.pixels.photometric in ("RGB", "PALETTE COLOR"):
        return Finding("not-ct", "skipped", "colour images (dose page or screen capture)")
    if header.sop_class.startswith("1.2.840.10008.5.1.4.1.1.7") and header.position_mm is None:
        return Finding("not-ct", "skipped", "secondary captures without a position")
    return None


def _slice_findings(header: SliceHeader) -> Iterator[Finding]:
    pixels = header.pixels
    if header.matrix is None or pixels.data_offset is None:
        yield Finding("no-pixels", "refused", "images without pixels")
        return
    yield from _value_findings(header)
    if _ends_early(header):
        message = f"{header.path.name}: the file ends before its image does"
        yield Finding("truncated", "refused", message)
    if header.rescale is None:
        yield Finding(
            "no-rescale", "warning", "slope or intercept is absent: values are taken for HU"
        )
    if pixels.photometric == "MONOCHROME1":
        yield Finding(
            "missing-tags", "warning", "MONOCHROME1: HU are taken by rescale all the same"
        )
    if header.absent:
        yield Finding("missing-tags", "warning", f"missing tags: {', '.join(header.absent)}")
    if header.uids_from_meta:
        yield Finding("empty-uids", "warning", "SOP UIDs are empty; the file-meta ones are used")


def _value_findings(header: SliceHeader) -> Iterator[Finding]:
    """Find values that are no Hounsfield units any more."""
    bits = header.pixels.bits[1]
    if bits <= 8:
        yield Finding("eight-bit", "refused", f"not usable for HU: {bits} bits a pixel")
    if header.pixels.lossy:
        yield Finding("lossy", "refused", "not usable for HU: lossy compression")
    elif header.pixels.lossy is None:
        yield Finding("lossy", "warning", "the compression may be lossy; the header doesn't say")


def _ends_early(header: SliceHeader) -> bool:
    pixels = header.pixels
    if header.matrix is None or is_compressed(pixels.syntax) or (pixels.data_offset or 0) < 0:
        return False
    needed = header.matrix[0] * header.matrix[1] * header.n_frames * pixels.bits[0] // 8
    return pixels.file_bytes - (pixels.data_offset or 0) - 8 < needed


def _identity_findings(slices: Sequence[SliceHeader]) -> Iterator[Finding]:
    """Find one image given several times, and slices of several frames of reference."""
    ids = [(h.sop_uid, h.frame) for h in slices if h.sop_uid]
    repeated = len(ids) - len(set(ids))
    if repeated:
        yield Finding(
            "duplicate-position",
            "refused",
            f"duplicate position: {repeated} of {len(slices)} files repeat the image of another "
            "(same SOP instance)",
        )
    frames = {h.frame_of_reference for h in slices}
    if len(frames) > 1:
        yield Finding(
            "mixed-orientation", "refused", f"slices of {len(frames)} frames of reference"
        )
    kernels = sorted({h.kernel for h in slices})
    if len(kernels) > 1:
        yield Finding("mixed-matrix", "warning", f"kernels are mixed: {', '.join(kernels)}")


def _matrix_findings(slices: Sequence[SliceHeader]) -> Iterator[Finding]:
    sizes = sorted({h.matrix for h in slices if h.matrix})
    if len(sizes) > 1:
        yield Finding("mixed-matrix", "refused", f"images of {len(sizes)} sizes: {sizes[:4]}")
    spacings = np.array([h.pixel_spacing_mm for h in slices])
    if np.ptp(spacings, axis=0).max() > 1e-4 * spacings.max():
        found = sorted({tuple(float(v) for v in row) for row in spacings})[:4]
        yield Finding("mixed-matrix", "refused", f"pixel spacings differ: {found} mm")


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
