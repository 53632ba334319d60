"""Masks as NIfTI, NRRD or MHA: binary, or a map of whole-numbered labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nognet.data.sitk_bridge import from_sitk
from nognet.errors import GeometryError, SiteDataError
from nognet.types import Volume


def read_mask_image(path: Path, segment: str | None) -> Volume:
    """Read one label of a mask file on the file's own grid, ``(D, H, W)`` uint8 in {0, 1}.

    Args:
        path: NIfTI, NRRD or MHA.
        segment: Number of the label; may be left out where the mask has only one.

    Raises:
        GeometryError: the file is not a 3D scalar image.
        SiteDataError: the mask is grey, empty, or doesn't hold that label.
    """
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as err:
        raise SiteDataError(f"{path}: can't be read as an image", code="truncated") from err
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise GeometryError(f"{path}: not a 3D image of one value a voxel", code="mask-geometry")
    volume = from_sitk(image)
    return Volume(select_label(volume.array, segment, str(path)), volume.geometry)


def select_label(values: NDArray[np.generic], segment: str | None, where: str) -> NDArray[np.uint8]:
    """Pick one label of an array as a {0, 1} mask of the same shape.

    Raises:
        SiteDataError: the array is grey, empty, or doesn't hold that label.
    """
    labels = np.unique(values)
    if not np.isfinite(labels).all():
        raise SiteDataError(f"{where}: values are not finite", code="mask-not-binary")
    labels = labels[labels != 0]
    if labels.size == 0:
        raise SiteDataError(f"{where}: the mask is empty", code="mask-empty")
    if segment is None:
        if labels.size > 1:
            raise SiteDataError(
                f"{where}: not binary: {labels.size} values besides 0 ({_some(labels)}); give the "
                "label in the column 'segment', or save the mask as 0 and 1",
                code="mask-not-binary",
            )
        return np.asarray(values != 0, dtype=np.uint8)
    try:
        number = int(segment)
    except ValueError as err:
        raise SiteDataError(
            f"{where}: segment '{segment}' is a name, but a mask of this format has numbers only "
            f"({_some(labels)})",
            code="mask-segment",
        ) from err
    if number == 0 or number not in labels:
        raise SiteDataError(
            f"{where}: no label {number}; it holds {_some(labels)}", code="mask-segment"
        )
    return np.asarray(values == number, dtype=np.uint8)


def _some(labels: NDArray[np.generic]) -> str:
    shown = ", ".join(f"{label:g}" for label in labels[:8].astype(float))
    return shown + (" ..." if labels.size > 8 else "")
