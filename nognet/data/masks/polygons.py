"""Fill polygons on a slice, by a rasteriser of our own.

A voxel belongs to a polygon when its centre lies inside by the even-odd rule. Points on an edge
follow the half-open rule of scan conversion, so that two structures sharing an edge share no voxel
and leave none out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COORDINATE_DECIMALS = 6
NESTED_FRACTION = 0.9
"""A contour that lies inside another to this part is its hole, drawn a little over the edge."""


@dataclass(frozen=True)
class Polygon:
    """A closed polygon on a slice.

    Attributes:
        xy: Vertices ``(N, 2)`` in voxels.
        exclusive: It was declared to turn inside into outside whatever it lies on (DICOM's
            CLOSEDPLANAR_XOR).
    """

    xy: NDArray[np.float64]
    exclusive: bool = False


def fill_slice(
    polygons: Sequence[Polygon], width: int, height: int
) -> tuple[NDArray[np.uint8], bool]:
    """Fill all polygons of one slice: ``(height, width)`` uint8, and whether some cross.

    A contour within a contour is a hole, one within the hole an island, as the even-odd rule has
    it. A contour given twice counts once; contours that cross each other are taken together.
    """
    canvas = np.zeros((height, width), dtype=np.uint8)
    crossing = False
    plain = _without_repeats([p.xy for p in polygons if not p.exclusive])
    filled = sorted((_fill(xy, width, height) for xy in plain), key=_count, reverse=True)
    for i, polygon in enumerate(filled):
        crosses = any(_crosses(polygon, larger) for larger in filled[:i])
        crossing = crossing or crosses
        if crosses:
            canvas |= polygon
        else:
            canvas ^= polygon
    for xy in (p.xy for p in polygons if p.exclusive):
        canvas ^= _fill(xy, width, height)
    return canvas, crossing


def _count(mask: NDArray[np.uint8]) -> int:
    return int(np.count_nonzero(mask))


def _crosses(smaller: NDArray[np.uint8], larger: NDArray[np.uint8]) -> bool:
    shared = _count(smaller & larger)
    return 0 < shared < NESTED_FRACTION * _count(smaller)


def _without_repeats(polygons: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Keep one of polygons with the same vertices, wherever they start and whichever way round."""
    kept: dict[bytes, NDArray[np.float64]] = {}
    for xy in polygons:
        rounded = np.round(xy, COORDINATE_DECIMALS) + 0.0  # no minus zero
        kept.setdefault(rounded[np.lexsort(rounded.T)].tobytes(), xy)
    return list(kept.values())


def _fill(xy: NDArray[np.float64], width: int, height: int) -> NDArray[np.uint8]:
    # rounded, so that a vertex drawn on a voxel centre is on it in spite of the arithmetic
    toggles = np.zeros((height, width + 1), dtype=np.uint8)
    _toggle(toggles, np.round(xy, COORDINATE_DECIMALS))
    inside: NDArray[np.uint8] = np.bitwise_xor.accumulate(toggles, axis=1)[:, :-1]
    return inside


def _toggle(toggles: NDArray[np.uint8], polygon_xy: NDArray[np.float64]) -> None:
    """Flip, on each row ``y`` of ``(H, W + 1)``, the first pixel centre right of each crossing."""
    rows, columns = toggles.shape[0], toggles.shape[1] - 1
    start, end = polygon_xy, np.roll(polygon_xy, -1, axis=0)
    low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    first, last = np.ceil(low).astype(np.int64), np.ceil(high).astype(np.int64)  # [low, high)
    first, last = np.clip(first, 0, rows), np.clip(last, 0, rows)
    counts = last - first
    edge = np.repeat(np.arange(len(counts)), counts)
    y = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    x0, y0, x1, y1 = start[edge, 0], start[edge, 1], end[edge, 0], end[edge, 1]
    crossing = np.round(x0 + (y - y0) * (x1 - x0) / (y1 - y0), COORDINATE_DECIMALS)
    x = np.clip(np.ceil(crossing), 0, columns).astype(np.int64)
    np.bitwise_xor.at(toggles, (y, x), np.uint8(1))
