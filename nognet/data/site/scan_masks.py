"""What a DICOM SEG or RTSTRUCT says of itself: what it was drawn on, and which segments it has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

MASK_MODALITIES = ("SEG", "RTSTRUCT")
MOST_IMAGES_LOOKED_AT = 8
"""Referenced images looked at where a mask doesn't name its series; they are all of one."""


@dataclass(frozen=True)
class Segment:
    """One segment or structure: number and label as in the file."""

    number: int
    label: str


@dataclass(frozen=True)
class ScannedMask:
    """A mask as its header shows it.

    Attributes:
        path: The file.
        modality: ``SEG`` or ``RTSTRUCT``.
        patient: As in the table.
        sop_uid: SOPInstanceUID.
        study_uid: StudyInstanceUID.
        series_uids: Series it was drawn on; empty where it names none.
        image_uids: SOP instance UIDs of some images it was drawn on.
        frame_of_reference: FrameOfReferenceUID.
        segments: All its segments.
        made: Date and time as the header has them, for telling the later of two.
    """

    path: Path
    modality: str
    patient: str
    sop_uid: str
    study_uid: str
    series_uids: tuple[str, ...]
    image_uids: tuple[str, ...]
    frame_of_reference: str
    segments: tuple[Segment, ...]
    made: str


def read_mask_facts(data: Dataset, path: Path, patient: str) -> ScannedMask:
    """Take from a mask's data set what `nognet scan` goes by; damaged parts count as absent."""
    is_seg = _text(data, "Modality").upper() == "SEG"
    series, frame = _seg_references(data) if is_seg else _structure_references(data)
    names = ("ContentDate", "ContentTime") if is_seg else ("StructureSetDate", "StructureSetTime")
    return ScannedMask(
        path=path,
        modality="SEG" if is_seg else "RTSTRUCT",
        patient=patient,
        sop_uid=_text(data, "SOPInstanceUID"),
        study_uid=_text(data, "StudyInstanceUID"),
        series_uids=tuple(dict.fromkeys(uid for uid in series if uid)),
        image_uids=tuple(_image_uids(data))[:MOST_IMAGES_LOOKED_AT],
        frame_of_reference=frame,
        segments=tuple(_segments(data, is_seg=is_seg)),
        made="".join(_text(data, name) for name in names),
    )


def _segments(data: Dataset, *, is_seg: bool) -> Iterator[Segment]:
    sequence, number, label = (
        ("SegmentSequence", "SegmentNumber", "SegmentLabel")
        if is_seg
        else ("StructureSetROISequence", "ROINumber", "ROIName")
    )
    for item in _items(data, sequence):
        text = _text(item, number)
        if text.isdecimal() and (int(text) or not is_seg):  # a LABELMAP's 0 is its background
            yield Segment(int(text), _raw(item, label))


def _seg_references(data: Dataset) -> tuple[list[str], str]:
    items = _items(data, "ReferencedSeriesSequence")
    series = [_text(item, "SeriesInstanceUID") for item in items]
    return series, _text(data, "FrameOfReferenceUID")


def _structure_references(data: Dataset) -> tuple[list[str], str]:
    series: list[str] = []
    frames: list[str] = []
    for item in _items(data, "ReferencedFrameOfReferenceSequence"):
        frames.append(_text(item, "FrameOfReferenceUID"))
        for study in _items(item, "RTReferencedStudySequence"):
            referenced = _items(study, "RTReferencedSeriesSequence")
            series += [_text(ref, "SeriesInstanceUID") for ref in referenced]
    return series, next(filter(None, frames), _text(data, "FrameOfReferenceUID"))


def _image_uids(data: Dataset) -> Iterator[str]:
    for roi in _items(data, "ROIContourSequence"):
        for contour in _items(roi, "ContourSequence")[:2]:
            for image in _items(contour, "ContourImageSequence")[:1]:
                yield _text(image, "ReferencedSOPInstanceUID")
    for frame in _items(data, "PerFrameFunctionalGroupsSequence")[:2]:
        for derived in _items(frame, "DerivationImageSequence")[:1]:
            for image in _items(derived, "SourceImageSequence")[:2]:
                yield _text(image, "ReferencedSOPInstanceUID")


def _items(data: Dataset, name: str) -> list[Dataset]:
    try:
        return [item for item in data.get(name) or [] if isinstance(item, Dataset)]
    except Exception:  # noqa: BLE001  a sequence that pydicom can't parse is none
        return []


def _raw(data: Dataset, name: str) -> str:
    try:
        value = data.get(name)
    except Exception:  # noqa: BLE001  a value that pydicom can't convert is no value
        return ""
    return "" if value is None else str(value)


def _text(data: Dataset, name: str) -> str:
    return _raw(data, name).strip().strip("\x00").strip()
