"""Export a folder of studies de-identified into a new folder; the source is only read."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import AllTransferSyntaxes

from nognet.data.ct.dicom_file import PYDICOM_ERRORS
from nognet.data.ct.header import headers_of
from nognet.data.ct.series import list_files, not_an_image_of_ct
from nognet.data.deid.dataset import Identities, deidentified
from nognet.data.deid.rules import EXPORTED_CLASSES
from nognet.data.site.pseudonym import Pseudonyms
from nognet.data.site.scan_read import patient_of
from nognet.errors import SiteDataError

OVERLAY_BIT_POSITION = 0x0102
Progress = Callable[[int, int, str], None]
"""Called with files done, files in all, and what happened; names nobody."""


@dataclass(frozen=True)
class LeftOut:
    """A file that was not exported; stays at the site, for its path may name a patient."""

    path: Path
    code: str
    reason: str


@dataclass(frozen=True)
class Export:
    """What was exported.

    Attributes:
        written: Files written.
        patients: Patients they are of.
        left_out: Files that were not exported, with the reason.
    """

    written: int
    patients: int
    left_out: tuple[LeftOut, ...]


def export_deidentified(
    source: Path,
    destination: Path,
    pseudonyms: Pseudonyms,
    *,
    progress: Progress | None = None,
) -> Export:
    """Write de-identified copies of all CT images, SEG and RTSTRUCT below a folder.

    Args:
        source: Folder of studies; never written to.
        destination: New or empty folder, neither within the source nor around it.
        pseudonyms: The site's; equal keys give equal identities and dates.
        progress: Told after each file.

    Raises:
        SiteDataError: dicognito is missing, the folders don't fit, or writing fails.
    """
    identities = Identities.of(pseudonyms)
    anonymizer = identities.anonymizer()
    files = list_files(source)
    _check_folders(source, destination)
    tell = progress or (lambda *_: None)
    left_out: list[LeftOut] = []
    counts: Counter[Path] = Counter()
    patients: set[str] = set()
    for done, file in enumerate(files):
        tell(done, len(files), f"{counts.total()} written, {len(left_out)} left out")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they would print values of tags
                data = _read(file)
                copy = deidentified(data, patient_of(data, file, source), identities, anonymizer)
                content = _encoded(copy)
        except SiteDataError as err:
            left_out.append(LeftOut(file, err.code, str(err)))
            continue
        folder = _folder_of(copy, destination)
        counts[folder] += 1
        patients.add(copy.PatientID)
        _write(content, folder / f"{counts[folder]:06d}.dcm")
    tell(len(files), len(files), f"{counts.total()} written, {len(left_out)} left out")
    return Export(counts.total(), len(patients), tuple(left_out))


def _check_folders(source: Path, destination: Path) -> None:
    from_, to = source.resolve(), destination.resolve()
    if from_.is_relative_to(to) or to.is_relative_to(from_):
        raise SiteDataError(
            f"{destination}: lies within {source} or around it; give a folder apart from it",
            code="destination",
        )
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise SiteDataError(
            f"{destination}: is not an empty folder; give a new one", code="destination"
        )


def _read(file: Path) -> FileDataset:
    """Read a file that may be exported.

    Raises:
        SiteDataError: it may not, or can't be read.
    """
    try:
        data = pydicom.dcmread(file)
        reason = _why_not(data, file)
    except InvalidDicomError as err:
        raise SiteDataError("not a DICOM file", code="not-dicom") from err
    except OSError as err:
        raise SiteDataError(f"can't be read ({err.strerror})", code="unreadable") from err
    except PYDICOM_ERRORS as err:
        raise _damaged(err) from err
    if reason is not None:
        raise SiteDataError(reason[1], code=reason[0])
    return data


def _why_not(data: FileDataset, file: Path) -> tuple[str, str] | None:
    """Say with a code why a file is not exported; None where it is."""
    kind = str(data.get("SOPClassUID") or data.file_meta.get("MediaStorageSOPClassUID", ""))
    if str(data.file_meta.get("TransferSyntaxUID", "")) not in AllTransferSyntaxes:
        return "missing-tags", "the file's meta header names no known transfer syntax"
    if kind not in EXPORTED_CLASSES:
        shown = str(data.get("Modality", "")) or "no modality"
        return "not-ct", f"not a CT image, SEG or RTSTRUCT ({shown})"
    if "PixelData" not in data and "ROIContourSequence" not in data:
        return "no-pixels", "neither pixels nor contours"
    if str(data.get("Modality", "")).upper() == "CT":
        finding = not_an_image_of_ct(headers_of(data, None, file)[0])
        if finding is not None:
            return finding.code, finding.message
    return _text_in_pixels(data)


def _text_in_pixels(data: FileDataset) -> tuple[str, str] | None:
    if str(data.get("BurnedInAnnotation", "NO")).strip().upper() not in ("NO", ""):
        return "burned-in", "BurnedInAnnotation says that text is burned into the image"
    overlays = [tag for tag in list(data.keys()) if 0x6000 <= tag.group <= 0x60FF]
    if any(tag.element == OVERLAY_BIT_POSITION and data[tag].value for tag in overlays):
        return "burned-in", "an overlay is stored in the bits of the pixels"
    return None


def _folder_of(copy: FileDataset, destination: Path) -> Path:
    """Name a folder by fake values alone: patient, shifted date, kind and series."""
    dates = (copy.get(name) for name in ("AcquisitionDate", "SeriesDate", "StudyDate"))
    day = next((str(date) for date in dates if date), "undated")
    series = (
        f"{str(copy.get('Modality', 'file')).lower()}-{str(copy.get('SeriesInstanceUID', ''))[-8:]}"
    )
    return destination / str(copy.PatientID) / day / series


def _encoded(copy: FileDataset) -> bytes:
    """Encode a copy as a DICOM file.

    Raises:
        SiteDataError: a value that was kept can't be written.
    """
    stream = io.BytesIO()
    try:
        copy.save_as(stream, enforce_file_format=True)
    except PYDICOM_ERRORS as err:
        raise _damaged(err) from err
    return stream.getvalue()


def _damaged(err: Exception) -> SiteDataError:
    return SiteDataError(f"damaged ({type(err).__name__})", code="truncated")


def _write(content: bytes, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as err:
        raise SiteDataError(
            f"{path}: can't be written ({err.strerror}); the export is not complete: make room, "
            "delete the folder and start again",
            code="unwritable",
        ) from err
