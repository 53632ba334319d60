"""Read a CT stored as NIfTI, NRRD or MHA. Such files don't say that their values are HU."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nognet.data.ct.dicom_file import has_dicom_mark
from nognet.data.ct.folder import list_files
from nognet.data.ct.geometry_checks import plane_findings
from nognet.data.ct.hounsfield import judge_values, whole_numbers
from nognet.data.ct.limits import DEFAULT_MAX_VOXELS, check_voxels
from nognet.data.ct.meta_image import check_meta_image
from nognet.data.ct.nifti import (
    NIFTI_SUFFIXES,
    check_length,
    count_not_finite,
    has_orientation,
    placement_findings,
)
from nognet.data.ct.nrrd import nrrd_findings
from nognet.data.ct.pixels import Altered, clip_image, padding_findings
from nognet.data.findings import Finding, refuse_if_any
from nognet.data.sitk_bridge import geometry_of
from nognet.errors import GeometryError, SiteDataError
from nognet.types import Geometry, Volume

IMAGE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
DETACHED = re.compile(rb"^(?:ElementDataFile|data ?file)\s*[=:]\s*(.+?)\s*$", re.MULTILINE)
"""Where the header of a .mhd or .nhdr names the file of its values."""
DIRECTION_TOLERANCE = 1e-3
LEAST_SPACING_MM, LARGEST_SPACING_MM = 0.02, 50.0


def is_image_file(path: Path) -> bool:
    """Tell by name and content whether a file is NIfTI, NRRD or MHA."""
    return path.name.lower().endswith(IMAGE_SUFFIXES) and not has_dicom_mark(path)


def files_behind(path: Path) -> list[Path]:
    """List all files that a CT or a mask is read from: a .mhd or .nhdr has its values elsewhere.

    Raises:
        SiteDataError: there is nothing at that path.
    """
    files = list_files(path)
    if path.suffix.lower() not in (".mhd", ".nhdr") or not path.is_file():
        return files
    with path.open("rb") as file:
        found = DETACHED.search(file.read(65_536))
    named = path.parent / found[1].decode("utf-8", "replace") if found else path
    if named.is_file():
        return [path, *([named] if named != path else [])]
    return list_files(path.parent)  # a list or a pattern of files: any of them may hold values


def read_image_file(
    path: Path, max_voxels: int = DEFAULT_MAX_VOXELS
) -> tuple[Volume, tuple[Finding, ...]]:
    """Read an image in HU, padding set to -1024, with all that was found on it.

    Raises:
        GeometryError: its geometry may not be trusted, or it is no volume.
        SiteDataError: it can't be read, is too large, or holds no HU.
    """
    info = _information(path, max_voxels)
    try:
        image = sitk.ReadImage(str(path))
    except (RuntimeError, MemoryError) as err:
        raise SiteDataError(
            f"{path}: the image can't be read to its end", code="truncated"
        ) from err
    if info.GetDimension() == 4:
        image = image[:, :, :, 0]
    geometry = geometry_of(image)
    findings = tuple(_geometry_findings(path, geometry))
    refuse_if_any(findings, str(path))
    view: NDArray[np.generic] = sitk.GetArrayViewFromImage(image)
    _check_finite(path, view)
    if float(view.min()) >= 0 and float(view.max()) <= 255:
        raise SiteDataError(
            f"{path}: values from {float(view.min()):g} to {float(view.max()):g} are no Hounsfield "
            "units",
            code="eight-bit",
        )
    hu, altered = _hounsfield(view, path)
    odd = judge_values(hu, declared=False)
    findings = (*findings, *padding_findings(altered), *([odd] if odd else []))
    if odd is not None and odd.severity == "refused":
        raise SiteDataError(f"{path}: {odd.message}", code=odd.code)
    return Volume(hu, geometry), findings


def _information(path: Path, max_voxels: int) -> sitk.ImageFileReader:
    """Read the header alone, and refuse what is too large or no volume before its values."""
    check_meta_image(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as err:
        raise not_readable(path, err) from err
    size, components = reader.GetSize(), reader.GetNumberOfComponents()
    check_voxels(str(path), size, max_voxels)
    volumes = size[3:] in ((), (1,))
    if len(size) < 3 or not volumes or components != 1:
        raise GeometryError(
            f"{path}: {len(size)} dimensions {size} with {components} values a voxel; expected 3 "
            "with 1",
            code="not-ct",
        )
    if min(size[:3]) < 2:
        raise GeometryError(f"{path}: {size} voxels are no volume", code="single-slice")
    if path.name.lower().endswith(NIFTI_SUFFIXES):
        check_length(path, math.prod(size))
    return reader


def not_readable(path: Path, err: RuntimeError) -> SiteDataError:
    """Say why ITK can't read an image's header."""
    if "orthonormal" in str(err):
        message = f"{path}: its axes are not perpendicular (sheared, or a damaged header)"
        return GeometryError(message, code="sheared")
    return SiteDataError(f"{path}: can't be read as an image", code="truncated")


def _geometry_findings(path: Path, geometry: Geometry) -> Iterator[Finding]:
    axes = np.asarray(geometry.direction)
    numbers = np.array([*geometry.spacing_mm, *geometry.origin_mm, *axes.ravel()])
    if not np.isfinite(numbers).all() or min(geometry.spacing_mm) <= 0:
        message = f"spacing {geometry.spacing_mm} mm, origin {geometry.origin_mm} mm"
        yield Finding("no-position", "refused", f"{message}: not a place in the world")
        return
    if np.abs(axes.T @ axes - np.eye(3)).max() > DIRECTION_TOLERANCE:
        message = f"its axes are not perpendicular unit vectors: {np.round(axes, 4).tolist()}"
        yield Finding("sheared", "refused", message)
        return
    if path.name.lower().endswith(NIFTI_SUFFIXES) and not has_orientation(path):
        message = "neither qform nor sform: where the image lies, and which way, is not known"
        yield Finding("no-position", "warning", message)
    if (
        not LEAST_SPACING_MM
        <= min(geometry.spacing_mm)
        <= max(geometry.spacing_mm)
        <= (LARGEST_SPACING_MM)
    ):
        message = f"voxels of {geometry.spacing_mm} mm are no CT's: wrong units?"
        yield Finding("bad-tags", "refused", message)
    if path.name.lower().endswith(NIFTI_SUFFIXES):
        yield from placement_findings(path, geometry)
    yield from nrrd_findings(path)
    yield from plane_findings(axes[:, 2])


def _check_finite(path: Path, view: NDArray[np.generic]) -> None:
    unknown = 0
    if view.dtype.kind == "f":
        unknown = sum(int(p.size - np.count_nonzero(np.isfinite(p))) for p in view)
    if path.name.lower().endswith(NIFTI_SUFFIXES):
        unknown += count_not_finite(path, view.size)
    if unknown:
        raise SiteDataError(
            f"{path}: {unknown} of {view.size} values are not finite; write -1024 HU where "
            "nothing was measured",
            code="not-finite",
        )


def _hounsfield(
    view: NDArray[np.generic], path: Path
) -> tuple[NDArray[np.int16] | NDArray[np.floating], list[Altered]]:
    """Clip plane by plane into the one array that is kept."""
    whole = view.dtype.kind in "iu"
    hu = np.empty(view.shape, dtype=np.int16 if whole else np.float32)
    altered = []
    for plane, out in zip(view, hu, strict=True):
        values = plane.astype(np.float64)
        altered.append(clip_image(values, str(path)))
        out[...] = values
    return (hu if whole else whole_numbers(hu)), altered
