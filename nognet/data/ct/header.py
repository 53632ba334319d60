"""One pass over the headers of DICOM files, with nothing trusted: `SliceHeader` for each slice.

An enhanced multi-frame file gives one `SliceHeader` a frame. Pixels are not decoded here, only
looked for, so that a file without an image or one cut short is known before anything is read.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pydicom.config import IGNORE
from pydicom.dataset import Dataset
from pydicom.uid import UID

from nognet.data.ct.dicom_file import (
    PixelElement,
    has_dicom_mark,
    pixel_element,
    read_dataset,
)
from nognet.data.ct.tags import (
    integer_of,
    is_present,
    number_of,
    numbers_of,
    sequence_of,
    text_of,
    texts_of,
)
from nognet.data.findings import Finding
from nognet.errors import SiteDataError

__all__ = [
    "CT_CLASSES",
    "DATE_TAGS",
    "NATIVE_SYNTAXES",
    "PixelFormat",
    "SliceHeader",
    "has_dicom_mark",
    "headers_of",
    "is_compressed",
    "read_dataset",
    "read_headers",
]

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
CT_CLASSES = (CT_IMAGE_STORAGE, "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
)
NATIVE_SYNTAXES = (IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED)
DATE_TAGS = ("AcquisitionDate", "SeriesDate", "StudyDate")
LOSSY_SYNTAXES = (
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.203",
)
POSSIBLY_LOSSY_SYNTAXES = ("1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91")
WATCHED = ("Modality", "InstanceNumber", "FrameOfReferenceUID")
"""Tags that a CT has to have, though nothing here depends on them."""
SCOUT_WORDS = ("SCOUT", "TOPOGRAM", "LOCALIZER", "SURVIEW", "SCANO", "SCANOGRAM", "PILOT")
NO_CONTRAST = ("NO", "NONE", "N", "NATIVE", "WITHOUT", "NO CONTRAST", "0", "NON CONTRAST", "NA")
_OVERLAY_POSITIONS = tuple(0x60000102 + (group << 16) for group in range(0, 32, 2))
_MACROS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "CTImageFrameTypeSequence",
    "CTReconstructionSequence",
)
"""Functional groups whose tags are wanted of each frame."""
_TAGS: tuple[str | int, ...] = (
    *DATE_TAGS, *WATCHED, *_MACROS,
    "AcquisitionDateTime", "SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID",
    "AcquisitionNumber", "LossyImageCompressionRatio",
    "StudyInstanceUID", "PatientID", "Rows", "Columns", "NumberOfFrames", "PixelSpacing",
    "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept",
    "RescaleType", "ModalityLUTSequence", "SliceThickness", "SpacingBetweenSlices",
    "GantryDetectorTilt", "ConvolutionKernel", "ImageType", "ScanOptions", "ContrastBolusAgent",
    "ContrastBolusAgentSequence", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "SamplesPerPixel", "PhotometricInterpretation", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "LossyImageCompression", "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence",
    *_OVERLAY_POSITIONS,
)  # fmt: skip


@dataclass(frozen=True)
class PixelFormat:
    """How pixel values are stored.

    Attributes:
        bits: (BitsAllocated, BitsStored, HighBit).
        signed: PixelRepresentation is 1.
        samples: SamplesPerPixel.
        photometric: PhotometricInterpretation.
        syntax: Transfer syntax UID; where it is absent, the one that the file is written in.
        lossy: Lossy by flag or by transfer syntax; None where the header leaves it open.
        padding: (PixelPaddingValue, PixelPaddingRangeLimit), where declared.
        element: Where the value of PixelData lies; None where there is none.
        overlay: Old overlays lie in the bits above the value's own.
    """

    bits: tuple[int, int, int]
    signed: bool
    samples: int
    photometric: str
    syntax: str
    lossy: bool | None
    padding: tuple[int, int] | None
    element: PixelElement | None
    overlay: bool


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
        declared_gap_mm: SpacingBetweenSlices; it has no say, but is held against the positions.
        tilt_degrees: GantryDetectorTilt; likewise.
        acquisition: AcquisitionNumber.
        kernel: ConvolutionKernel.
        image_type: Values of ImageType, and of FrameType where it is a frame.
        scout: ImageType or ScanOptions call it a localizer.
        contrast: Whether a contrast agent was given; None where the tag is there but empty.
        patient_digest: SHA-256 of PatientID, hexadecimal; empty where that is empty.
        pixels: How pixel values are stored.
        absent: Names of missing or empty tags worth a warning.
        faults: Tags that hold what can't be right.
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
    declared_gap_mm: float | None
    tilt_degrees: float | None
    acquisition: int | None
    kernel: str
    image_type: tuple[str, ...]
    scout: bool
    contrast: bool | None
    patient_digest: str
    pixels: PixelFormat
    absent: tuple[str, ...]
    faults: tuple[Finding, ...]
    uids_from_meta: bool


def read_headers(path: Path) -> list[SliceHeader]:
    """Read the header of a DICOM file: one `SliceHeader` a frame.

    Raises:
        SiteDataError: the file is not DICOM, is cut short or damaged, or can't be read.
    """
    data, offset = read_dataset(path, _TAGS)
    headers = headers_of(data, offset, path)
    first = headers[0]
    # a class that no standard knows is one cut short
    nameless = not first.modality and not UID(first.sop_class, IGNORE).type
    # cut between two elements: nothing is damaged, but a slice of the series is gone
    if offset is None and (nameless or (not first.matrix and first.sop_class in CT_CLASSES)):
        raise SiteDataError(f"{path}: the header ends before its image", code="truncated")
    return headers


def headers_of(data: Dataset, offset: int | None, path: Path) -> list[SliceHeader]:
    """Take the headers of a data set as `read_dataset` gives it: one `SliceHeader` a frame."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd values are judged by us, tag by tag
        pixels = _pixel_format(data, pixel_element(path, offset))
        frames = sequence_of(data, "PerFrameFunctionalGroupsSequence")
        declared = integer_of(data, "NumberOfFrames") or 1
        if not frames:
            return [_header(data, (path, 0, declared), [data], pixels)]
        shared = [*_macros(*sequence_of(data, "SharedFunctionalGroupsSequence")), data]
        return [
            _header(data, (path, i, len(frames)), [*_macros(frame), *shared], pixels)
            for i, frame in enumerate(frames)
        ]


def _header(
    data: Dataset,
    place: tuple[Path, int, int],
    sources: Sequence[Dataset],
    pixels: PixelFormat,
) -> SliceHeader:
    """Fill in one header; `place` is (file, frame, frames), `sources` where its tags may be."""
    path, frame, n_frames = place
    meta = getattr(data, "file_meta", None) or Dataset()
    sop_uid, sop_class = text_of(data, "SOPInstanceUID"), text_of(data, "SOPClassUID")
    rows, columns = integer_of(data, "Rows"), integer_of(data, "Columns")
    slope, intercept = (number_of(sources, name) for name in ("RescaleSlope", "RescaleIntercept"))
    kinds = [text.upper() for source in sources for text in texts_of(source, "ImageType")]
    kinds += [text.upper() for source in sources for text in texts_of(source, "FrameType")]
    options = [text.upper() for text in texts_of(data, "ScanOptions")]
    return SliceHeader(
        path=path,
        frame=frame,
        n_frames=n_frames,
        modality=text_of(data, "Modality").upper(),
        sop_class=sop_class or text_of(meta, "MediaStorageSOPClassUID"),
        sop_uid=sop_uid or text_of(meta, "MediaStorageSOPInstanceUID"),
        series_uid=text_of(data, "SeriesInstanceUID"),
        study_uid=text_of(data, "StudyInstanceUID"),
        date_text=_date_text(data),
        frame_of_reference=text_of(data, "FrameOfReferenceUID"),
        matrix=(rows, columns) if rows and columns and min(rows, columns) > 0 else None,
        pixel_spacing_mm=cast(
            "tuple[float, float] | None", numbers_of(sources, "PixelSpacing", 2, above=0.0)
        ),
        position_mm=_position(data, sources, n_frames),
        orientation=numbers_of(sources, "ImageOrientationPatient", 6),
        rescale=(slope, intercept) if slope is not None and intercept is not None else None,
        thickness_mm=_positive(number_of(sources, "SliceThickness")),
        declared_gap_mm=_positive(number_of(sources, "SpacingBetweenSlices")),
        tilt_degrees=number_of(sources, "GantryDetectorTilt"),
        acquisition=integer_of(data, "AcquisitionNumber"),
        kernel=_first_text(sources, "ConvolutionKernel"),
        image_type=tuple(dict.fromkeys(kinds)),
        scout=any(word in text for text in (*kinds, *options) for word in SCOUT_WORDS),
        contrast=_contrast(data),
        patient_digest=_digest(text_of(data, "PatientID")),
        pixels=pixels,
        absent=tuple(name for name in WATCHED if not text_of(data, name)),
        faults=tuple(_faults(data, sources, n_frames, (slope, intercept))),
        uids_from_meta=not (sop_uid and sop_class),
    )


def _pixel_format(data: Dataset, element: PixelElement | None) -> PixelFormat:
    meta = getattr(data, "file_meta", None) or Dataset()
    syntax = text_of(meta, "TransferSyntaxUID") or _written_as(data)
    allocated = integer_of(data, "BitsAllocated") or 0
    stored = integer_of(data, "BitsStored") or allocated
    high = integer_of(data, "HighBit")
    value = integer_of(data, "PixelPaddingValue")
    limit = integer_of(data, "PixelPaddingRangeLimit")
    overlays = [integer_of(data, tag) for tag in set(data.keys()).intersection(_OVERLAY_POSITIONS)]
    return PixelFormat(
        bits=(allocated, stored, stored - 1 if high is None else high),
        signed=integer_of(data, "PixelRepresentation") == 1,
        samples=integer_of(data, "SamplesPerPixel") or 1,
        photometric=text_of(data, "PhotometricInterpretation").upper(),
        syntax=syntax,
        lossy=_is_lossy(
            syntax,
            text_of(data, "LossyImageCompression"),
            number_of([data], "LossyImageCompressionRatio"),
        ),
        padding=None if value is None else (value, value if limit is None else limit),
        element=element,
        overlay=any(position is not None and position >= stored for position in overlays),
    )


def _written_as(data: Dataset) -> str:
    implicit, little = data.original_encoding
    if implicit:
        return IMPLICIT
    return BIG_ENDIAN if little is False else EXPLICIT


def _is_lossy(syntax: str, flag: str, ratio: float | None) -> bool | None:
    """Tell by flag or syntax, or by a ratio of lossy compression where the flag is gone."""
    if flag == "01" or syntax in LOSSY_SYNTAXES or (flag != "00" and (ratio or 0.0) > 1.0):
        return True
    return None if syntax in POSSIBLY_LOSSY_SYNTAXES and flag != "00" else False


def is_compressed(syntax: str) -> bool:
    """Tell whether pixels of a transfer syntax are encapsulated; unknown syntaxes count so."""
    return syntax not in NATIVE_SYNTAXES


def _faults(
    data: Dataset,
    sources: Sequence[Dataset],
    n_frames: int,
    rescale: tuple[float | None, float | None],
) -> Iterator[Finding]:
    """Find tags that values or geometry depend on and that hold what can't be right."""
    slope, intercept = rescale
    if slope is None or intercept is None or slope <= 0:
        names = ("RescaleSlope", "RescaleIntercept")
        if any(is_present(source, name) for source in sources for name in names):
            yield _fault("slope and intercept are not two numbers, the slope above 0")
        elif sequence_of(data, "ModalityLUTSequence"):
            yield _fault("values are mapped by a lookup table, not by slope and intercept")
    if is_present(data, "PixelRepresentation") and (
        integer_of(data, "PixelRepresentation") not in (0, 1)
    ):
        yield _fault("PixelRepresentation is neither 0 nor 1")
    if is_present(data, "NumberOfFrames") and integer_of(data, "NumberOfFrames") != n_frames:
        yield _fault(f"NumberOfFrames doesn't fit the {n_frames} frames that are described")
    kind = _first_text(sources, "RescaleType").upper()
    if kind not in ("", "HU", "US"):
        message = f"the header says that values are in {kind[:16]}, not in HU"
        yield Finding("not-hounsfield", "warning", message)


def _fault(message: str) -> Finding:
    return Finding("bad-tags", "refused", message)


def _position(data: Dataset, sources: Sequence[Dataset], n_frames: int) -> tuple[float, ...] | None:
    """Give ImagePositionPatient; frames without functional groups have none of their own."""
    if n_frames > 1 and len(sources) == 1 and sources[0] is data:
        return None
    return numbers_of(sources, "ImagePositionPatient", 3)


def _date_text(data: Dataset) -> str:
    texts = [text_of(data, name) for name in DATE_TAGS]
    texts.insert(1, text_of(data, "AcquisitionDateTime")[:8])
    return next(filter(None, texts), "")


def _contrast(data: Dataset) -> bool | None:
    if sequence_of(data, "ContrastBolusAgentSequence"):
        return True
    if "ContrastBolusAgent" not in data:
        return False
    agent = text_of(data, "ContrastBolusAgent").upper()
    return agent not in NO_CONTRAST if agent else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


def _positive(number: float | None) -> float | None:
    return number if number is not None and number > 0 else None


def _first_text(sources: Sequence[Dataset], name: str) -> str:
    return next(filter(None, ("\\".join(texts_of(s, name)) for s in sources)), "")


def _macros(*groups: Dataset) -> Iterator[Dataset]:
    """Yield the first item of every functional group whose tags are wanted."""
    for group in groups:
        for name in _MACROS:
            yield from sequence_of(group, name)[:1]
