"""Read a CT as a `Volume` in Hounsfield units: DICOM, NIfTI, NRRD or MHA.

DICOM slices are taken in the order of our own header pass, one at a time into the one array that
is kept: uncompressed ones straight from the file, compressed ones decoded by SimpleITK. The place
of every slice in the finished volume is held against its ImagePositionPatient.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nognet.data.ct.frames import FrameReader
from nognet.data.ct.geometry_checks import POSITION_TOLERANCE_MM
from nognet.data.ct.header import SliceHeader
from nognet.data.ct.hounsfield import judge_values, whole_numbers
from nognet.data.ct.image_file import files_behind, is_image_file, read_image_file
from nognet.data.ct.limits import DEFAULT_MAX_VOXELS, check_voxels
from nognet.data.ct.pixels import LOWEST_HU, padding_findings, to_hounsfield, whole_rescale
from nognet.data.ct.series import SeriesReport, choose_series
from nognet.data.findings import Finding, without_repeats
from nognet.errors import GeometryError, SiteDataError
from nognet.types import Geometry, Volume

__all__ = [
    "DEFAULT_MAX_VOXELS",
    "LOWEST_HU",
    "CtReading",
    "check_hounsfield",
    "files_behind",
    "is_image_file",
    "read_ct",
    "read_ct_with_findings",
    "read_series",
]


@dataclass(frozen=True)
class CtReading:
    """A CT with what was found while reading it.

    Attributes:
        volume: In HU, int16 where all values are whole, else float32.
        findings: Warnings only; refusals are raised.
        series_uid: SeriesInstanceUID; empty where the file has none.
        frame_of_reference: FrameOfReferenceUID; empty likewise.
        thickness_mm: SliceThickness as declared, or the measured gap where that isn't known.
        kernel: ConvolutionKernel; empty where not known.
        files: The files it was read from, in the order of slices.
        date: Day of the CT by its header; None where not known.
        contrast: Whether a contrast agent was given; None where the header can't tell.
        patient_digest: SHA-256 of PatientID, hexadecimal; empty where not known.
    """

    volume: Volume
    findings: tuple[Finding, ...]
    series_uid: str
    frame_of_reference: str
    thickness_mm: float
    kernel: str
    files: tuple[Path, ...]
    date: dt.date | None = None
    contrast: bool | None = None
    patient_digest: str = ""


def read_ct(path: Path, *, max_voxels: int = DEFAULT_MAX_VOXELS) -> Volume:
    """Read a CT in HU; below -1024 HU nothing is kept.

    Args:
        path: A folder of DICOM files (nested, mixed, any name), a DICOM file, or an image file.
        max_voxels: Most voxels that it may claim.

    Raises:
        GeometryError: the geometry may not be trusted.
        SiteDataError: there is no CT, it can't be read, or holds no HU.
    """
    return read_ct_with_findings(path, max_voxels=max_voxels).volume


def read_ct_with_findings(
    path: Path,
    series_uid: str | None = None,
    *,
    prefer: Sequence[str] = (),
    max_voxels: int = DEFAULT_MAX_VOXELS,
) -> CtReading:
    """Read a CT in HU together with all that was found on it.

    Args:
        path: As for `read_ct`.
        series_uid: The series wanted, where several lie there.
        prefer: As for `choose_series`.
        max_voxels: Most voxels that it may claim.

    Raises:
        GeometryError: the geometry may not be trusted.
        SiteDataError: there is no CT, it can't be read, or holds no HU.
    """
    if not (path.is_file() and is_image_file(path)):
        return read_series(choose_series(path, series_uid, prefer=prefer), max_voxels=max_voxels)
    volume, findings = read_image_file(path, max_voxels)
    return CtReading(
        volume=volume,
        findings=findings,
        series_uid="",
        frame_of_reference="",
        thickness_mm=volume.geometry.spacing_mm[2],
        kernel="",
        files=(path,),
    )


def check_hounsfield(reading: CtReading) -> None:
    """Refuse values that can't be HU; all readers here have done so already.

    Raises:
        SiteDataError: the values are no HU.
    """
    odd = judge_values(reading.volume.array, declared=True)
    if odd is not None and odd.severity == "refused":
        raise SiteDataError(f"{reading.files[0]}: {odd.message}", code=odd.code)


def read_series(report: SeriesReport, *, max_voxels: int = DEFAULT_MAX_VOXELS) -> CtReading:
    """Read the slices of a series that was examined and found usable.

    Raises:
        GeometryError: a slice doesn't lie where its header says.
        SiteDataError: a slice can't be decoded, the series is too large, or holds no HU.
    """
    first, geometry = report.headers[0], report.geometry
    if geometry is None:
        raise GeometryError("the series makes no volume", code="no-position")
    where = str(first.path.parent if len(report.headers) > first.n_frames else first.path)
    check_voxels(where, geometry.size, max_voxels)
    _verify_positions(report.headers, geometry)
    whole = all(whole_rescale(header) for header in report.headers)
    hu = np.empty(geometry.size[::-1], dtype=np.int16 if whole else np.float32)
    with FrameReader() as reader:
        altered = [
            to_hounsfield(reader.words(header), header, out)
            for header, out in zip(report.headers, hu, strict=True)
        ]
    odd = judge_values(hu, declared=all(header.rescale for header in report.headers))
    if odd is not None and odd.severity == "refused":
        raise SiteDataError(f"{where}: {odd.message}", code=odd.code)
    findings = [*report.findings, *padding_findings(altered), *([odd] if odd else [])]
    return CtReading(
        volume=Volume(hu if whole else whole_numbers(hu), geometry),
        findings=without_repeats(findings),
        series_uid=report.series_uid,
        frame_of_reference=first.frame_of_reference,
        thickness_mm=first.thickness_mm or geometry.spacing_mm[2],
        kernel=first.kernel,
        files=tuple(header.path for header in report.headers),
        date=_day(first.date_text),
        contrast=first.contrast,
        patient_digest=first.patient_digest,
    )


def _verify_positions(headers: tuple[SliceHeader, ...], geometry: Geometry) -> None:
    """Hold the place of every slice in the finished volume against ImagePositionPatient."""
    corners = np.zeros((len(headers), 3))
    corners[:, 2] = np.arange(len(headers))
    positions = np.array([header.position_mm for header in headers])
    off_mm = np.linalg.norm(geometry.index_to_world(corners) - positions, axis=1)
    if off_mm.max() > POSITION_TOLERANCE_MM:
        raise GeometryError(
            f"slice {int(off_mm.argmax())} would lie {off_mm.max():.2f} mm away from its "
            f"ImagePositionPatient (at most {POSITION_TOLERANCE_MM} mm are allowed)",
            code="irregular-spacing",
        )


def _day(text: str) -> dt.date | None:
    try:
        return dt.datetime.strptime(text, "%Y%m%d").date()  # noqa: DTZ007  a day
    except ValueError:
        return None
