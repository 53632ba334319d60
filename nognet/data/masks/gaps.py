"""Find slices that were left out when a nodule was drawn: as it is, it would be too small."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LARGEST_UNDRAWN_RUN = 3
"""Up to so many slices without anything between drawn ones are taken for skipped, not for air."""
LARGEST_STEP_MM = 15.0
"""Single slices one above the other, each without a neighbour, are one nodule up to this step."""


@dataclass(frozen=True)
class Pieces:
    """What was drawn, slice by slice: contours, or patches of a mask.

    Attributes:
        slices: Slice of each piece ``(N,)``.
        boxes: Extent of each in the plane ``(N, 4)``: low x, low y, high x, high y, in voxels.
        areas: Area of each ``(N,)``.
    """

    slices: NDArray[np.int_]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]


@dataclass(frozen=True)
class Gap:
    """Slices left out between two that were drawn, and the area that would lie on them."""

    slices: int
    missing_area: float


def find_gaps(pieces: Pieces, spacing_mm: float) -> tuple[Gap, ...]:
    """Find the slices left out between pieces that lie above each other.

    Pieces side by side say nothing about each other, and nodules far apart are no gap. A slice on
    which another piece was drawn was looked at, so that it counts as left out only between single
    slices.

    Args:
        pieces: What was drawn.
        spacing_mm: Distance of slices.
    """
    reach = max(LARGEST_UNDRAWN_RUN + 1, int(LARGEST_STEP_MM / spacing_mm))
    drawn_anywhere = np.unique(pieces.slices)
    gaps: list[Gap] = []
    for chain in _chains(pieces, reach):
        drawn, level = np.unique(pieces.slices[chain], return_inverse=True)
        area = np.bincount(level, weights=pieces.areas[chain])
        steps = np.diff(drawn)
        alone = np.concatenate([[True], steps > 1]) & np.concatenate([steps > 1, [True]])
        between = np.searchsorted(drawn_anywhere, drawn[1:], "left")
        between -= np.searchsorted(drawn_anywhere, drawn[:-1], "right")
        single = alone[:-1] & alone[1:] & (steps <= reach)
        skipped = single | ((between == 0) & (steps <= LARGEST_UNDRAWN_RUN + 1))
        for i in np.flatnonzero(skipped & (steps > 1)):
            empty = int(steps[i]) - 1
            gaps.append(Gap(empty, empty * float(min(area[i], area[i + 1]))))
    return tuple(gaps)


def _chains(pieces: Pieces, reach: int) -> list[NDArray[np.int_]]:
    """Group pieces that overlap in the plane and lie at most `reach` slices apart."""
    order = np.argsort(pieces.slices, kind="stable")
    ordered, boxes = pieces.slices[order], pieces.boxes[order]
    last = np.searchsorted(ordered, ordered + reach, side="right")
    chain = np.arange(len(order))
    for i in range(len(order)):
        near = slice(i + 1, int(last[i]))
        overlap = (boxes[near, :2] <= boxes[i, 2:]).all(axis=1)
        overlap &= (boxes[near, 2:] >= boxes[i, :2]).all(axis=1)
        linked = np.unique(chain[near][overlap])
        if linked.size:
            joined = np.append(linked, chain[i])
            chain[np.isin(chain, joined)] = joined.min()
    return [order[chain == number] for number in np.unique(chain)]
