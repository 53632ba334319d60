"""Match nodules across time: by where registration puts them, not by their labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nognet.data.pairs.register import Registration
from nognet.data.pairs.roi import map_points, nodule_centre_mm
from nognet.types import Volume


@dataclass(frozen=True)
class Match:
    """A nodule of the baseline and the one it became.

    Attributes:
        baseline: Its place in the list of the baseline's nodules.
        follow_up: Its place in the list of the follow-up's.
        distance_mm: Distance of their centres in the baseline's frame.
    """

    baseline: int
    follow_up: int
    distance_mm: float


def distances_mm(
    baseline: Sequence[Volume], follow_up: Sequence[Volume], maps: Sequence[Registration]
) -> NDArray[np.float64]:
    """Measure how far each nodule's centre lies from each other one's, in the baseline's frame.

    Args:
        baseline: Masks of the nodules at the earlier time.
        follow_up: Masks at the later time.
        maps: One registration for each of `baseline`, of its own surroundings: lung breathes, so
            what holds around one nodule is centimetres off at another.

    Returns:
        ``(len(baseline), len(follow_up))`` millimetres.

    Raises:
        ValueError: there is not one registration for each nodule of the baseline.
    """
    if len(maps) != len(baseline):
        raise ValueError(f"{len(baseline)} nodules at the baseline need as many maps: {len(maps)}")
    later = np.array([nodule_centre_mm(nodule) for nodule in follow_up]).reshape(-1, 3)
    result = np.empty((len(baseline), len(follow_up)))
    for row, (nodule, found) in enumerate(zip(baseline, maps, strict=True)):
        back = map_points(found.transform().GetInverse(), later)
        result[row] = np.linalg.norm(back - nodule_centre_mm(nodule), axis=1)
    return result


def match_nodules(
    baseline: Sequence[Volume],
    follow_up: Sequence[Volume],
    maps: Sequence[Registration],
    *,
    allowed: Callable[[int, int], bool],
) -> tuple[Match, ...]:
    """Match nodules one to one, the nearest pair first.

    Args:
        baseline: Masks of the nodules at the earlier time.
        follow_up: Masks at the later time.
        maps: One registration for each of `baseline` (see `distances_mm`).
        allowed: Tells whether nodule i of the baseline may be nodule j of the follow-up.

    Returns:
        The matches in order of the baseline; nodules that vanished or are new have none. Of equal
        distances the one listed first wins.

    Raises:
        ValueError: there is not one registration for each nodule of the baseline.
    """
    distance = distances_mm(baseline, follow_up, maps)
    candidates = sorted(
        (float(distance[i, j]), i, j) for i, j in np.ndindex(distance.shape) if allowed(i, j)
    )
    taken: dict[int, Match] = {}
    used: set[int] = set()
    for away, i, j in candidates:
        if i not in taken and j not in used:
            taken[i] = Match(i, j, away)
            used.add(j)
    return tuple(taken[i] for i in sorted(taken))
