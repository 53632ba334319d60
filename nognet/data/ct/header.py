"""One pass over the headers of DICOM files, with nothing trusted: `SliceHeader` for each slice.

An enhanced multi-frame file gives one `SliceHeader` a frame. Pixels are not decoded here, only
looked for, so that a file without an image or one cut short is known before anything is read.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from nognet.errors import SiteDataError

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
CT_CLASSES = (CT_IMAGE_STORAGE, "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
NATIVE_SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
DATE_TAGS = ("AcquisitionDate", "SeriesDate", "StudyDate")
LOSSY_SYNTAXES = (
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.203",
)
POSSIBLY_LOSSY_SYNTAXES = ("1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91")


@dataclass(frozen=True)
class PixelFormat:
    """How pixel values are stored.

    Attributes:
        bits: (BitsAllocated, BitsStored, HighBit).
        signed: PixelRepresentation is 1.
        samples: SamplesPerPixel.
        photometric: PhotometricInterpretation.
        syntax: Transfer syntax UID.
        lossy: Lossy by flag or by transfer syntax; None where the header leaves it open.
        padding: (PixelPaddingValue, PixelPaddingRangeLimit), where declared.
        data_offset: Byte at which the PixelData element starts; None where there is none.
        file_bytes: Size of the file.
    """

    bits: tuple[int, int, int]
    signed: bool
    samples: int
    photometric: str
    syntax: str
    lossy: bool | None
    padding: tuple[int, int] | None
    data_offset: int | None
    file_bytes: int


@dataclass(frozen=True)
class SliceHeader:
    """What the header says of one slice; None where it says nothing that can be used.

    Attributes:
        path: The file.
        frame: Frame in the file, from 0.
        n_frames: Frames in the file.
        modality: Modality, upper case, or empty.
        sop_class: SOP class UID.
        sop_uid: SOP instance UID, of the file-meta header where the data set's is empty.
        series_uid: SeriesInstanceUID.
        study_uid: StudyInstanceUID.
        date_text: AcquisitionDate, else SeriesDate, else StudyDate; empty where there is none.
        frame_of_reference: FrameOfReferenceUID.
        matrix: (rows, columns).
        pixel_spacing_mm: (between rows, between columns).
        position_mm: ImagePositionPatient.
        orientation: ImageOrientationPatient.
        rescale: (slope, intercept).
        thickness_mm: SliceThickness.
        kernel: ConvolutionKernel.
        image_type: Values of ImageType.
        pixels: How pixel values are stored.
        absent: Names of missing or empty tags worth a warning.
        uids_from_meta: The data set's SOP UIDs are empty.
    """

    path: Path
    frame: int
    n_frames: int
    modality: str
    sop_class: str
    sop_uid: str
    series_uid: str
    study_uid: str
    date_text: str
    frame_of_reference: str
    matrix: tuple[int, int] | None
    pixel_spacing_mm: tuple[float, float] | None
    position_mm: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    rescale: tuple[float, float] | None
    thickness_mm: float | None
    kernel: str
    image_type: tuple[str, ...]
    pixels: PixelFormat
    absent: tuple[str, ...]
    uids_from_meta: bool


def read_headers(path: Path) -> list[SliceHeader]:
    """Read the header of a DICOM file: one `SliceHeader` a frame.

    Raises:
        SiteDataError: the file is not DICOM, is cut short, or can't be read.
    """
    data, offset = read_dataset(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd values are judged by us, tag by tag
        return headers_of(data, offset, path)


def headers_of(data: Dataset, offset: int | None, path: Path) -> list[SliceHeader]:
    """Take the headers of a data set as `read_dataset` gives it: one `SliceHeader` a frame."""
    pixels = _pixel_format(data, offset, path.stat().st_size)
    frames = _sequence(data, "PerFrameFunctionalGroupsSequence")
    if not frames:
        n_frames = _integer(data, "NumberOfFrames") or 1
        return [_header(data, path, 0, n_frames, [data], pixels)]
    shared = _sequence(data, "SharedFunctionalGroupsSequence")
    return [
        _header(data, path, i, len(frames), [*_macros(frame), *_macros(*shared), data], pixels)
        for i, frame in enumerate(frames)
    ]


def read_dataset(path: Path) -> tuple[Dataset, int | None]:
    """Read all of a DICOM file but its pixels, and where its PixelData starts (None if nowhere).

    Raises:
        SiteDataError: the file is not DICOM, is cut short, or can't be read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with path.open("rb") as file:
                data = pydicom.dcmread(file, stop_before_pixels=True)
                offset = file.tell()
        except InvalidDicomError as err:
            raise SiteDataError(f"{path}: not a DICOM file", code="not-dicom") from err
        except (OSError, EOFError) as err:
            raise SiteDataError(
                f"{path}: the header is cut short or can't be read ({type(err).__name__})",
                code="truncated",
            ) from err
        except Exception as err:
            raise SiteDataError(
                f"{path}: the header is damaged ({type(err).__name__})", code="not-dicom"
            ) from err
    if path.stat().st_size - offset < 8:
        return data, None
    return data, offset


def has_dicom_mark(path: Path) -> bool:
    """Tell by the mark after the preamble whether a file claims to be DICOM."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _header(
    data: Dataset,
    path: Path,
    frame: int,
    n_frames: int,
    sources: Sequence[Dataset],
    pixels: PixelFormat,
) -> SliceHeader:
    meta = getattr(data, "file_meta", None) or Dataset()
    sop_uid, sop_class = _text(data, "SOPInstanceUID"), _text(data, "SOPClassUID")
    slope, intercept = (_number(sources, name) for name in ("RescaleSlope", "RescaleIntercept"))
    watched = ("Modality", "InstanceNumber", "FrameOfReferenceUID")
    rows, columns = _integer(data, "Rows"), _integer(data, "Columns")
    return SliceHeader(
        path=path,
        frame=frame,
        n_frames=n_frames,
        modality=_text(data, "Modality").upper(),
        sop_class=sop_class or _text(meta, "MediaStorageSOPClassUID"),
        sop_uid=sop_uid or _text(meta, "MediaStorageSOPInstanceUID"),
        series_uid=_text(data, "SeriesInstanceUID"),
        study_uid=_text(data, "StudyInstanceUID"),
        date_text=next(filter(None, (_text(data, name) for name in DATE_TAGS)), ""),
        frame_of_reference=_text(data, "FrameOfReferenceUID"),
        matrix=(rows, columns) if rows and columns else None,
        pixel_spacing_mm=cast(
            "tuple[float, float] | None", _numbers(sources, "PixelSpacing", 2, above=0.0)
        ),
        position_mm=_numbers(sources, "ImagePositionPatient", 3),
        orientation=_numbers(sources, "ImageOrientationPatient", 6),
        rescale=(slope, intercept) if slope is not None and intercept is not None else None,
        thickness_mm=_number(sources, "SliceThickness"),
        kernel=_text(data, "ConvolutionKernel"),
        image_type=tuple(value.upper() for value in _texts(data, "ImageType")),
        pixels=pixels,
        absent=tuple(name for name in watched if not _text(data, name)),
        uids_from_meta=not (sop_uid and sop_class),
    )


def _pixel_format(data: Dataset, offset: int | None, file_bytes: int) -> PixelFormat:
    meta = getattr(data, "file_meta", None) or Dataset()
    syntax = _text(meta, "TransferSyntaxUID")
    allocated = _integer(data, "BitsAllocated") or 0
    stored = _integer(data, "BitsStored") or allocated
    high = _integer(data, "HighBit")
    value = _integer(data, "PixelPaddingValue")
    limit = _integer(data, "PixelPaddingRangeLimit")
    if syntax == DeflatedExplicitVRLittleEndian:
        offset = None if offset is None else -1
    return PixelFormat(
        bits=(allocated, stored, stored - 1 if high is None else high),
        signed=_integer(data, "PixelRepresentation") == 1,
        samples=_integer(data, "SamplesPerPixel") or 1,
        photometric=_text(data, "PhotometricInterpretation").upper(),
        syntax=syntax,
        lossy=_is_lossy(syntax, _text(data, "LossyImageCompression")),
        padding=None if value is None else (value, value if limit is None else limit),
        data_offset=offset,
        file_bytes=file_bytes,
    )


def _is_lossy(syntax: str, flag: str) -> bool | None:
    if flag == "01" or syntax in LOSSY_SYNTAXES:
        return True
    return None if syntax in POSSIBLY_LOSSY_SYNTAXES and flag != "00" else False


def is_compressed(syntax: str) -> bool:
    """Tell whether pixels of a transfer syntax are encapsulated; unknown syntaxes count so."""
    if syntax in NATIVE_SYNTAXES:
        return False
    uid = UID(syntax)
    return not uid.is_transfer_syntax or uid.is_compressed


def _macros(*groups: Dataset) -> Iterator[Dataset]:
    """Yield the items of every functional group, where their tags are."""
    for group in groups:
        for element in group:
            if element.VR == "SQ" and element.value:
                yield element.value[0]


def _sequence(data: Dataset, name: str) -> list[Dataset]:
    try:
        return list(data.get(name) or [])
    except (ValueError, TypeError, AttributeError, NotImplementedError):
        return []


def _value(data: Dataset, name: str) -> Any:  # noqa: ANN401  whatever the tag holds
    try:
        return data.get(name)
    except Exception:  # noqa: BLE001  a value that pydicom can't convert is no value
        return None


def _text(data: Dataset, name: str) -> str:
    value = _value(data, name)
    return "" if value is None else str(value).strip().strip("\x00")


def _texts(data: Dataset, name: str) -> list[str]:
    value = _value(data, name)
    if value is None:
        return []
    return [str(v).strip() for v in ([value] if isinstance(value, str) else value)]


def _integer(data: Dataset, name: str) -> int | None:
    value = _value(data, name)
    try:
        return None if value is None else int(value)
    except (TypeError, ValueError):
        return None


def _number(sources: Sequence[Dataset], name: str) -> float | None:
    found = _numbers(sources, name, 1)
    return found[0] if found else None


def _numbers(
    sources: Sequence[Dataset], name: str, count: int, *, above: float | None = None
) -> tuple[float, ...] | None:
    """Find `count` finite numbers in the first source that has the tag."""
    for source in sources:
        value = _value(source, name)
        if value is None or value == "":
            continue
        try:
            numbers = tuple(float(v) for v in ([value] if count == 1 else value))
        except (TypeError, ValueError):
            return None
        finite = all(-1e9 < number < 1e9 for number in numbers)
        high_enough = above is None or all(number > above for number in numbers)
        return numbers if len(numbers) == count and finite and high_enough else None
    return None
