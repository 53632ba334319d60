"""What a de-identified file keeps: lists of what is allowed; everything else is removed.

An allowlist cannot forget a tag. It holds what the image, its geometry and its masks need, and a
few words of the machine (manufacturer, kernel). Free text typed by people is never kept: names of
segments are reduced to words of a fixed vocabulary.
"""

from __future__ import annotations

import re

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from nognet.data.ct.header import CT_CLASSES, NO_CONTRAST

SEG_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
RTSTRUCT_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
EXPORTED_CLASSES = (*CT_CLASSES, *SEG_CLASSES, RTSTRUCT_CLASS)

NUMERIC_VRS = ("IS", "DS", "US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT")
REMOVED_GROUPS = (0x0010, 0x0012, 0x0032, 0x0038, 0x0040, 0x0042, 0x0088, 0x0400, 0x4008)
"""Patient, trial, request, visit, procedure, documents, storage, signatures, reports."""
FIXED = {"ContentLabel": "SEGMENTATION", "DeviceSerialNumber": "0", "SeriesNumber": "1",
         "AcquisitionNumber": "1"}  # fmt: skip
"""Tags that some files have to have; series numbers may hold a PatientID or an accession number."""
DRAWN_OVER = (0x50, 0x60)
"""First byte of the groups of curves and overlays."""
REMOVED_UIDS = ("SOPClassesInStudy", "ContextUID", "MappingResourceUID", "CodingSchemeUID",
                "TrackingUID")  # fmt: skip
MACHINE_TEXTS = ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "ConvolutionKernel",
                 "FilterType", "RescaleType", "SegmentAlgorithmName",
                 "DimensionDescriptionLabel")  # fmt: skip
HUMAN_NAMES = ("SegmentLabel", "ROIName")
DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "InstanceCreationDate",
         "StructureSetDate", "AcquisitionDateTime", "FrameAcquisitionDateTime",
         "FrameReferenceDateTime")  # fmt: skip
TIMES = ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime", "InstanceCreationTime",
         "StructureSetTime")  # fmt: skip
CODE_STRINGS = (
    "ImageType", "Modality", "PatientPosition", "PhotometricInterpretation", "BurnedInAnnotation",
    "LossyImageCompression", "LossyImageCompressionMethod", "SegmentationType",
    "SegmentationFractionalType", "SegmentAlgorithmType", "SegmentsOverlap",
    "ContourGeometricType", "ROIGenerationAlgorithm", "RTROIInterpretedType", "FrameType",
    "PixelPresentation", "VolumetricProperties", "VolumeBasedCalculationTechnique",
    "DimensionOrganizationType", "FrameLaterality", "ContentQualification",
    "PresentationLUTShape", "ScanOptions", "RotationDirection", "ExposureModulationType",
    "AcquisitionType", "ReconstructionAlgorithm", "SpatialLocationsPreserved",
)  # fmt: skip
SEQUENCES = (
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "PixelMeasuresSequence",
    "PlanePositionSequence", "PlaneOrientationSequence", "PixelValueTransformationSequence",
    "FrameContentSequence", "FrameVOILUTSequence", "FrameAnatomySequence",
    "DerivationImageSequence", "SourceImageSequence", "SegmentIdentificationSequence",
    "SegmentSequence", "ReferencedSeriesSequence", "ReferencedInstanceSequence",
    "ReferencedImageSequence", "DimensionOrganizationSequence", "DimensionIndexSequence",
    "CTReconstructionSequence", "CTImageFrameTypeSequence", "CTAcquisitionTypeSequence",
    "CTAcquisitionDetailsSequence", "CTTableDynamicsSequence", "CTPositionSequence",
    "CTGeometrySequence", "CTExposureSequence", "CTXRayDetailsSequence",
    "StructureSetROISequence", "ROIContourSequence", "ContourSequence", "ContourImageSequence",
    "RTROIObservationsSequence", "ReferencedFrameOfReferenceSequence", "RTReferencedStudySequence",
    "RTReferencedSeriesSequence",
)  # fmt: skip
CODE_SEQUENCES = (
    "SegmentedPropertyCategoryCodeSequence", "SegmentedPropertyTypeCodeSequence",
    "AnatomicRegionSequence", "PurposeOfReferenceCodeSequence", "DerivationCodeSequence",
)  # fmt: skip
STANDARD_SCHEMES = ("SCT", "SRT", "SNM3", "DCM", "UCUM", "FMA")
UNKNOWN_CODE = Code("49755003", "SCT", "Morphologically Abnormal Structure")
"""Stands for a code that only the site's own scheme explains."""
PIXEL_DATA = ("PixelData",)

_WORDS = """
nodule nodules nodul tumor tumour lesion mass gtv ctv ptv itv igtv neoplasm finding metastasis lymph
node lung lungs left right upper middle lower lobe lobes airway airways trachea bronchus heart aorta
esophagus oesophagus liver spleen stomach rib ribs spine vertebra carina spinal cord body skin chest
wall pleura effusion solid part ground glass subsolid segment structure roi primary target l r
"""
VOCABULARY = frozenset(_WORDS.split())
"""Words that the name of a segment may keep."""
WORD = re.compile(r"[^\W\d_]+|\d+")
DATE_LIKE = re.compile(r"\d{4,}|\d{1,4}[-./_ ]\d{1,2}[-./_ ]\d{1,4}")
CODE_STRING = re.compile(r"[A-Z0-9 _]{0,16}", re.IGNORECASE)


def plain_name(name: str, number: int) -> str:
    """Reduce the name of a segment to known words and short numbers.

    >>> plain_name("GTV-1", 1), plain_name("GTV Smith 2017-03-09", 2), plain_name("Smith", 3)
    ('GTV-1', 'GTV', 'structure 3')
    """
    dated = DATE_LIKE.search(name) is not None
    words = WORD.findall(name)
    known = [w for w in words if w.casefold() in VOCABULARY or (w.isdecimal() and not dated)]
    if known == words and name.isascii() and name.isprintable():
        return name
    return " ".join(known) if any(not w.isdecimal() for w in known) else f"structure {number}"


def contrast_word(text: str) -> str:
    """Keep of the contrast agent's text whether there was one.

    >>> contrast_word("Ultravist 370, Dr. Smith"), contrast_word("none"), contrast_word("")
    ('CONTRAST', 'NONE', '')
    """
    agent = text.strip().upper()
    if not agent:
        return ""
    return "NONE" if agent in NO_CONTRAST else "CONTRAST"


def code_item(item: Dataset) -> Dataset:
    """Keep of a coded concept its three parts, where a standard scheme explains them."""
    scheme = str(item.get("CodingSchemeDesignator", ""))
    known = scheme in STANDARD_SCHEMES and "CodeValue" in item
    kept = Dataset()
    kept.CodeValue = str(item.CodeValue) if known else UNKNOWN_CODE.value
    kept.CodingSchemeDesignator = scheme if known else UNKNOWN_CODE.scheme_designator
    kept.CodeMeaning = str(item.get("CodeMeaning", "")) if known else UNKNOWN_CODE.meaning
    return kept
