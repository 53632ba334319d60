"""Examine one CT: read it as `nognet prepare` does, and say all that was found instead of raising.

`inspect`, `check` and `prepare` come through here, so what one of them refuses the others do too.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nognet.config import PreparationConfig
from nognet.data.ct.image import CtReading, is_image_file, read_ct_with_findings, read_series
from nognet.data.ct.series import (
    FolderContents,
    SeriesReport,
    choose_series,
    examine_series,
    not_an_image_of_ct,
    read_folder,
)
from nognet.data.findings import Finding, refuse_if_any, without_repeats
from nognet.data.inspection import Inspected, nearest_plane
from nognet.errors import NognetError, SiteDataError
from nognet.types import Geometry

DAMAGE = (OSError, RuntimeError, ValueError, ArithmeticError, MemoryError, LookupError, TypeError,
          AttributeError, EOFError, struct.error, zlib.error)  # fmt: skip
"""What decoders of others raise on damaged files; each becomes a finding that names the class."""


@dataclass(frozen=True)
class ExaminedCt:
    """A CT as examined.

    Attributes:
        row: All that is known of it, refusals included.
        reading: The CT as read; None where something refuses it.
        geometry: Its grid, also of a CT refused for its values; None where there is no volume.
        frame_of_reference: FrameOfReferenceUID; empty where not known.
    """

    row: Inspected
    reading: CtReading | None
    geometry: Geometry | None = None
    frame_of_reference: str = ""

    def require(self) -> CtReading:
        """Give the CT as read.

        Raises:
            GeometryError: something refuses it; the message lists all refusals.
        """
        refuse_if_any(self.row.findings, self.row.path)
        if self.reading is None:
            raise SiteDataError(f"{self.row.path}: no CT could be read here", code="no-series")
        return self.reading


def examine_ct(
    path: Path,
    series_uid: str | None = None,
    *,
    prefer: Sequence[str] = (),
    limits: PreparationConfig | None = None,
) -> ExaminedCt:
    """Read the CT at or below a path and list what is wrong with it; never raises on content.

    Args:
        path: A folder of DICOM files, a DICOM file, or an image file.
        series_uid: The series wanted, where several lie there.
        prefer: Series to take where several lie there: those that the mask was drawn on.
        limits: The site's limits.
    """
    limits = limits or PreparationConfig()
    try:
        if path.is_file() and is_image_file(path):
            return examine_image_file(path, str(path), limits)
        return examine_report(choose_series(path, series_uid, prefer=prefer), str(path), limits)
    except SiteDataError as err:
        return _refused(path, series_uid, refusal(err, path))


def examine_report(report: SeriesReport, shown: str, limits: PreparationConfig) -> ExaminedCt:
    """Read a series that was found, unless its headers refuse it already.

    Args:
        report: The series, its headers examined.
        shown: How the row names its place.
        limits: The site's limits.
    """
    row = row_of(report, shown)
    frame = report.headers[0].frame_of_reference
    if not report.usable:
        return ExaminedCt(row, None, report.geometry, frame)
    try:
        reading = read_series(report, max_voxels=limits.max_volume_voxels)
    except (SiteDataError, *DAMAGE) as err:
        findings = (*row.findings, refusal(err, report.headers[0].path.parent))
        return ExaminedCt(replace(row, findings=findings), None, report.geometry, frame)
    return _judged(row, reading, limits)


def examine_image_file(path: Path, shown: str, limits: PreparationConfig) -> ExaminedCt:
    """Read a CT stored as NIfTI, NRRD or MHA.

    Args:
        path: The file.
        shown: How the row names its place.
        limits: The site's limits.
    """
    row = Inspected(shown, "ct", image_format(path))
    try:
        reading = read_ct_with_findings(path, max_voxels=limits.max_volume_voxels)
    except (SiteDataError, *DAMAGE) as err:
        return ExaminedCt(replace(row, findings=(refusal(err, path),)), None)
    return _judged(row, reading, limits)


def row_of(report: SeriesReport, shown: str) -> Inspected:
    """Write down what the headers of a series say."""
    first = report.headers[0]
    geometry = report.geometry
    return Inspected(
        path=shown,
        kind="ct",
        modality=first.modality or "CT",
        series_uid=report.series_uid,
        slices=len(report.headers),
        size=geometry.size if geometry else None,
        spacing_mm=geometry.spacing_mm if geometry else None,
        orientation=plane_of(first.orientation),
        kernel=", ".join(sorted({header.kernel for header in report.headers} - {""})),
        findings=report.findings,
    )


def plane_of(orientation: Sequence[float] | None) -> str:
    """Name the plane nearest to images of an ImageOrientationPatient; empty where it says none."""
    if orientation is None:
        return ""
    normal = np.cross(orientation[:3], orientation[3:])
    length = float(np.linalg.norm(normal))
    return nearest_plane(normal / length) if length > 0 else ""


def image_format(path: Path) -> str:
    """Name the format of an image file: ``NIFTI``, ``NRRD`` or ``MHA``."""
    name = path.name.lower()
    if name.endswith((".nrrd", ".nhdr")):
        return "NRRD"
    return "MHA" if name.endswith((".mha", ".mhd")) else "NIFTI"


def _judged(row: Inspected, reading: CtReading, limits: PreparationConfig) -> ExaminedCt:
    """Add what can be said once the values are read."""
    hu, geometry = reading.volume.array, reading.volume.geometry
    findings = without_repeats((*row.findings, *reading.findings, *_thickness(reading, limits)))
    filled = replace(
        row,
        slices=geometry.size[2],
        size=geometry.size,
        spacing_mm=geometry.spacing_mm,
        orientation=nearest_plane(np.asarray(geometry.direction)[:, 2]),
        hu_range=(float(hu.min()), float(hu.max())),
        findings=findings,
    )
    usable = filled.status != "refused"
    return ExaminedCt(filled, reading if usable else None, geometry, reading.frame_of_reference)


def _thickness(reading: CtReading, limits: PreparationConfig) -> Iterator[Finding]:
    """Warn of slices that are thick, or thin but far apart."""
    apart = reading.volume.geometry.spacing_mm[2]
    limit = limits.max_slice_thickness_mm
    if max(reading.thickness_mm, apart) > limit + 1e-3:
        found = f"slices are {reading.thickness_mm:.4g} mm thick and {apart:.4g} mm apart"
        yield Finding("thick-slices", "warning", f"{found}; the site's limit is {limit:g} mm")


def _refused(path: Path, series_uid: str | None, finding: Finding) -> ExaminedCt:
    """Say all that is known of what could not be chosen: a series' own row where there is one."""
    try:
        contents = read_folder(path)
    except SiteDataError:
        return ExaminedCt(Inspected(str(path), "file", "", findings=(finding,)), None)
    reports = _candidates(contents, series_uid)
    if len(reports) != 1:
        kind, modality = ("ct", "CT") if reports else ("file", "")
        row = Inspected(str(path), kind, modality, findings=(finding,))  # type: ignore[arg-type]
        return ExaminedCt(row, None)
    truncated = tuple(f for _, f in contents.left_aside if f.severity == "refused")
    row = row_of(reports[0], str(path))
    found = without_repeats((*truncated, *row.findings))
    if all(f.severity != "refused" for f in found):
        found = (*found, finding)
    first = reports[0].headers[0]
    examined = replace(row, findings=found)
    return ExaminedCt(examined, None, reports[0].geometry, first.frame_of_reference)


def _candidates(contents: FolderContents, series_uid: str | None) -> list[SeriesReport]:
    return [
        examine_series(headers)
        for uid, headers in contents.series.items()
        if series_uid in (None, uid) and any(not_an_image_of_ct(h) is None for h in headers)
    ]


def refusal(err: BaseException, place: Path) -> Finding:
    """Turn an error into a refusal; its message needn't name the place, for the row does."""
    if isinstance(err, NognetError):
        return Finding(err.code, "refused", str(err).removeprefix(f"{place}: "))
    if isinstance(err, MemoryError):
        return Finding("too-large", "refused", "the image doesn't fit into memory")
    code = "unreadable" if isinstance(err, OSError) else "unexpected"
    return Finding(code, "refused", f"can't be read ({type(err).__name__})")
