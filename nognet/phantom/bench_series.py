"""A large chest CT for measurements: drawn quickly, with noise, plain or compressed."""

from __future__ import annotations

import datetime as dt
import locale
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nognet.phantom.dicom import SeriesHeader, write_ct_series
from nognet.randomness import numpy_generator
from nognet.types import Geometry, Volume

if TYPE_CHECKING:
    import SimpleITK as sitk

MATRIX = 512
PIXEL_MM = 0.7
SPACING_MM = 1.0
NOISE_HU = 25.0
_NOISE_KEPT = 8
"""Slices of noise that are drawn; more are these in turn, shifted."""


def write_bench_series(folder: Path, *, slices: int, seed: int, matrix: int = MATRIX) -> list[Path]:
    """Write a chest of an ellipse with two lungs and noise as uncompressed DICOM.

    Args:
        folder: Made if needed.
        slices: How many.
        seed: Of the noise; equal arguments write equal files.
        matrix: Rows and columns.

    Returns:
        The files.
    """
    rng = numpy_generator(seed, "phantom", "bench")
    noise = rng.normal(0, NOISE_HU, (_NOISE_KEPT, matrix, matrix)).astype(np.float32)
    chest = _chest(matrix)
    array = np.stack([chest + np.roll(noise[z % _NOISE_KEPT], z, 0) for z in range(slices)])
    origin = (-(matrix - 1) / 2 * PIXEL_MM, -150.0 - (matrix - 1) / 2 * PIXEL_MM, -500.0)
    geometry = Geometry((matrix, matrix, slices), (PIXEL_MM, PIXEL_MM, SPACING_MM), origin)
    header = SeriesHeader(
        patient_id="PHANTOM-BENCH",
        patient_name="PHANTOM^BENCH",
        study_date=dt.date(2020, 1, 6),
        uid_source=f"bench/{seed}/{slices}/{matrix}",
        equipment={"Manufacturer": "PHANTOM", "ConvolutionKernel": "B50f"},
    )
    return write_ct_series(Volume(array, geometry), folder, header)


def compress_series(files: Sequence[Path], folder: Path) -> list[Path]:
    """Write the slices of a series again in lossless JPEG 2000, by SimpleITK.

    Returns:
        The new files, named as before.
    """
    import SimpleITK as sitk

    folder.mkdir(parents=True, exist_ok=True)
    reader, writer = sitk.ImageFileReader(), sitk.ImageFileWriter()
    reader.SetImageIO("GDCMImageIO")
    reader.LoadPrivateTagsOn()
    writer.SetImageIO("GDCMImageIO")
    writer.KeepOriginalImageUIDOn()
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG2000")
    written = []
    here = locale.setlocale(locale.LC_ALL)  # GDCM's encoder sets the process's locale to "C"
    try:
        for file in files:
            reader.SetFileName(str(file))
            written.append(folder / file.name)
            writer.SetFileName(str(written[-1]))
            writer.Execute(_sixteen_bits(reader.Execute()))
    finally:
        locale.setlocale(locale.LC_ALL, here)
    return written


def _sixteen_bits(image: sitk.Image) -> sitk.Image:
    """Turn HU, which the reader gives in 32 bits, into 16, all that JPEG 2000 can be read in."""
    import SimpleITK as sitk

    cast: sitk.Image = sitk.Cast(image, sitk.sitkInt16)
    for key in image.GetMetaDataKeys():
        cast.SetMetaData(key, image.GetMetaData(key))
    return cast


def _chest(matrix: int) -> NDArray[np.float32]:
    """Draw air, a body and two lungs in HU ``(H, W)``."""
    y, x = np.indices((matrix, matrix)) / matrix - 0.5
    hu = np.full((matrix, matrix), -1000.0, dtype=np.float32)
    hu[(x / 0.42) ** 2 + (y / 0.30) ** 2 < 1] = 40.0
    for side in (-0.19, 0.19):
        hu[((x - side) / 0.14) ** 2 + (y / 0.21) ** 2 < 1] = -850.0
    return hu
