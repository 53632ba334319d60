"""Open a mask file, whatever it was stored as."""

from __future__ import annotations

import warnings
from pathlib import Path

from nognet.data.ct.header import has_dicom_mark, read_dataset
from nognet.data.ct.image import is_image_file
from nognet.data.ct.series import list_files
from nognet.data.ct.tags import text_of
from nognet.data.masks.image_file import open_label_image
from nognet.data.masks.rtstruct import open_structures
from nognet.data.masks.seg import open_seg
from nognet.data.masks.source import MaskFile
from nognet.errors import NognetError, SiteDataError

MASK_MODALITIES = ("SEG", "RTSTRUCT")


def open_mask(path: Path, *, max_voxels: int) -> MaskFile:
    """Open a mask file; of contours and SEG nothing is laid out yet.

    Args:
        path: DICOM SEG, RTSTRUCT, NIfTI, NRRD or MHA; or a folder that holds
            one of them, beside a CT or not.
        max_voxels: A file that claims more is refused before anything is built.

    Raises:
        GeometryError: it makes no volume.
        SiteDataError: it is no mask, claims too much, is damaged or can't be read.
    """
    path = single_file(path)
    if is_image_file(path):
        return open_label_image(path, max_voxels=max_voxels)
    data, _ = read_dataset(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd values are judged by us, tag by tag
        modality = text_of(data, "Modality")
        if modality == "SEG":
            return open_seg(path, data, max_voxels=max_voxels)
        if modality == "RTSTRUCT":
            return open_structures(path, data)
    raise SiteDataError(
        f"{path}: modality '{modality}' is no mask; expected DICOM SEG, RTSTRUCT, NIfTI, NRRD or "
        "MHA",
        code="mask-geometry",
    )


def single_file(path: Path) -> Path:
    """Find the one file at or below a path, or the one mask among other files.

    Raises:
        SiteDataError: there are several, or none.
    """
    files = list_files(path)
    if len(files) == 1:
        return files[0]
    drawn = [file for file in files if modality_of(file) in MASK_MODALITIES]
    masks = drawn or [file for file in files if is_image_file(file)]
    if len(masks) == 1:
        return masks[0]
    raise SiteDataError(
        f"{path}: {len(files)} files, {len(masks) or 'none'} of which may be a mask; give the path "
        "of the one that holds it",
        code="mask-segment",
    )


def modality_of(path: Path) -> str:
    """Read the modality of a DICOM file; empty where it is none, or damaged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return text_of(read_dataset(path)[0], "Modality") if has_dicom_mark(path) else ""
        except (NognetError, OSError):
            return ""
