"""Do slices make a volume? Pure checks on positions and orientations, before any pixel is read.

The order of slices is that of the projection of ImagePositionPatient on the slice normal; names
of files, InstanceNumber, SliceLocation and SpacingBetweenSlices have no say. The gap is measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nognet.data.findings import Finding

POSITION_TOLERANCE_MM = 0.1
"""No slice may lie further from where the finished volume puts it."""
SAME_POSITION_MM = 0.01
GAP_TOLERANCE_FRACTION = 0.1
LARGEST_ROUNDING_FRACTION = 0.3
"""Gaps that differ by more than this part are no rounding, however small they are."""
SMALLEST_BASE_FRACTION = 0.2
SMALLEST_GAP_MM = 0.1
"""No CT has slices closer together, so a larger gap is no multiple of such a one."""
SHORTEST_STRETCH = 3
"""So many equal gaps in a row are a stretch of its own, not single missing slices."""
ORIENTATION_TOLERANCE = 5e-4
"""Largest difference of a direction cosine: 0.25 mm at the edge of a 500 mm field of view."""
OBLIQUE_DEGREES = 1.0
NOT_AXIAL_DEGREES = 45.0


@dataclass(frozen=True)
class SliceStack:
    """How slices stack up.

    Attributes:
        order: Indices of the given slices, sorted along the normal.
        normal: Unit normal, row direction x column direction.
        gap_mm: Measured distance of neighbouring slices along the normal.
    """

    order: tuple[int, ...]
    normal: NDArray[np.float64]
    gap_mm: float


def stack_slices(
    positions_mm: NDArray[np.float64], orientations: NDArray[np.float64]
) -> tuple[SliceStack | None, tuple[Finding, ...]]:
    """Sort slices along their normal and list every geometric fault.

    Args:
        positions_mm: ImagePositionPatient, ``(N, 3)``.
        orientations: ImageOrientationPatient, ``(N, 6)``: row direction, then column direction.

    Returns:
        The stack, or None where a fault leaves no usable one, and all findings.
    """
    tilt = _orientation_fault(orientations)
    if tilt is not None:
        return None, (tilt,)
    normal = _normal(orientations[0])
    along = positions_mm @ normal
    order = np.argsort(along, kind="stable")
    if len(order) == 1:
        return None, (Finding("single-slice", "refused", "1 slice is no volume"),)
    faults = tuple(_faults(positions_mm[order], along[order], normal))
    if any(fault.severity == "refused" for fault in faults):
        return None, faults
    gap_mm = float((along[order[-1]] - along[order[0]]) / (len(order) - 1))
    return SliceStack(tuple(int(i) for i in order), normal, gap_mm), faults


def _normal(orientation: NDArray[np.float64]) -> NDArray[np.float64]:
    normal = np.cross(orientation[:3], orientation[3:])
    unit: NDArray[np.float64] = normal / np.linalg.norm(normal)
    return unit


def _orientation_fault(orientations: NDArray[np.float64]) -> Finding | None:
    """Check that all slices have the same, orthonormal orientation."""
    deviation = float(np.abs(orientations - np.median(orientations, axis=0)).max())
    if deviation > ORIENTATION_TOLERANCE:
        normals = np.stack([_normal(o) for o in np.unique(orientations, axis=0)])
        degrees = float(np.degrees(np.arccos(np.clip(normals @ normals[0], -1, 1))).max())
        return Finding(
            "mixed-orientation",
            "refused",
            f"slices are turned against each other (normals by up to {degrees:.1f} degrees)",
        )
    row, column = orientations[0, :3], orientations[0, 3:]
    lengths = abs(np.linalg.norm(row) - 1) + abs(np.linalg.norm(column) - 1)
    if lengths > 1e-3 or abs(row @ column) > 1e-3:
        return Finding(
            "mixed-orientation",
            "refused",
            "row and column direction are not perpendicular unit vectors: "
            f"{np.round(orientations[0], 4).tolist()}",
        )
    return None


def _faults(
    positions: NDArray[np.float64], along: NDArray[np.float64], normal: NDArray[np.float64]
) -> Iterator[Finding]:
    """List the faults of sorted positions ``(N, 3)`` with projections `along` ``(N,)``."""
    gaps = np.diff(along)
    if along[-1] - along[0] < SAME_POSITION_MM:
        yield Finding(
            "same-position", "refused", f"not a volume: {len(along)} images at one position"
        )
        return
    yield from _sideways_faults(positions, along, normal)
    same = int((gaps < SAME_POSITION_MM).sum())
    if same:
        yield Finding(
            "duplicate-position",
            "refused",
            f"duplicate position: {same} of {len(along)} images lie where another one lies",
        )
        return
    yield from _gap_faults(along, gaps)
    yield from plane_findings(normal)


def _sideways_faults(
    positions: NDArray[np.float64], along: NDArray[np.float64], normal: NDArray[np.float64]
) -> Iterator[Finding]:
    """Find shear (an even sideways shift) and scatter (an uneven one)."""
    rise = along - along[0]
    sideways = positions - positions[0] - rise[:, None] * normal
    if np.linalg.norm(sideways, axis=1).max() <= POSITION_TOLERANCE_MM:
        return
    slope = (rise @ sideways) / (rise @ rise)
    scatter = float(np.linalg.norm(sideways - rise[:, None] * slope, axis=1).max())
    degrees = float(np.degrees(np.arctan(np.linalg.norm(slope))))
    if float(np.linalg.norm(slope) * rise[-1]) > POSITION_TOLERANCE_MM and degrees >= 0.05:
        yield Finding(
            "sheared",
            "refused",
            f"slices are sheared {degrees:.1f} degrees (gantry tilt); re-export without tilt or "
            "exclude the series",
        )
    if scatter > POSITION_TOLERANCE_MM:
        yield Finding(
            "irregular-spacing",
            "refused",
            f"slices are scattered sideways by up to {scatter:.2f} mm",
        )


def _gap_faults(along: NDArray[np.float64], gaps: NDArray[np.float64]) -> Iterator[Finding]:
    """Find missing slices and gaps that differ otherwise."""
    usual = float(np.median(gaps))
    drift = float(np.abs(along - np.linspace(along[0], along[-1], len(along))).max())
    # positions rounded to 0.1 mm make gaps of 0.6 and 0.7 mm, and move no slice by more than that
    rounding = min(POSITION_TOLERANCE_MM, LARGEST_ROUNDING_FRACTION * usual) + 1e-6
    uneven = np.abs(gaps - usual) > max(GAP_TOLERANCE_FRACTION * usual, rounding)
    if not uneven.any() and drift <= POSITION_TOLERANCE_MM:
        return
    multiples, listed = gaps / _base_gap(gaps, usual), _list_gaps(gaps)
    off = float(np.abs(multiples - np.round(multiples)).max())
    whole = off <= GAP_TOLERANCE_FRACTION and multiples.min() > 0.5
    if not (uneven.any() and whole and gaps.min() >= SMALLEST_GAP_MM):
        yield Finding(
            "irregular-spacing",
            "refused",
            f"gaps between slices differ: {listed}; evenly spaced slices would be up to "
            f"{drift:.2f} mm off",
        )
        return
    missing = int(np.round(multiples).sum()) - len(gaps)
    yield Finding(
        "missing-slice",
        "refused",
        f"{missing} {'slice is' if missing == 1 else 'slices are'} missing between {len(along)}: "
        f"gaps of {listed}",
    )
    if _changes_halfway(np.round(multiples).astype(int)):
        yield Finding(
            "irregular-spacing", "refused", f"or the spacing changes on the way: gaps of {listed}"
        )


def _base_gap(gaps: NDArray[np.float64], usual: float) -> float:
    """Choose the gap that others may be multiples of; a tiny one says nothing of missing slices."""
    smallest = float(gaps.min())
    alike = np.isclose(usual, smallest, rtol=GAP_TOLERANCE_FRACTION)
    return usual if alike or smallest < SMALLEST_BASE_FRACTION * usual else smallest


def _changes_halfway(multiples: NDArray[np.int_]) -> bool:
    """Tell two stretches of unlike spacing from single gaps where slices are missing."""
    starts = np.array([0, *(np.flatnonzero(np.diff(multiples)) + 1)])
    runs = np.diff([*starts, len(multiples)])
    long = multiples[starts[runs >= SHORTEST_STRETCH]]
    return len(np.unique(long)) > 1


def _list_gaps(gaps: NDArray[np.float64]) -> str:
    values, counts = np.unique(np.round(gaps, 3), return_counts=True)
    most = np.argsort(-counts, kind="stable")[:6]
    listed = ", ".join(f"{values[i]:g} mm ({counts[i]}x)" for i in most)
    return listed + (f" and {len(values) - 6} more" if len(values) > 6 else "")


def plane_findings(normal: NDArray[np.float64]) -> Iterator[Finding]:
    """Warn of slices that are turned out of the axial plane, by their unit normal."""
    degrees = float(np.degrees(np.arccos(min(1.0, abs(float(normal[2]))))))
    if degrees > NOT_AXIAL_DEGREES:
        yield Finding(
            "not-axial", "warning", f"slices stand {degrees:.0f} degrees to the axial plane"
        )
    elif degrees > OBLIQUE_DEGREES:
        yield Finding(
            "oblique", "warning", f"slices are turned {degrees:.1f} degrees out of the axial plane"
        )
