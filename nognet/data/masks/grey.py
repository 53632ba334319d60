"""Tell a map of labels from a grey mask: one whose values were interpolated, averaged or summed.

A label's number is a name, so it says nothing about its neighbours' numbers: inside a label all
neighbours are equal, and at its border they are higher or lower by chance. In a mask that was
resampled, smoothed, or summed over several readers, values instead rise from 0 to a peak, so that
nearly every voxel below the peak has a lower *and* a higher neighbour, and the peak is shielded
from the background by values in between. Real label maps of organs have 0.4 to 16 % of such voxels,
interpolated masks of any size, factor or kernel 90 to 100 %.

One label of a grey mask is a nodule of a wrong size, mostly far too small; hence the refusal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

RAMP_FRACTION = 0.5
"""From this part of voxels between a lower and a higher neighbour on, a mask is grey."""
EXPOSED_FRACTION = 0.5
"""A peak that borders on the background to this part along every axis is a label of its own."""
WHOLE_TOLERANCE = 1e-3
HIGHEST_LABEL = 2**31 - 1
_SLAB = 32
"""Slices looked at together, so that little memory is needed."""


def greyness(values: NDArray[Any]) -> str:
    """Say in words why values ``(D, H, W)`` are no labels; empty where they may be.

    Binary masks are never grey, whatever the one value is.
    """
    inside = values[values != 0]
    if inside.size == 0 or (inside == inside.flat[0]).all():
        return ""
    if not np.isfinite(inside).all():
        return "some values are not finite"
    if inside.min() < 0 or inside.max() > HIGHEST_LABEL:
        return f"values go from {inside.min():g} to {inside.max():g}"
    if np.abs(inside - np.round(inside)).max() > WHOLE_TOLERANCE:
        return f"values are not whole numbers, up to {inside.max():g}"
    ramp, exposed = _ramp_fraction(values), _exposed_fraction(values, inside.max())
    if ramp >= RAMP_FRACTION and exposed < EXPOSED_FRACTION:
        return (
            f"{100 * ramp:.0f} % of the voxels below the peak value {inside.max():g} lie between a "
            "lower and a higher neighbour, as in a mask that was resampled, smoothed or averaged"
        )
    return ""


def _ramp_fraction(values: NDArray[Any]) -> float:
    """Measure which part of the voxels between 0 and the peak has a lower and a higher neighbour.

    Neighbours are the 26 around a voxel; beyond the image there are none.
    """
    peak = values.max()
    between_all = ramp_all = 0
    for start in range(0, len(values), _SLAB):
        low, high = max(start - 1, 0), min(start + _SLAB + 1, len(values))
        inner = slice(start - low, min(start + _SLAB, len(values)) - low)
        slab = values[low:high]
        between = (slab[inner] > 0) & (slab[inner] < peak)
        if not between.any():
            continue
        lower = _extreme(slab, np.minimum)[inner] < slab[inner]
        higher = _extreme(slab, np.maximum)[inner] > slab[inner]
        between_all += int(between.sum())
        ramp_all += int((between & lower & higher).sum())
    return ramp_all / between_all


def _extreme(values: NDArray[Any], extreme: np.ufunc) -> NDArray[Any]:
    """Find the extreme of the 3 x 3 x 3 voxels around each, axis by axis."""
    for axis in range(3):
        moved = np.moveaxis(values, axis, 0)
        found = moved.copy()
        found[1:] = extreme(found[1:], moved[:-1])
        found[:-1] = extreme(found[:-1], moved[1:])
        values = np.moveaxis(found, 0, axis)
    return values


def _exposed_fraction(values: NDArray[Any], peak: float) -> float:
    """Measure which part of the peak's outer faces borders on 0: the least of the three axes."""
    fractions = [1.0]
    for axis in range(3):
        moved = np.moveaxis(values, axis, 0)
        before, after = moved[:-1], moved[1:]
        up, down = (before != peak) & (after == peak), (before == peak) & (after != peak)
        beside = np.concatenate([before[up], after[down]])
        if beside.size:
            fractions.append(float(np.mean(beside == 0)))
    return min(fractions)
