"""Read a CT as a `Volume` in Hounsfield units: DICOM, NIfTI, NRRD or MHA.

DICOM slices are taken in the order of our own header pass. Uncompressed ones are read straight
from the file (the values are the stored integers, so there is nothing to decode); compressed ones
are decoded by SimpleITK slice by slice, and each slice's origin is held against its
ImagePositionPatient.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nognet.data.ct.geometry_checks import POSITION_TOLERANCE_MM
from nognet.data.ct.header import NATIVE_SYNTAXES, SliceHeader, has_dicom_mark
from nognet.data.ct.nifti import NIFTI_SUFFIXES, count_not_finite
from nognet.data.ct.series import SeriesReport, choose_series, list_files
from nognet.data.findings import Finding
from nognet.data.sitk_bridge import from_sitk
from nognet.errors import GeometryError, SiteDataError
from nognet.types import Geometry, Volume

LOWEST_HU = -1024
PLAUSIBLE_PADDING_HU = -900.0
"""A declared padding value above this could be tissue and is left alone."""
IMAGE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
DETACHED = re.compile(rb"^(?:ElementDataFile|data ?file)\s*[=:]\s*(.+?)\s*$", re.MULTILINE)
"""Where the header of a .mhd or .nhdr names the file of its values."""
HIGHEST_PLAUSIBLE_HU = 40_000.0
AIR_BELOW_HU = -300.0
"""Every CT of a chest has voxels below this: lung, airways, the room around the patient."""


@dataclass(frozen=True)
class CtReading:
    """A CT with what was found while reading it.

    Attributes:
        volume: In HU, int16 where all values are whole and fit, else float32.
        findings: Warnings only; refusals are raised.
        series_uid: SeriesInstanceUID; empty where the file has none.
        frame_of_reference: FrameOfReferenceUID; empty likewise.
        thickness_mm: SliceThickness as declared, or the measured gap where that isn't known.
        kernel: ConvolutionKernel; empty where not known.
        files: The files it was read from, in the order of slices.
        date: Day of the CT by its header; None where not known.
    """

    volume: Volume
    findings: tuple[Finding, ...]
    series_uid: str
    frame_of_reference: str
    thickness_mm: float
    kernel: str
    files: tuple[Path, ...]
    date: dt.date | None = None


def read_ct(path: Path) -> Volume:
    """Read a CT in HU; below -1024 HU nothing is kept.

    Args:
        path: A folder of DICOM files (nested, mixed, any name), a DICOM file, or an image file.

    Raises:
        GeometryError: the geometry may not be trusted.
        SiteDataError: there is no CT, or it can't be read.
    """
    return read_ct_with_findings(path).volume


def read_ct_with_findings(path: Path, series_uid: str | None = None) -> CtReading:
    """Read a CT in HU together with all that was found on it.

    Raises:
        GeometryError: the geometry may not be trusted.
        SiteDataError: there is no CT, or it can't be read.
    """
    if path.is_file() and is_image_file(path):
        return _read_image_file(path)
    return read_series(choose_series(path, series_uid))


def check_hounsfield(reading: CtReading) -> None:
    """Refuse values that can't be HU of a chest: slope and intercept were never applied to them.

    Raises:
        SiteDataError: nothing is as thin as air or lung; padding doesn't count.
    """
    hu = reading.volume.array
    known = hu[hu > LOWEST_HU]
    if known.size and known.min() >= AIR_BELOW_HU:
        first = reading.files[0]
        where = first.parent if reading.series_uid else first
        raise SiteDataError(
            f"{where}: no voxel lies below {AIR_BELOW_HU:g} HU (the least is {known.min():g}), but "
            "a chest CT holds lung and air: these are stored values, not HU",
            code="not-hounsfield",
        )


def is_image_file(path: Path) -> bool:
    """Tell by name and content whether a file is NIfTI, NRRD or MHA."""
    return path.name.lower().endswith(IMAGE_SUFFIXES) and not has_dicom_mark(path)


def files_behind(path: Path) -> list[Path]:
    """List all files that a CT or a mask is read from: a .mhd or .nhdr has its values elsewhere.

    Raises:
        SiteDataError: there is nothing at that path.
    """
    files = list_files(path)
    if path.suffix.lower() not in (".mhd", ".nhdr") or not path.is_file():
        return files
    with path.open("rb") as file:
        found = DETACHED.search(file.read(65_536))
    named = path.parent / found[1].decode("utf-8", "replace") if found else path
    if named.is_file():
        return [path, *([named] if named != path else [])]
    return list_files(path.parent)  # a list or a pattern of files: any of them may hold values


def read_series(report: SeriesReport) -> CtReading:
    """Read the slices of a series that was examined and found usable.

    Raises:
        GeometryError: a decoded slice doesn't lie where its header says.
        SiteDataError: a slice can't be decoded.
    """
    if report.geometry is None:
        raise GeometryError("the series makes no volume", code="no-position")
    decoder = _Decoder()
    slices = [decoder.hounsfield(header) for header in report.headers]
    array = np.stack([values for values, _ in slices])
    findings = [*report.findings, *_padding_findings([padded for _, padded in slices])]
    _verify_positions(report.headers, report.geometry)
    first = report.headers[0]
    return CtReading(
        volume=Volume(_compact(array), report.geometry),
        findings=tuple(dict.fromkeys(findings)),
        series_uid=report.series_uid,
        frame_of_reference=first.frame_of_reference,
        thickness_mm=first.thickness_mm or report.geometry.spacing_mm[2],
        kernel=first.kernel,
        files=tuple(header.path for header in report.headers),
        date=_day(first.date_text),
    )


@dataclass(frozen=True)
class _Padded:
    """How many voxels were set to -1024, by the reason."""

    below: int
    wrong_sign: int


class _Decoder:
    """Decodes slices; keeps the last compressed file, for multi-frame files are decoded whole."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._frames: NDArray[np.generic] = np.empty(0)

    def hounsfield(self, header: SliceHeader) -> tuple[NDArray[np.float32], _Padded]:
        """Read one slice ``(H, W)`` in HU, padding set to -1024."""
        if _is_plain(header):
            return _to_hounsfield(_stored_values(header), header)
        if header.path != self._path:
            self._frames = _decode(header)
            self._path = header.path
        return _clip(self._frames[header.frame].astype(np.float32), 0)


def _is_plain(header: SliceHeader) -> bool:
    pixels = header.pixels
    allocated, stored, high = pixels.bits
    return (
        pixels.syntax in NATIVE_SYNTAXES
        and allocated == 16
        and stored == high + 1
        and stored <= 16
        and pixels.data_offset is not None
    )


def _stored_values(header: SliceHeader) -> NDArray[np.int32]:
    """Read the stored integers of one frame; bits above HighBit are no part of the value."""
    rows, columns = header.matrix or (0, 0)
    offset = header.pixels.data_offset or 0
    prefix = 8 if header.pixels.syntax == NATIVE_SYNTAXES[0] else 12
    count = rows * columns
    with header.path.open("rb") as file:
        file.seek(offset)
        tag = file.read(prefix)[:4]
        file.seek(header.frame * count * 2, 1)
        raw = file.read(count * 2)
    if tag != b"\xe0\x7f\x10\x00" or len(raw) != count * 2:
        raise SiteDataError(f"{header.path}: the image is cut short", code="truncated")
    values = np.frombuffer(raw, dtype="<u2").reshape(rows, columns).astype(np.int32)
    stored = header.pixels.bits[1]
    values &= (1 << stored) - 1
    if header.pixels.signed:
        values -= (values >> (stored - 1)) << stored
    return values


def _to_hounsfield(
    stored: NDArray[np.int32], header: SliceHeader
) -> tuple[NDArray[np.float32], _Padded]:
    slope, intercept = header.rescale or (1.0, 0.0)
    values = (stored * np.float64(slope) + intercept).astype(np.float32)
    wrong_sign = 0
    if not header.pixels.signed and header.pixels.bits[1] == 16:
        turned = (stored >= 0x8000) & ((stored - 0x10000) * slope + intercept < LOWEST_HU)
        wrong_sign = int(turned.sum())
        values[turned] = LOWEST_HU
    if header.pixels.padding is not None:
        low, high = sorted(header.pixels.padding)
        if high * slope + intercept <= PLAUSIBLE_PADDING_HU:
            values[(stored >= low) & (stored <= high)] = LOWEST_HU
    return _clip(values, wrong_sign)


def _clip(values: NDArray[np.float32], wrong_sign: int) -> tuple[NDArray[np.float32], _Padded]:
    below = int((values < LOWEST_HU).sum())
    implausible = values > HIGHEST_PLAUSIBLE_HU
    if implausible.any():
        wrong_sign += int(implausible.sum())
        values = np.where(implausible, np.float32(LOWEST_HU), values)
    return np.maximum(values, np.float32(LOWEST_HU)), _Padded(below, wrong_sign)


def _padding_findings(padded: list[_Padded]) -> list[Finding]:
    below, wrong_sign = (sum(getattr(p, name) for p in padded) for name in ("below", "wrong_sign"))
    findings = []
    if below:
        message = f"{below} voxels below -1024 HU (padding) were set to -1024"
        findings.append(Finding("padding", "warning", message))
    if wrong_sign:
        message = f"{wrong_sign} voxels of padding stored with the wrong sign were set to -1024"
        findings.append(Finding("unsigned-padding", "warning", message))
    return findings


def _decode(header: SliceHeader) -> NDArray[np.generic]:
    """Decode a file with SimpleITK: frames ``(N, H, W)`` in HU, and check where it puts them."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(header.path))
    reader.SetImageIO("GDCMImageIO")
    try:
        image = reader.Execute()
    except RuntimeError as err:
        raise SiteDataError(
            f"{header.path}: the image can't be decoded (transfer syntax {header.pixels.syntax})",
            code="truncated",
        ) from err
    frames: NDArray[np.generic] = sitk.GetArrayFromImage(image)
    if frames.ndim == 2:
        frames = frames[None]
    if header.matrix is None or frames.shape != (header.n_frames, *header.matrix):
        raise SiteDataError(
            f"{header.path}: the decoded image is {frames.shape}, the header says "
            f"{(header.n_frames, *(header.matrix or ()))}",
            code="truncated",
        )
    if header.n_frames == 1 and header.position_mm is not None:
        off_mm = float(np.linalg.norm(np.subtract(image.GetOrigin(), header.position_mm)))
        if off_mm > POSITION_TOLERANCE_MM:
            raise GeometryError(
                f"{header.path}: decoded {off_mm:.2f} mm away from its ImagePositionPatient",
                code="irregular-spacing",
            )
    return frames


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


def _compact(array: NDArray[np.float32]) -> NDArray[np.int16] | NDArray[np.float32]:
    if array.max() <= np.iinfo(np.int16).max:
        whole = array.astype(np.int16)
        if (whole == array).all():
            return whole
    return array


def _read_image_file(path: Path) -> CtReading:
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as err:
        raise SiteDataError(f"{path}: can't be read as an image", code="truncated") from err
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise GeometryError(
            f"{path}: {image.GetDimension()} dimensions with "
            f"{image.GetNumberOfComponentsPerPixel()} values a voxel; expected 3 with 1",
            code="not-ct",
        )
    volume = from_sitk(image)
    values = volume.array.astype(np.float32)
    unknown = int(values.size - np.count_nonzero(np.isfinite(values)))
    if path.name.lower().endswith(NIFTI_SUFFIXES):
        unknown += count_not_finite(path)
    if unknown:
        raise SiteDataError(
            f"{path}: {unknown} of {values.size} values are not finite; write -1024 HU where "
            "nothing was measured",
            code="not-finite",
        )
    if values.min() >= 0 and values.max() <= 255:
        raise SiteDataError(
            f"{path}: values from {values.min():g} to {values.max():g} are no Hounsfield units",
            code="eight-bit",
        )
    clipped, padded = _clip(values, 0)
    return CtReading(
        volume=Volume(_compact(clipped), volume.geometry),
        findings=tuple(_padding_findings([padded])),
        series_uid="",
        frame_of_reference="",
        thickness_mm=volume.geometry.spacing_mm[2],
        kernel="",
        files=(path,),
    )
