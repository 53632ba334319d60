"""Branching vessels and airways: trees that fill the lung by splitting clouds of target points.

After Tawhai et al. 2000 (J Biomech Eng 122): a branch grows toward the centroid of the tissue it
serves, which is then split in two along its longest extent; radii follow Murray's law.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MURRAY_EXPONENT = 2.8
BENT_FROM_RADIUS_MM = 1.0


@dataclass(frozen=True)
class Capsules:
    """Straight round pieces: a tree's branches.

    Attributes:
        start_mm: ``(N, 3)`` tissue coordinates x, y, z.
        end_mm: ``(N, 3)``.
        radius_mm: ``(N,)`` at the middle.
    """

    start_mm: NDArray[np.float64]
    end_mm: NDArray[np.float64]
    radius_mm: NDArray[np.float64]

    def select(self, chosen: NDArray[np.bool_]) -> Capsules:
        """Keep the branches where `chosen` ``(N,)`` is true."""
        return Capsules(self.start_mm[chosen], self.end_mm[chosen], self.radius_mm[chosen])


def join(parts: list[Capsules]) -> Capsules:
    """Put several trees into one value."""
    return Capsules(
        np.concatenate([part.start_mm for part in parts]),
        np.concatenate([part.end_mm for part in parts]),
        np.concatenate([part.radius_mm for part in parts]),
    )


def grow_tree(
    root_mm: NDArray[np.float64],
    targets_mm: NDArray[np.float64],
    root_radius_mm: float,
    rng: np.random.Generator,
) -> Capsules:
    """Grow a tree from its root to serve the targets.

    Args:
        root_mm: ``(3,)`` where it enters the lung.
        targets_mm: ``(N, 3)`` points of tissue to reach.
        root_radius_mm: Radius at the root; a branch to n of N targets has
            ``root_radius * (n / N) ** (1 / 2.8)``.
        rng: Bends the branches a little.
    """
    starts: list[NDArray[np.float64]] = []
    ends: list[NDArray[np.float64]] = []
    radii: list[float] = []
    pending = [(np.asarray(root_mm, dtype=np.float64), targets_mm)]
    while pending:
        at, served = pending.pop()
        towards = served.mean(axis=0) - at
        share = 0.42 if len(served) > 1 else 1.0
        tip = at + share * towards
        length = float(np.linalg.norm(towards)) * share
        radius = root_radius_mm * (len(served) / len(targets_mm)) ** (1 / MURRAY_EXPONENT)
        if radius > BENT_FROM_RADIUS_MM:
            bend = (at + tip) / 2 + rng.normal(0.0, 0.07 * length, 3)
            starts += [at, bend]
            ends += [bend, tip]
            radii += [radius, radius]
        else:
            starts.append(at)
            ends.append(tip)
            radii.append(radius)
        if len(served) > 1:
            first, second = _split(served - tip)
            pending += [(tip, served[first]), (tip, served[second])]
    return Capsules(np.array(starts), np.array(ends), np.array(radii))


def _split(cloud: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Halve a cloud of points along its longest extent."""
    centred = cloud - cloud.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    order = np.argsort(centred @ axes[:, -1], kind="stable")
    half = len(order) // 2
    return order[:half], order[half:]
