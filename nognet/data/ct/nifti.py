"""What ITK's reader of NIfTI hides: values not finite or absent, and a missing orientation.

ITK silently turns NaN into 0. 0 HU is water: a CT that marks what lies outside its field of view
by NaN would be read as if the patient lay in water. So the stored values themselves are looked at.
Likewise ITK fills up with 0 what is missing from a file that was cut short.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from nognet.data.findings import Finding
from nognet.errors import SiteDataError
from nognet.types import Geometry

NIFTI_SUFFIXES = (".nii", ".nii.gz")
_GZIP_MARK = b"\x1f\x8b"
_FLOATS = {16: "f4", 64: "f8"}
"""NIfTI's data types of real floating-point numbers."""
_CHUNK_VALUES = 1 << 19
_FIRST_KIND = 348
_UNITS_MM = {1: 1000.0, 2: 1.0, 3: 0.001}
"""NIfTI's units of length: metre, millimetre, micrometre."""
PLACEMENT_TOLERANCE_MM = 0.5
"""Numbers of 4 bytes, and quaternions made of them, move a corner by less than this."""
# size of the header -> (format and offset of datatype, of vox_offset, of qform_ and sform_code)
_LAYOUTS = {
    348: (("h", 70), ("f", 108), ("hh", 252)),
    540: (("h", 12), ("q", 168), ("ii", 344)),
}


def count_not_finite(path: Path, n_values: int) -> int:
    """Count the NaN and infinite ones of the first `n_values` values; 0 where none can be.

    Raises:
        SiteDataError: the file can't be read or decompressed.
    """
    try:
        with _opened(path) as file:
            found = _layout(file.read(540))
            if found is None or found[1][0] not in _FLOATS:
                return 0
            order, (datatype, start, *_) = found
            kind = np.dtype(order + _FLOATS[int(datatype)])
            file.seek(int(start))
            return _count(file, kind, n_values)
    except (OSError, EOFError, zlib.error, ValueError, OverflowError) as err:
        raise SiteDataError(f"{path}: can't be read to its end", code="truncated") from err


def check_length(path: Path, n_values: int) -> None:
    """Refuse a file that ends before its `n_values` values do, which ITK would fill up with 0.

    Raises:
        SiteDataError: code ``truncated``.
    """
    try:
        with _opened(path) as file:
            head = file.read(540)
            found = _layout(head)
            if found is None:
                return
            order, (_, start, *_) = found
            is_first = struct.unpack_from(order + "i", head)[0] == 348
            bits = struct.unpack_from(order + "h", head, 72 if is_first else 14)[0]
            needed = int(start) + n_values * bits // 8
            enough = _unpacked_bytes(path, file, needed) >= needed
    except (OSError, EOFError, zlib.error, ValueError, OverflowError) as err:
        raise SiteDataError(f"{path}: can't be read to its end", code="truncated") from err
    if not enough:
        raise SiteDataError(f"{path}: the file ends before its image does", code="truncated")


def _unpacked_bytes(path: Path, file: BinaryIO | gzip.GzipFile, wanted: int) -> int:
    """Count the bytes up to `wanted`; a gzip of one member tells their number at its end."""
    if not isinstance(file, gzip.GzipFile):
        return path.stat().st_size
    with path.open("rb") as packed:
        packed.seek(-4, 2)
        if struct.unpack("<I", packed.read(4))[0] == wanted % 2**32:
            return wanted
    seen = file.tell()
    while seen < wanted and (raw := file.read(1 << 20)):
        seen += len(raw)
    return seen


def has_orientation(path: Path) -> bool:
    """Tell whether the header says where the image lies, by qform or sform.

    Raises:
        SiteDataError: the file can't be read or decompressed.
    """
    try:
        with _opened(path) as file:
            found = _layout(file.read(540))
    except (OSError, EOFError, zlib.error) as err:
        raise SiteDataError(f"{path}: can't be read", code="truncated") from err
    return found is None or any(code > 0 for code in found[1][2:])


def placement_findings(path: Path, geometry: Geometry) -> Iterator[Finding]:
    """Hold where the image was put against what qform and sform each say, where they are set.

    ITK takes one of them and may leave a spacing, a shear or a flip of the other aside without a
    word; other readers take the other one.

    Raises:
        SiteDataError: the file can't be read or decompressed.
    """
    try:
        with _opened(path) as file:
            head = file.read(540)
    except (OSError, EOFError, zlib.error) as err:
        raise SiteDataError(f"{path}: can't be read", code="truncated") from err
    found = _layout(head)
    if found is None or struct.unpack_from(found[0] + "i", head)[0] != _FIRST_KIND:
        return
    order, (_, _, qform, sform) = found
    scale = _UNITS_MM.get(head[123] & 7, 1.0)
    index = np.array(np.meshgrid(*([0, n - 1] for n in geometry.size))).reshape(3, -1).T
    there = geometry.index_to_world(index.astype(np.float64)) * (-1, -1, 1)  # NIfTI is RAS
    for code, name, matrix in (
        (qform, "qform", _qform(order, head)),
        (sform, "sform", np.array(struct.unpack_from(order + "12f", head, 280)).reshape(3, 4)),
    ):
        away = np.abs((index @ matrix[:, :3].T + matrix[:, 3]) * scale - there).max()
        if code > 0 and not away <= PLACEMENT_TOLERANCE_MM:
            message = f"{name} puts voxels up to {away:.4g} mm away from where they were read"
            both = "qform and sform differ" if qform > 0 and sform > 0 else "it is no rigid grid"
            yield Finding("bad-tags", "refused", f"{message}: {both}")


def _qform(order: str, head: bytes) -> NDArray[np.float64]:
    """Work out the 3 x 4 matrix of the quaternion (nifti1.h, method 2)."""
    qfac, *spacing = struct.unpack_from(order + "4f", head, 76)
    b, c, d, *offset = struct.unpack_from(order + "6f", head, 256)
    a = np.sqrt(max(0.0, 1.0 - (b * b + c * c + d * d)))
    turned = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    steps = np.array(spacing) * (1, 1, -1 if qfac < 0 else 1)
    return np.column_stack([turned * steps, offset])


def _count(file: BinaryIO, kind: np.dtype[np.floating], n_values: int) -> int:
    left, unknown = n_values, 0
    while left > 0 and (raw := file.read(min(left, _CHUNK_VALUES) * kind.itemsize)):
        values = np.frombuffer(raw[: len(raw) // kind.itemsize * kind.itemsize], dtype=kind)
        unknown += int(values.size - np.count_nonzero(np.isfinite(values)))
        left -= max(1, values.size)
    return unknown


def _layout(head: bytes) -> tuple[str, tuple[float, ...]] | None:
    """Read byte order, datatype, vox_offset, qform_code and sform_code; None for no NIfTI."""
    for order in ("<", ">"):
        layout = _LAYOUTS.get(struct.unpack_from(order + "i", head)[0]) if head[3:] else None
        if layout is None or len(head) < 348:
            continue
        parts = (struct.unpack_from(order + kind, head, at) for kind, at in layout)
        return order, tuple(value for part in parts for value in part)
    return None


def _opened(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP_MARK
    return cast("BinaryIO", gzip.open(path, "rb")) if packed else path.open("rb")
