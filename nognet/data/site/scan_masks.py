"""What a DICOM SEG or RTSTRUCT says of itself: what it was drawn on, and which segments it has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from nognet.data.ct.tags import sequence_of, text_of, value_of
from nognet.data.masks.rtstruct import referenced_by_structures
from nognet.data.masks.seg import referenced_by_seg

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
    is_seg = text_of(data, "Modality").upper() == "SEG"
    series, frame = _references(data, is_seg=is_seg)
    names = ("ContentDate", "ContentTime") if is_seg else ("StructureSetDate", "StructureSetTime")
    return ScannedMask(
        path=path,
        modality="SEG" if is_seg else "RTSTRUCT",
        patient=patient,
        sop_uid=text_of(data, "SOPInstanceUID"),
        study_uid=text_of(data, "StudyInstanceUID"),
        series_uids=series,
        image_uids=tuple(_image_uids(data))[:MOST_IMAGES_LOOKED_AT],
        frame_of_reference=frame,
        segments=tuple(_segments(data, is_seg=is_seg)),
        made="".join(text_of(data, name) for name in names),
    )


def _segments(data: Dataset, *, is_seg: bool) -> Iterator[Segment]:
    sequence, number, label = (
        ("SegmentSequence", "SegmentNumber", "SegmentLabel")
        if is_seg
        else ("StructureSetROISequence", "ROINumber", "ROIName")
    )
    for item in sequence_of(data, sequence):
        text = text_of(item, number)
        if text.isdecimal() and (int(text) or not is_seg):  # a LABELMAP's 0 is its background
            yield Segment(int(text), str(value_of(item, label) or ""))


def _references(data: Dataset, *, is_seg: bool) -> tuple[tuple[str, ...], str]:
    """List the series a mask was drawn on, and name the frame of reference."""
    series, frames = (referenced_by_seg(data), ()) if is_seg else referenced_by_structures(data)
    return series, next(iter(frames), text_of(data, "FrameOfReferenceUID"))


def _image_uids(data: Dataset) -> Iterator[str]:
    for roi in sequence_of(data, "ROIContourSequence"):
        for contour in sequence_of(roi, "ContourSequence")[:2]:
            for image in sequence_of(contour, "ContourImageSequence")[:1]:
                yield text_of(image, "ReferencedSOPInstanceUID")
    for frame in sequence_of(data, "PerFrameFunctionalGroupsSequence")[:2]:
        for derived in sequence_of(frame, "DerivationImageSequence")[:1]:
            for image in sequence_of(derived, "SourceImageSequence")[:2]:
                yield text_of(image, "ReferencedSOPInstanceUID")
