"""Find one nodule where there should be two, and two where there should be one.

Two drawn as one at the other time would seem to grow; one that two rows mark would count twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nognet.data.pairs.register import Registration
from nognet.data.pairs.roi import map_points, nodule_centre_mm, nodule_points_mm
from nognet.data.pairs.timepoints import Part

SAME_FROM_DICE = 0.5
"""Masks of one CT that overlap more are of one nodule; a solid core within a nodule may be less."""


def drawn_as_one(
    parts: tuple[Sequence[Part], Sequence[Part]],
    matched: Mapping[int, int],
    maps: Mapping[int, Registration],
    left: tuple[Sequence[int], Sequence[int]],
) -> dict[int, tuple[int, int]]:
    """Count the unmatched nodules that lie within the mask of one that was matched.

    Args:
        parts: All nodules of baseline and follow-up.
        matched: Place at the follow-up of each matched nodule of the baseline.
        maps: The registration around each nodule of the baseline.
        left: Places of the unmatched nodules of both times, under the same name.

    Returns:
        For each matched nodule of the baseline that is more than one, or became more than one: how
        many others of the baseline the follow-up's mask takes in, and the other way round.
    """
    first, second = parts
    found: dict[int, tuple[int, int]] = {}
    for before, after in matched.items():
        forth = sum(
            _holds(second[after], map_points(maps[k].transform(), nodule_centre_mm(first[k].mask)))
            for k in left[0]
        )
        back = maps[before].transform().GetInverse()
        behind = sum(
            _holds(first[before], map_points(back, nodule_centre_mm(second[k].mask)))
            for k in left[1]
        )
        if forth or behind:
            found[before] = (forth, behind)
    return found


def _holds(part: Part, point_mm: NDArray[np.float64]) -> bool:
    """Tell whether a point lies in a mask, or next to one of its voxels."""
    at = np.round(part.mask.geometry.world_to_index(point_mm)).astype(int).ravel()[::-1]
    near = tuple(slice(max(int(i) - 1, 0), max(int(i) + 2, 0)) for i in at)
    return bool(part.mask.array[near].any())


def marked_twice(parts: Sequence[Part], own: int) -> tuple[int, ...]:
    """List the places of the other rows of a time point that mark the same nodule as a part."""
    part = parts[own]
    others = (other for other in parts if other.place != part.place)
    return tuple(dict.fromkeys(o.place for o in others if _dice(part, o) > SAME_FROM_DICE))


def _dice(one: Part, other: Part) -> float:
    points = nodule_points_mm(other.mask)
    index = np.round(one.mask.geometry.world_to_index(points)).astype(int)
    inside = np.all((index >= 0) & (index < np.array(one.mask.geometry.size)), axis=1)
    x, y, z = index[inside].T
    common = np.count_nonzero(one.mask.array[z, y, x])
    return 2 * common / (np.count_nonzero(one.mask.array) + len(points))
