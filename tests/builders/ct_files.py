"""Small CT studies on disk, any geometry: spheres in air, written with pydicom."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from nognet.data.sitk_bridge import to_sitk
from nognet.types import Geometry, Matrix3, Vector3

CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
RTSTRUCT_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"


def rotation(degrees_xyz: Sequence[float]) -> NDArray[np.float64]:
    """Rotation matrix from angles about x, y and z, in this order."""
    a, b, c = np.radians(degrees_xyz)
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(rz @ ry @ rx)


def geometry(
    size: tuple[int, int, int],
    spacing: Vector3,
    *,
    origin: Vector3 = (0.0, 0.0, 0.0),
    axes: NDArray[np.float64] | None = None,
) -> Geometry:
    """A grid; columns of `axes` are the directions of x, y, z."""
    matrix = np.eye(3) if axes is None else axes
    rows = tuple(tuple(float(v) for v in row) for row in matrix)
    direction: Matrix3 = rows  # type: ignore[assignment]  # three rows of three
    return Geometry(size, spacing, origin, direction)


def world_of(grid: Geometry) -> NDArray[np.float64]:
    """World position of every voxel, ``(D, H, W, 3)``."""
    nx, ny, nz = grid.size
    z, y, x = np.meshgrid(np.arange(nz), np.arange(ny), np.arange(nx), indexing="ij")
    return grid.index_to_world(np.stack([x, y, z], axis=-1).astype(float))


def ball(grid: Geometry, centre: NDArray[np.float64], radius_mm: float) -> NDArray[np.uint8]:
    """A sphere as a mask ``(D, H, W)``."""
    away = np.linalg.norm(world_of(grid) - centre, axis=-1)
    return np.asarray(away <= radius_mm, dtype=np.uint8)


def middle(grid: Geometry) -> NDArray[np.float64]:
    """World position of a grid's centre."""
    return grid.index_to_world((np.array(grid.size) - 1) / 2)


@dataclass(frozen=True)
class WrittenSeries:
    """A series on disk."""

    folder: Path
    files: tuple[Path, ...]
    series_uid: str
    frame_of_reference: str


def write_series(
    folder: Path,
    hu: NDArray[Any],
    grid: Geometry,
    *,
    rng: np.random.Generator | None = None,
    **tags: Any,
) -> WrittenSeries:
    """Write HU ``(D, H, W)`` as one CT image a slice, in random file order if `rng` is given."""
    folder.mkdir(parents=True, exist_ok=True)
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    order = np.arange(len(hu)) if rng is None else rng.permutation(len(hu))
    files = []
    for name, k in enumerate(order):
        data = slice_dataset(hu[k], grid, int(k))
        data.SeriesInstanceUID, data.StudyInstanceUID = series, study
        data.FrameOfReferenceUID = frame
        data.InstanceNumber = name + 1
        for tag, value in tags.items():
            setattr(data, tag, value)
        path = folder / f"{name:03d}"
        data.save_as(path, enforce_file_format=True)
        files.append(path)
    return WrittenSeries(folder, tuple(files), series, frame)


def slice_dataset(hu: NDArray[Any], grid: Geometry, k: int) -> FileDataset:
    """One CT image: slice `k` of a grid."""
    data = new_dataset(CT_CLASS)
    axes = np.array(grid.direction)
    position = grid.index_to_world(np.array([0.0, 0.0, float(k)]))
    data.Modality = "CT"
    data.PatientName, data.PatientID = "Secret^Name", "SECRET-ID"
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.Rows, data.Columns = hu.shape
    data.PixelSpacing = [repr_ds(grid.spacing_mm[1]), repr_ds(grid.spacing_mm[0])]
    data.ImagePositionPatient = [repr_ds(v) for v in position]
    data.ImageOrientationPatient = [repr_ds(v) for v in (*axes[:, 0], *axes[:, 1])]
    data.SliceThickness = repr_ds(grid.spacing_mm[2])
    data.ConvolutionKernel = "B30f"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.PixelRepresentation = 1
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    data.PixelData = (np.round(hu).astype(np.int32) + 1024).astype("<i2").tobytes()
    return data


def edit(path: Path, **tags: Any) -> None:
    """Change tags of a file; None deletes one."""
    data = pydicom.dcmread(path)
    for tag, value in tags.items():
        if value is None:
            delattr(data, tag)
        else:
            setattr(data, tag, value)
    data.save_as(path)


def write_rtstruct(
    path: Path, contours_by_name: dict[str, list[NDArray[np.float64]]], series: WrittenSeries
) -> Path:
    """Write closed planar contours, each ``(N, 3)`` in LPS millimetres."""
    data = new_dataset(RTSTRUCT_CLASS)
    data.Modality = "RTSTRUCT"
    reference = Dataset()
    reference.FrameOfReferenceUID = series.frame_of_reference
    in_series, in_study = Dataset(), Dataset()
    in_series.SeriesInstanceUID = series.series_uid
    in_study.RTReferencedSeriesSequence = [in_series]
    reference.RTReferencedStudySequence = [in_study]
    data.ReferencedFrameOfReferenceSequence = [reference]
    data.StructureSetROISequence, data.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(contours_by_name.items(), start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        data.StructureSetROISequence.append(roi)
        drawn.ReferencedROINumber = number
        drawn.ContourSequence = [_contour(points) for points in contours]
        data.ROIContourSequence.append(drawn)
    data.save_as(path, enforce_file_format=True)
    return path


def write_seg(
    path: Path, masks_by_label: dict[str, NDArray[np.uint8]], series: WrittenSeries
) -> Path:
    """Write masks ``(D, H, W)``, ordered as the slices lie, as a binary DICOM SEG."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    images = sorted((pydicom.dcmread(f) for f in series.files), key=_along)
    for image in images:  # what the SEG's constructor copies from its source
        for tag in ("PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime"):
            if tag not in image:
                setattr(image, tag, "")
        image.AccessionNumber = image.ReferringPhysicianName = ""
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=i,
            segment_label=label,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Nodule,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for i, label in enumerate(masks_by_label, start=1)
    ]
    seg = hd.seg.Segmentation(
        source_images=images,
        pixel_array=np.stack(list(masks_by_label.values()), axis=-1),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="none",
        manufacturer_model_name="none",
        software_versions="0",
        device_serial_number="0",
    )
    seg.save_as(path)
    return path


def write_image(path: Path, array: NDArray[Any], grid: Geometry) -> Path:
    """Write an array as NIfTI, NRRD or MHA, by the suffix."""
    import SimpleITK as sitk

    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(to_sitk(array, grid), str(path))
    return path


def outline(mask_slice: NDArray[np.uint8], grid: Geometry, k: int) -> list[NDArray[np.float64]]:
    """Contours around the pixels of a slice, along pixel edges, in LPS millimetres."""
    from skimage.measure import find_contours

    padded = np.pad(mask_slice, 1).astype(float)
    loops = find_contours(padded, 0.5)
    points = [np.column_stack([loop[:-1, 1] - 1, loop[:-1, 0] - 1]) for loop in loops]
    return [grid.index_to_world(np.column_stack([xy, np.full(len(xy), float(k))])) for xy in points]


def repr_ds(value: float) -> str:
    """A decimal string of at most 16 characters, as DICOM wants."""
    return f"{float(value):.10g}"[:16]


def _along(data: Dataset) -> float:
    orientation = np.array(data.ImageOrientationPatient, dtype=float)
    normal = np.cross(orientation[:3], orientation[3:])
    return float(np.array(data.ImagePositionPatient, dtype=float) @ normal)


def _contour(points: NDArray[np.float64]) -> Dataset:
    item = Dataset()
    item.ContourGeometricType = "CLOSED_PLANAR"
    item.NumberOfContourPoints = len(points)
    item.ContourData = [repr_ds(v) for v in np.asarray(points).ravel()]
    return item


def new_dataset(sop_class: str) -> FileDataset:
    """An empty DICOM file of a class, with its meta header."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID = sop_class
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.StudyDate = dt.date(2017, 3, 9).strftime("%Y%m%d")
    return data
