"""Is an image file a CT or a mask? NIfTI, NRRD and MHA don't say, so its values have to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nognet.data.ct.image_file import not_readable
from nognet.data.ct.limits import check_voxels
from nognet.data.ct.meta_image import check_meta_image
from nognet.errors import GeometryError

ImageKind = Literal["ct", "mask"]

CERTAINLY_HU = -100.0
"""Labels are no lower than this; fat, lung and air are."""
FLAT_FRACTION = 0.5
"""Part of equal neighbours in a map of labels; noise leaves a CT almost none."""
MOSTLY_ZERO = 0.95
NAMED_LIKE_A_MASK = re.compile(
    r"mask|seg|label|lesion|nodule|tumou?r|annot|contour|roi(?![a-z])", re.IGNORECASE
)


@dataclass(frozen=True)
class ImageGuess:
    """What an image file was taken for.

    Attributes:
        kind: ``ct`` or ``mask``.
        reason: Why, where it is a guess; empty where the values leave no doubt.
        size: Voxels along x, y, z.
    """

    kind: ImageKind
    reason: str
    size: tuple[int, int, int]


def guess_kind(path: Path, *, max_voxels: int) -> ImageGuess:
    """Tell by the values whether an image file holds a CT or a mask.

    Raises:
        GeometryError: it is no 3D image of one value a voxel.
        SiteDataError: it can't be read, or claims too many voxels.
    """
    check_meta_image(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        size, components = reader.GetSize(), reader.GetNumberOfComponents()
        if len(size) < 3 or size[3:] not in ((), (1,)) or components != 1:
            raise GeometryError(
                f"{path}: {len(size)} dimensions {size} with {components} values a voxel; "
                "expected 3 with 1",
                code="not-ct",
            )
        check_voxels(str(path), size, max_voxels)
        image = reader.Execute()  # kept, for the view below is of its memory
        kind, reason = _guess(sitk.GetArrayViewFromImage(image), path.name)
    except RuntimeError as err:
        raise not_readable(path, err) from err
    return ImageGuess(kind, reason, (size[0], size[1], size[2]))


def _guess(array: NDArray[np.generic], name: str) -> tuple[ImageKind, str]:
    """Decide on ``(D, H, W)`` of any number type."""
    values = np.asarray(array)
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)) or low < CERTAINLY_HU:
        return "ct", ""
    if low >= 0 and high <= 1:
        return "mask", ""
    whole = values.dtype.kind in "iu" or bool((np.round(values) == values).all())
    if whole and low >= 0 and _flatness(values) >= FLAT_FRACTION:
        return "mask", ""
    zero = 1 - np.count_nonzero(values) / values.size
    if zero >= MOSTLY_ZERO:
        return "mask", f"taken for a mask: {100 * zero:.1f} % of its voxels are 0"
    if NAMED_LIKE_A_MASK.search(name):
        return "mask", "taken for a mask: by its name"
    return "ct", f"taken for a CT: values from {low:g} to {high:g} that change from voxel to voxel"


def _flatness(values: NDArray[np.generic]) -> float:
    """Part of equal ones among neighbours along x that aren't both 0."""
    left, right = values[..., :-1], values[..., 1:]
    something = (left != 0) | (right != 0)
    count = int(np.count_nonzero(something))
    return float(np.count_nonzero(something & (left == right)) / count) if count else 1.0
