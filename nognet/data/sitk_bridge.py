"""Between our values and SimpleITK's images, one way and the other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nognet.types import Geometry, Matrix3, Volume


def to_sitk(array: NDArray[Any], geometry: Geometry) -> sitk.Image:
    """Make an image of an array ``(D, H, W)``."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    image.SetSpacing(geometry.spacing_mm)
    image.SetOrigin(geometry.origin_mm)
    image.SetDirection([value for row in geometry.direction for value in row])
    return image


def geometry_of(image: sitk.Image) -> Geometry:
    """Read where an image lies."""
    d = [float(v) for v in image.GetDirection()]
    direction: Matrix3 = ((d[0], d[1], d[2]), (d[3], d[4], d[5]), (d[6], d[7], d[8]))
    nx, ny, nz = image.GetSize()
    sx, sy, sz = image.GetSpacing()
    ox, oy, oz = image.GetOrigin()
    return Geometry((nx, ny, nz), (sx, sy, sz), (ox, oy, oz), direction)


def from_sitk(image: sitk.Image) -> Volume:
    """Make a `Volume` of an image."""
    return Volume(sitk.GetArrayFromImage(image), geometry_of(image))


def resample(
    image: sitk.Image, grid: Geometry, transform: sitk.Transform, *, fill: float
) -> NDArray[np.float32]:
    """Resample linearly onto a grid: ``out(p) = image(transform(p))``, float32 ``(D, H, W)``."""
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize(grid.size)
    resampler.SetOutputSpacing(grid.spacing_mm)
    resampler.SetOutputOrigin(grid.origin_mm)
    resampler.SetOutputDirection([value for row in grid.direction for value in row])
    resampler.SetTransform(transform)
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetDefaultPixelValue(fill)
    resampler.SetOutputPixelType(sitk.sitkFloat32)
    array: NDArray[np.float32] = sitk.GetArrayFromImage(resampler.Execute(image))
    return array


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """Let SimpleITK run on one thread, so that sums come in one order and give the same bits."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
