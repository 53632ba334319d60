"""Split a mask into nodules: parts that touch or lie close together are one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nognet.data.masks.gaps import Gap, Pieces, find_gaps
from nognet.data.masks.grid import block_of
from nognet.data.pairs.roi import crop_mask
from nognet.types import Vector3, Volume

_REACH_VOX = 24
"""Gaps are looked for up to so many voxels: no chest CT is finer, and a header may say anything."""


@dataclass(frozen=True)
class Parts:
    """A mask in parts.

    Attributes:
        nodules: Each cropped with a rim of one voxel, the largest first.
        specks_mm3: Volumes of the parts left aside, the largest first.
        gaps: Places where slices were left out between parts that lie above each other.
        undrawn: Slices left out there.
        missing_fraction: What would lie on them, as a part of the mask's volume.
    """

    nodules: tuple[Volume, ...]
    specks_mm3: tuple[float, ...]
    gaps: int = 0
    undrawn: int = 0
    missing_fraction: float = 0.0


def split(mask: Volume, *, gap_mm: float, min_volume_mm3: float) -> Parts:
    """Split a mask ``(D, H, W)`` in {0, 1}, not empty, into nodules and specks.

    Voxels that share a face, an edge or a corner are one part (26-connectivity), and so are parts
    whose voxels lie at most `gap_mm` apart, from surface to surface in millimetres. Parts smaller
    than `min_volume_mm3` are specks, unless they are the largest there is.
    """
    tight = crop_mask(mask.array, mask.geometry)
    labels, count = _connected(tight.array)
    groups = _joined(labels, count, mask.geometry.spacing_mm, gap_mm)
    filled = np.flatnonzero(tight.array)
    of_voxel = groups[labels.ravel()[filled]]
    found, first, sizes = np.unique(of_voxel, return_index=True, return_counts=True)
    volumes = sizes * mask.geometry.voxel_volume_mm3
    enough = min(min_volume_mm3, float(volumes.max()))
    order = np.lexsort((first, -sizes))  # of equal sizes the one that comes first in the array
    kept = [int(i) for i in order if volumes[i] >= enough]
    specks = tuple(float(volumes[i]) for i in order if volumes[i] < enough)
    nodules = tuple(_cut_out(tight, filled[of_voxel == found[i]]) for i in kept)
    drawn = filled[np.isin(of_voxel, found[kept])]  # specks are noise, not slices of a nodule
    gaps = _gaps(labels, drawn, mask.geometry.spacing_mm[2]) if count > 1 else ()
    missing = sum(gap.missing_area for gap in gaps) / len(drawn)
    return Parts(nodules, specks, len(gaps), sum(gap.slices for gap in gaps), missing)


def _gaps(
    labels: NDArray[np.unsignedinteger[Any]], filled: NDArray[np.int64], spacing_mm: float
) -> tuple[Gap, ...]:
    """Find slices left out, taking each part's patch on each slice for a piece."""
    z, y, x = np.unravel_index(filled, labels.shape)
    depth = labels.shape[0]
    patch = labels.ravel()[filled].astype(np.int64) * depth + z
    found, start, area = np.unique(np.sort(patch), return_index=True, return_counts=True)
    order = np.argsort(patch, kind="stable")
    low = [np.minimum.reduceat(along[order], start) for along in (x, y)]
    high = [np.maximum.reduceat(along[order], start) for along in (x, y)]
    boxes = np.stack([*low, *high], axis=1).astype(np.float64)
    return find_gaps(Pieces(found % depth, boxes, area.astype(np.float64)), spacing_mm)


def _cut_out(mask: Volume, voxels: NDArray[np.int64]) -> Volume:
    """Make a mask of some voxels, given by their flat index, with a rim of one voxel."""
    index = np.stack(np.unravel_index(voxels, mask.array.shape), axis=1)[:, ::-1]
    block = block_of(index.astype(np.int64)).volume(mask.geometry)
    return crop_mask(block.array, block.geometry)


def _connected(mask: NDArray[np.uint8]) -> tuple[NDArray[np.unsignedinteger[Any]], int]:
    """Number the parts from 1 on, by 26-connectivity."""
    component = sitk.ConnectedComponentImageFilter()
    component.SetFullyConnected(True)
    image = component.Execute(sitk.GetImageFromArray(mask))
    count = int(component.GetObjectCount())
    return sitk.GetArrayViewFromImage(image).astype(np.min_scalar_type(count)), count


def _joined(
    labels: NDArray[np.unsignedinteger[Any]], count: int, spacing_mm: Vector3, gap_mm: float
) -> NDArray[np.int64]:
    """Give each part ``0..count`` the number of its group, from 1 on; 0 stays 0."""
    group = np.arange(count + 1)
    if count > 1:
        for a, b in _close_pairs(labels, spacing_mm, gap_mm):
            low, high = sorted((_root(group, int(a)), _root(group, int(b))))
            group[high] = low
    roots = np.array([_root(group, part) for part in range(count + 1)])
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)


def _root(group: NDArray[np.int64], part: int) -> int:
    while group[part] != part:
        group[part] = group[group[part]]
        part = int(group[part])
    return part


def _close_pairs(
    labels: NDArray[np.unsignedinteger[Any]], spacing_mm: Vector3, gap_mm: float
) -> NDArray[np.int64]:
    """List pairs of parts ``(N, 2)`` whose voxels lie at most `gap_mm` apart.

    Every close pair has a part that is not the largest; so its surface is all that's looked from.
    """
    offsets = _offsets_within(gap_mm, spacing_mm)
    reach = np.abs(offsets).max(axis=0)
    padded = np.pad(labels, [(int(r), int(r)) for r in reach])
    largest = int(np.bincount(labels.ravel())[1:].argmax()) + 1
    flat = padded.ravel()
    inside = np.flatnonzero((flat != 0) & (flat != largest))
    strides = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    inside = inside[_on_surface(flat, inside, strides)]
    own = flat[inside]
    found: list[NDArray[np.int64]] = []
    for step in offsets @ strides:
        other = flat[inside + step]
        close = (other != 0) & (other != own)
        if close.any():
            found.append(np.unique(np.stack([own[close], other[close]], axis=1), axis=0))
    if not found:
        return np.empty((0, 2), dtype=np.int64)
    return np.unique(np.concatenate(found), axis=0).astype(np.int64)


def _on_surface(
    flat: NDArray[np.unsignedinteger[Any]], inside: NDArray[np.int64], strides: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Tell which voxels have a face open to another value; others are nearest to nothing."""
    open_face = np.zeros(len(inside), dtype=bool)
    for step in (*strides, *-strides):
        open_face |= flat[inside + step] != flat[inside]
    return open_face


def _offsets_within(gap_mm: float, spacing_mm: Vector3) -> NDArray[np.int64]:
    """List steps z, y, x ``(N, 3)`` between voxels whose boxes lie at most `gap_mm` apart."""
    spacing = np.array(spacing_mm[::-1])
    reach = np.minimum(np.floor(gap_mm / spacing + 1e-6), _REACH_VOX).astype(int) + 1
    steps = np.array(list(product(*(range(-r, r + 1) for r in reach))))
    apart = np.maximum(np.abs(steps) - 1, 0) * spacing
    near = np.linalg.norm(apart, axis=1) <= gap_mm + 1e-6
    return np.asarray(steps[near & steps.any(axis=1)], dtype=np.int64)
