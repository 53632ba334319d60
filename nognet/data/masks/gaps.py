"""Find slices that were left out when a nodule was drawn: as it is, it would be too small."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LARGEST_UNDRAWN_RUN = 3
"""Up to so many slices without anything between drawn ones are taken for skipped, not for air."""
LARGEST_STEP_MM = 15.0
"""Single slices one above the other, each without a neighbour, are one nodule up to this step."""


def undrawn_slices(
    slices: Sequence[int], boxes: NDArray[np.float64], spacing_mm: float
) -> tuple[int, ...]:
    """Count the slices left out in each gap between pieces that lie above each other.

    Pieces side by side say nothing about each other, and nodules far apart are no gap. A slice on
    which another piece was drawn was looked at, so that it counts as left out only between single
    slices.

    Args:
        slices: Slice of each piece (a contour, or a patch of a mask).
        boxes: Its extent in the plane ``(N, 4)``: low x, low y, high x, high y, in voxels.
        spacing_mm: Distance of slices.
    """
    levels = np.asarray(slices)
    reach = max(LARGEST_UNDRAWN_RUN + 1, int(LARGEST_STEP_MM / spacing_mm))
    levels_drawn = np.unique(levels)
    gaps: list[int] = []
    for chain in _chains(levels, boxes, reach):
        drawn = np.unique(levels[chain])
        steps = np.diff(drawn)
        alone = np.concatenate([[True], steps > 1]) & np.concatenate([steps > 1, [True]])
        between = np.searchsorted(levels_drawn, drawn[1:], "left")
        between -= np.searchsorted(levels_drawn, drawn[:-1], "right")
        single = alone[:-1] & alone[1:] & (steps <= reach)
        skipped = (steps > 1) & (single | ((between == 0) & (steps <= LARGEST_UNDRAWN_RUN + 1)))
        gaps += [int(step) - 1 for step in steps[skipped]]
    return tuple(gaps)


def _chains(
    levels: NDArray[np.int_], boxes: NDArray[np.float64], reach: int
) -> list[NDArray[np.int_]]:
    """Group pieces that overlap in the plane and lie at most `reach` slices apart."""
    order = np.argsort(levels, kind="stable")
    ordered, placed = levels[order], boxes[order]
    last = np.searchsorted(ordered, ordered + reach, side="right")
    chain = np.arange(len(order))
    for i in range(len(order)):
        near = slice(i + 1, int(last[i]))
        overlap = (placed[near, :2] <= placed[i, 2:]).all(axis=1)
        overlap &= (placed[near, 2:] >= placed[i, :2]).all(axis=1)
        linked = np.unique(chain[near][overlap])
        if linked.size:
            joined = np.append(linked, chain[i])
            chain[np.isin(chain, joined)] = joined.min()
    return [order[chain == number] for number in np.unique(chain)]
