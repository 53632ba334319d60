"""Masks as NIfTI, NRRD or MHA: binary, or a map of whole-numbered labels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nognet.data.ct.meta_image import check_meta_image
from nognet.data.ct.nifti import NIFTI_SUFFIXES, check_length
from nognet.data.findings import Finding
from nognet.data.masks.grey import HIGHEST_LABEL, greyness
from nognet.data.masks.grid import Block, check_orthogonal, place_on
from nognet.data.masks.source import Identity
from nognet.data.sitk_bridge import geometry_of
from nognet.errors import GeometryError, SiteDataError
from nognet.types import Geometry

_FORMATS = {".nii": "NIFTI", ".gz": "NIFTI", ".nrrd": "NRRD", ".nhdr": "NRRD"}
_SLICER_SEGMENT = re.compile(r"^(Segment\d+)_LabelValue$")


@dataclass(frozen=True)
class LabelImage:
    """A mask file, cropped to what is not 0 with a rim of one voxel.

    Attributes:
        path: The file.
        identity: Format and the grid of the whole file.
        values: ``(d, h, w)``, whole numbers unless grey.
        geometry: Where `values` lie.
        names: Names by label (3D Slicer writes them), empty ones elsewhere; none where empty.
        grey: In words why the values are no labels; empty where they are.
    """

    path: Path
    identity: Identity
    values: NDArray[Any]
    geometry: Geometry
    names: Mapping[int, str]
    grey: str

    def on(self, number: int, grid: Geometry) -> tuple[Block, tuple[Finding, ...]]:
        """Lay one label on a grid.

        Raises:
            GeometryError: it doesn't lie on that grid.
            SiteDataError: the mask is grey, or doesn't hold that label.
        """
        if self.grey:
            raise grey_error(self)
        try:
            label = np.asarray(self.values == number, dtype=np.uint8)
            return place_on(label, self.geometry, grid)
        except SiteDataError as err:
            raise type(err)(f"{self.path}: {err}", code=err.code) from err

    def extent_on(self, grid: Geometry) -> tuple[Finding, ...]:
        """Check that all that is not 0 lies on a grid, whatever the values are.

        Raises:
            GeometryError: it doesn't.
            SiteDataError: nothing of it is left on that grid.
        """
        try:
            filled = np.asarray(self.values != 0, dtype=np.uint8)
            return place_on(filled, self.geometry, grid)[1]
        except SiteDataError as err:
            raise type(err)(f"{self.path}: {err}", code=err.code) from err


def grey_error(image: LabelImage) -> SiteDataError:
    """Say that a mask is grey."""
    return SiteDataError(
        f"{image.path}: not binary: {image.grey}; one of its values alone would give a nodule of a "
        "wrong size; save the mask as 0 and 1",
        code="mask-not-binary",
    )


def open_label_image(path: Path, *, max_voxels: int) -> LabelImage:
    """Read a mask file.

    Raises:
        GeometryError: the file is not a 3D scalar image with axes at right angles.
        SiteDataError: it claims too many voxels or can't be read.
    """
    try:
        image = _read(path, max_voxels)
    except RuntimeError as err:
        raise SiteDataError(f"{path}: can't be read as an image", code="truncated") from err
    whole = geometry_of(image)
    try:
        check_orthogonal(whole)
    except GeometryError as err:
        raise GeometryError(f"{path}: {err}", code=err.code) from err
    values, geometry = _cropped(sitk.GetArrayViewFromImage(image), whole)
    grey = greyness(values)
    values = values if grey else _as_labels(values)
    labels = [int(v) for v in np.unique(values[values != 0])] if not grey else []
    slicer = _slicer_names(image)
    names = {label: slicer.get(label, "") for label in labels}
    modality = _FORMATS.get(path.suffix.lower(), "MHA")
    identity = Identity(modality, slices=whole.size[2], geometry=whole)
    return LabelImage(path, identity, values, geometry, names, grey)


def _read(path: Path, max_voxels: int) -> sitk.Image:
    check_meta_image(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    size = reader.GetSize()
    count = int(np.prod([int(n) for n in size], dtype=object)) * reader.GetNumberOfComponents()
    if count > max_voxels:
        raise SiteDataError(
            f"{path}: claims {count:,} voxels, at most {max_voxels:,} are allowed "
            "(preparation.max_volume_voxels)",
            code="too-large",
        )
    three = len(size) == 3 or (len(size) == 4 and size[3] == 1)  # some tools add an axis of one
    if not three or reader.GetNumberOfComponents() != 1:
        raise GeometryError(
            f"{path}: {len(size)} dimensions with {reader.GetNumberOfComponents()} values a voxel; "
            "a mask has 3 with 1; export it as one label map",
            code="mask-geometry",
        )
    if path.name.lower().endswith(NIFTI_SUFFIXES):
        check_length(path, count)
    image: sitk.Image = reader.Execute()
    flat: sitk.Image = image if len(size) == 3 else image[:, :, :, 0]
    return flat


def _cropped(values: NDArray[Any], geometry: Geometry) -> tuple[NDArray[Any], Geometry]:
    """Crop to what is not 0, with a rim of zeros; one voxel where all is 0."""
    filled = values != 0
    spans = [np.flatnonzero(filled.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if not spans[0].size:
        return np.zeros((1, 1, 1), dtype=np.uint8), _moved(geometry, np.zeros(3), (1, 1, 1))
    box = tuple(slice(int(span[0]), int(span[-1]) + 1) for span in spans)
    cropped = np.pad(values[box], 1)
    first = np.array([span[0] - 1.0 for span in spans])[::-1]
    return cropped, _moved(geometry, first, cropped.shape)


def _moved(geometry: Geometry, first_xyz: NDArray[np.float64], shape: tuple[int, ...]) -> Geometry:
    x, y, z = geometry.index_to_world(first_xyz).tolist()
    depth, height, width = shape
    return Geometry((width, height, depth), geometry.spacing_mm, (x, y, z), geometry.direction)


def _as_labels(values: NDArray[Any]) -> NDArray[Any]:
    """Turn floating-point labels into whole numbers; a single value below 1 becomes 1."""
    if values.dtype.kind in "ui":
        return values
    whole = np.clip(np.round(values), 1, HIGHEST_LABEL)
    return np.where(values != 0, whole, 0).astype(np.int64)


def _slicer_names(image: sitk.Image) -> dict[int, str]:
    """Read names of labels as 3D Slicer writes them into the header of a NRRD."""
    names: dict[int, str] = {}
    for key in image.GetMetaDataKeys():
        found = _SLICER_SEGMENT.match(key)
        name_key = f"{found[1]}_Name" if found else ""
        if found and image.HasMetaDataKey(name_key) and image.GetMetaData(key).isdecimal():
            names[int(image.GetMetaData(key))] = image.GetMetaData(name_key).strip()
    return names
