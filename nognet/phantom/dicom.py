"""Write volumes and masks as real DICOM: CT series, SEG and RTSTRUCT.

Everything in a file follows from the arguments (UIDs and dates too), so equal arguments give equal
files, byte for byte.
"""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

from nognet.types import Geometry, Volume

UID_ROOT = "1.2.826.0.1.3680043.8.498."
RESCALE_INTERCEPT = -1024
_TIME = "083000"
_UID_STAND_IN = (UID_ROOT + "9" * (64 - len(UID_ROOT))).encode()
_NUMBER_STAND_IN = b"1987654321"
_PLACE_STAND_INS = (
    b"-91111.123456789",
    b"-92222.123456789",
    b"-93333.123456789",
    b"-94444.123456789",
)


@dataclass(frozen=True)
class SeriesHeader:
    """What a CT series says about itself beside its pixels.

    Attributes:
        patient_id: PatientID.
        patient_name: PatientName; a phantom's has to be obviously fake.
        study_date: StudyDate, SeriesDate, AcquisitionDate.
        uid_source: Names the study; all UIDs are derived from it.
        thickness_mm: SliceThickness; by default the distance of the slices.
        description: SeriesDescription.
        equipment: More tags by keyword (Manufacturer, ConvolutionKernel, KVP ...).
    """

    patient_id: str
    patient_name: str
    study_date: dt.date
    uid_source: str
    thickness_mm: float | None = None
    description: str = "CHEST"
    equipment: Mapping[str, Any] = field(default_factory=dict)

    def uid(self, *names: str | int) -> str:
        """Derive the UID of something in this study."""
        parts = [self.uid_source, *(str(name) for name in names)]
        return str(generate_uid(prefix=UID_ROOT, entropy_srcs=["nognet phantom", *parts]))

    @property
    def date_text(self) -> str:
        """The study's date as DICOM writes it."""
        return self.study_date.strftime("%Y%m%d")


def write_ct_series(volume: Volume, folder: Path, header: SeriesHeader) -> list[Path]:
    """Write a CT as one file a slice, ``slice_0001.dcm`` ... in order of the normal.

    Args:
        volume: Hounsfield units ``(D, H, W)``; rounded and clipped to what 16 bits hold.
        folder: Made if needed.
        header: Patient, date, UIDs and equipment.

    Returns:
        The files, slice by slice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    geometry = volume.geometry
    stored = np.clip(np.rint(volume.array), RESCALE_INTERCEPT, 32767) - RESCALE_INTERCEPT
    pixels = stored.astype("<u2")
    template = _slice_template(geometry, header)
    paths = []
    for number in range(geometry.size[2]):
        position = geometry.index_to_world(np.array([0.0, 0.0, float(number)])) + 0.0
        head = template.replace(_UID_STAND_IN, header.uid("ct", number).encode())
        head = head.replace(_NUMBER_STAND_IN, f"{number + 1:10d}".encode())
        for stand_in, value in zip(_PLACE_STAND_INS, (*position, position[2]), strict=True):
            head = head.replace(stand_in, f"{value:16.6f}".encode())
        paths.append(folder / f"slice_{number + 1:04d}.dcm")
        paths[-1].write_bytes(head + pixels[number].tobytes())
    return paths


def _slice_template(geometry: Geometry, header: SeriesHeader) -> bytes:
    """Encode a slice up to its pixels, with stand-ins for what differs from slice to slice.

    pydicom encodes the header once and not for every slice, which takes it most of the time; the
    stand-ins are as long as what replaces them, so every length in the file stays right.
    """
    dataset = _ct_dataset(geometry, header)
    uid = UID(_UID_STAND_IN.decode())
    dataset.file_meta.MediaStorageSOPInstanceUID = uid
    dataset.SOPInstanceUID = uid
    dataset.InstanceNumber = _NUMBER_STAND_IN.decode()
    dataset.ImagePositionPatient = [place.decode() for place in _PLACE_STAND_INS[:3]]
    dataset.SliceLocation = _PLACE_STAND_INS[3].decode()
    pixel_bytes = 2 * geometry.size[0] * geometry.size[1]
    dataset.PixelData = bytes(pixel_bytes)
    encoded = io.BytesIO()
    dataset.save_as(encoded, enforce_file_format=True)
    return encoded.getvalue()[:-pixel_bytes]


def write_seg(
    masks: Mapping[str, NDArray[np.uint8]],
    geometry: Geometry,
    header: SeriesHeader,
    path: Path,
    *,
    ct_files: Sequence[Path],
) -> None:
    """Write masks as one binary DICOM SEG of a segment each, labelled by the mapping's keys.

    Args:
        masks: Label -> ``(D, H, W)`` in {0, 1}; not all empty.
        geometry: Their grid, that of the CT.
        header: Header of the CT series.
        path: File to write.
        ct_files: The CT's files as `write_ct_series` gave them; those of marked slices are read.
    """
    import highdicom
    import pydicom

    stacked = np.stack([np.asarray(mask, dtype=np.uint8) for mask in masks.values()], axis=-1)
    marked = np.flatnonzero(stacked.any(axis=(1, 2, 3)))
    span = slice(int(marked[0]), int(marked[-1]) + 1)
    sources = [pydicom.dcmread(ct_files[k]) for k in range(geometry.size[2])[span]]
    segmentation = highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=stacked[span],
        segmentation_type="BINARY",
        segment_descriptions=[
            _segment_description(number + 1, label, header) for number, label in enumerate(masks)
        ],
        series_instance_uid=header.uid("seg series"),
        series_number=2,
        sop_instance_uid=header.uid("seg"),
        instance_number=1,
        manufacturer="nognet phantom",
        manufacturer_model_name="nognet phantom",
        software_versions="1",
        device_serial_number="0",
        content_label="NODULES",
        series_description="Nodules",
    )
    _fix_moment(segmentation, header)
    path.parent.mkdir(parents=True, exist_ok=True)
    segmentation.save_as(path)


def write_rtstruct(
    inside: Mapping[str, NDArray[Any]],
    geometry: Geometry,
    header: SeriesHeader,
    path: Path,
    *,
    ct_uids: Sequence[str] | None = None,
) -> None:
    """Write masks as one RTSTRUCT, a region of interest each, named by the mapping's keys.

    Args:
        inside: Name -> ``(D, H, W)``; the contour runs where it crosses 0.5, so a mask's contours
            run half way between neighbouring voxels, and a soft field's as fine as it is.
        geometry: Their grid, that of the CT.
        header: Header of the CT series.
        path: File to write.
        ct_uids: SOP instance UIDs of the CT's slices; by default as `write_ct_series` makes them.
    """
    uids = list(ct_uids or [header.uid("ct", k) for k in range(geometry.size[2])])
    dataset = _rtstruct_dataset(header, uids)
    path.parent.mkdir(parents=True, exist_ok=True)
    for number, (name, values) in enumerate(inside.items(), start=1):
        roi = _dataset(
            ROINumber=number,
            ReferencedFrameOfReferenceUID=header.uid("frame"),
            ROIName=name,
            ROIGenerationAlgorithm="AUTOMATIC",
        )
        dataset.StructureSetROISequence.append(roi)
        contours = _dataset(ReferencedROINumber=number, ROIDisplayColor=[255, 0, 0])
        contours.ContourSequence = list(_contours(values, geometry, uids))
        dataset.ROIContourSequence.append(contours)
        observation = _dataset(
            ObservationNumber=number, ReferencedROINumber=number, RTROIInterpretedType="GTV",
            ROIInterpreter="",
        )  # fmt: skip
        dataset.RTROIObservationsSequence.append(observation)
    dataset.save_as(path, enforce_file_format=True)


def _contours(values: NDArray[Any], geometry: Geometry, uids: Sequence[str]) -> list[Dataset]:
    """Trace the 0.5 crossing slice by slice, closed and planar, in LPS millimetres."""
    import contourpy  # comes with matplotlib

    items = []
    for k in np.flatnonzero((values > 0.5).any(axis=(1, 2))):
        framed = np.pad(np.asarray(values[k], dtype=np.float64), 1)
        for line in contourpy.contour_generator(z=framed).lines(0.5):
            points = np.asarray(line, dtype=np.float64)[:-1] - 1.0
            index = np.column_stack([points, np.full(len(points), float(k))])
            world = geometry.index_to_world(index)
            image = _dataset(
                ReferencedSOPClassUID=CTImageStorage, ReferencedSOPInstanceUID=uids[int(k)]
            )
            item = _dataset(
                ContourGeometricType="CLOSED_PLANAR",
                NumberOfContourPoints=len(world),
                ContourData=[f"{value:.4f}" for value in world.reshape(-1)],
            )
            item.ContourImageSequence = [image]
            items.append(item)
    return items


def _ct_dataset(geometry: Geometry, header: SeriesHeader) -> FileDataset:
    """Everything of a slice but its number, position, UID and pixels."""
    dataset = _file_dataset(CTImageStorage, header)
    x, y, z = np.asarray(geometry.direction).T
    del z
    spacing = geometry.spacing_mm
    dataset.Modality = "CT"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SeriesInstanceUID = header.uid("series")
    dataset.SeriesNumber = 1
    dataset.SeriesDescription = header.description
    dataset.AcquisitionNumber = 1
    dataset.PositionReferenceIndicator = ""
    dataset.PatientPosition = "HFS"
    dataset.BodyPartExamined = "CHEST"
    dataset.ImageOrientationPatient = _decimals(np.concatenate([x, y]))
    dataset.PixelSpacing = _decimals(np.array([spacing[1], spacing[0]]))
    dataset.SliceThickness = _decimals(np.array([header.thickness_mm or spacing[2]]))[0]
    dataset.SpacingBetweenSlices = _decimals(np.array([spacing[2]]))[0]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Columns, dataset.Rows = geometry.size[:2]
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 0
    dataset.RescaleIntercept = RESCALE_INTERCEPT
    dataset.RescaleSlope = 1
    dataset.RescaleType = "HU"
    dataset.WindowCenter, dataset.WindowWidth = -600, 1500
    for keyword, value in header.equipment.items():
        setattr(dataset, keyword, value)
    return dataset


def _rtstruct_dataset(header: SeriesHeader, uids: Sequence[str]) -> FileDataset:
    """Make an RTSTRUCT without regions, which refers to the CT's slices."""
    from pydicom.uid import RTStructureSetStorage

    dataset = _file_dataset(RTStructureSetStorage, header)
    uid = UID(header.uid("rtstruct"))
    dataset.file_meta.MediaStorageSOPInstanceUID = uid
    dataset.SOPInstanceUID = uid
    dataset.Modality = "RTSTRUCT"
    dataset.SeriesInstanceUID = header.uid("rtstruct series")
    dataset.SeriesNumber = 2
    dataset.SeriesDescription = "Nodules"
    dataset.Manufacturer = "nognet phantom"
    dataset.StructureSetLabel = "NODULES"
    dataset.StructureSetDate, dataset.StructureSetTime = header.date_text, _TIME
    series = _dataset(SeriesInstanceUID=header.uid("series"))
    series.ContourImageSequence = [
        _dataset(ReferencedSOPClassUID=CTImageStorage, ReferencedSOPInstanceUID=u) for u in uids
    ]
    study = _dataset(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",
        ReferencedSOPInstanceUID=header.uid("study"),
    )
    study.RTReferencedSeriesSequence = [series]
    frame = _dataset(FrameOfReferenceUID=header.uid("frame"))
    frame.RTReferencedStudySequence = [study]
    dataset.ReferencedFrameOfReferenceSequence = [frame]
    dataset.StructureSetROISequence = []
    dataset.ROIContourSequence = []
    dataset.RTROIObservationsSequence = []
    return dataset


def _file_dataset(sop_class: str, header: SeriesHeader) -> FileDataset:
    """Make the patient, study and frame-of-reference modules that all objects of a study share."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = sop_class
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientID = header.patient_id
    dataset.PatientName = header.patient_name
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "O"
    dataset.StudyInstanceUID = header.uid("study")
    dataset.StudyID = "1"
    dataset.StudyDescription = "PHANTOM chest CT"
    dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = ""
    for stem in ("Study", "Series", "Acquisition", "Content"):
        setattr(dataset, f"{stem}Date", header.date_text)
        setattr(dataset, f"{stem}Time", _TIME)
    dataset.FrameOfReferenceUID = header.uid("frame")
    return dataset


def _segment_description(number: int, label: str, header: SeriesHeader) -> Any:  # noqa: ANN401  highdicom has no types here
    import highdicom
    from pydicom.sr.codedict import codes

    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Nodule,
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="nognet phantom",
            version="1",
            family=codes.cid7162.DeformableModels,
        ),
        tracking_uid=header.uid("tracking", label),
        tracking_id=label,
    )


def _fix_moment(dataset: Dataset, header: SeriesHeader) -> None:
    """Replace what highdicom takes from the clock or draws at random (in place)."""
    for stem in ("Content", "Series", "InstanceCreation"):
        if f"{stem}Date" in dataset:
            setattr(dataset, f"{stem}Date", header.date_text)
            setattr(dataset, f"{stem}Time", _TIME)
    uid = header.uid("dimensions")
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid
    for item in dataset.get("ContributingEquipmentSequence", []):
        item.ContributionDateTime = header.date_text + _TIME
    dataset.ContentCreatorName = "PHANTOM^NOBODY"


def _dataset(**values: Any) -> Dataset:  # noqa: ANN401  DICOM values of any kind
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def _decimals(values: NDArray[Any]) -> list[str]:
    """Format decimal strings of at most 16 characters, plain and without a negative zero."""
    return [f"{float(value) + 0.0:.6f}".rstrip("0").rstrip(".") for value in values]
