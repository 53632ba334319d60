"""Values of a NIfTI file that are not finite, which ITK's reader silently turns into 0.

0 HU is water: a CT that marks what lies outside its field of view by NaN would be read as if the
patient lay in water. So the stored values themselves are looked at.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

NIFTI_SUFFIXES = (".nii", ".nii.gz")
_GZIP_MARK = b"\x1f\x8b"
_FLOATS = {16: "f4", 64: "f8"}
"""NIfTI's data types of real floating-point numbers."""
# size of the header -> (format and offset of datatype, format and offset of vox_offset)
_LAYOUTS = {348: (("h", 70), ("f", 108)), 540: (("h", 12), ("q", 168))}


def count_not_finite(path: Path) -> int:
    """Count the NaN and infinite values stored in a NIfTI file; 0 where none can be.

    Raises:
        OSError: the file can't be read or decompressed.
    """
    with _opened(path) as file:
        head = file.read(540)
        for order in ("<", ">"):
            layout = _LAYOUTS.get(struct.unpack_from(order + "i", head)[0]) if head[3:] else None
            if layout is None:
                continue
            datatype, start = (struct.unpack_from(order + kind, head, at)[0] for kind, at in layout)
            if datatype not in _FLOATS:
                return 0
            file.seek(int(start))
            raw = file.read()
            kind = np.dtype(order + _FLOATS[datatype])
            values = np.frombuffer(raw[: len(raw) // kind.itemsize * kind.itemsize], dtype=kind)
            return int(values.size - np.count_nonzero(np.isfinite(values)))
    return 0


def _opened(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP_MARK
    return cast("BinaryIO", gzip.open(path, "rb")) if packed else path.open("rb")
