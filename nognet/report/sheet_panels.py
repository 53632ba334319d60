"""The panels of a pair on the contact sheet: three planes, each in four views, as plain pixels.

Directions follow the radiologist's convention: the patient's right is on the image's left, the
front is up in the axial plane and to the left in the sagittal one, the head is up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nognet.report.style import BASELINE_INK, TRUTH_INK

FOLLOW_UP_INK = TRUTH_INK
DENSER_INK = (213, 94, 0)
THINNER_INK = (0, 114, 178)
DIFFERENCE_LIMIT = 0.5
"""Difference, as a part of the HU window, at which the colour is full; one scale for all pairs."""
CELL_VOX = 8
BASELINE_TINT = (1.0, 0.97, 0.80)
FOLLOW_UP_TINT = (0.80, 0.93, 1.0)
"""Of the checkerboard's cells, after the outlines' colours: faint, for the shades must compare."""
VIEWS = ("Baseline", "Follow-up, registered", "Difference", "Checkerboard")
_ARRAYS = ("baseline", "follow_up", "baseline_mask", "follow_up_mask")


@dataclass(frozen=True)
class SheetTile:
    """A pair for the contact sheet, on the 1 mm ROI grid along the patient's axes (LPS).

    Attributes:
        name: Heading of the pair, as the site knows it.
        status: ``ok``, ``warning`` or ``refused``; another word is shown as it is.
        caption: Interval, volumes, codes ...; a new line starts a new line.
        baseline: CT ``(D, H, W)`` in [0, 1].
        follow_up: Follow-up CT in the baseline's frame, as `baseline`.
        baseline_mask: ``(D, H, W)``, {0, 1}.
        follow_up_mask: As `baseline_mask`.
    """

    name: str
    status: str
    caption: str
    baseline: NDArray[Any]
    follow_up: NDArray[Any]
    baseline_mask: NDArray[Any]
    follow_up_mask: NDArray[Any]

    def __post_init__(self) -> None:
        """Check that all arrays lie on one grid and images in [0, 1].

        Raises:
            ValueError: a shape differs, or a value is outside.
        """
        shape = self.baseline.shape
        if len(shape) != 3 or 0 in shape:
            raise ValueError(f"tile '{self.name}': baseline is {shape}, expected (D, H, W)")
        for name in _ARRAYS:
            array = getattr(self, name)
            if array.shape != shape:
                raise ValueError(f"tile '{self.name}': {name} is {array.shape}, expected {shape}")
            if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
                raise ValueError(f"tile '{self.name}': {name} has values outside [0, 1]")


@dataclass(frozen=True)
class Outline:
    """A nodule's outline in a panel.

    Attributes:
        ink: Colour.
        off_plane: The plane misses the nodule: these lines are its silhouette from further off.
        lines: Polygons ``(N, 2)`` of x, y in pixels; pixel centres are whole numbers.
    """

    ink: str
    off_plane: bool
    lines: tuple[NDArray[np.float64], ...]


@dataclass(frozen=True)
class Panel:
    """One plane in one view.

    Attributes:
        plane: ``Axial``, ``Coronal`` or ``Sagittal``.
        view: One of `VIEWS`.
        pixels: ``(H, W)`` or ``(H, W, 3)``, uint8.
        outlines: Drawn over it.
        sides: What lies at the left, top, right and bottom: R, L, A, P, S, I.
        description: In words, for who can't see it.
    """

    plane: str
    view: str
    pixels: NDArray[np.uint8]
    outlines: tuple[Outline, ...]
    sides: tuple[str, str, str, str]
    description: str


@dataclass(frozen=True)
class DrawnTile:
    """A pair as drawn: small, whatever its arrays were. Panels come plane by plane, view by view.

    Attributes:
        name: Heading.
        status: The word.
        caption: Its lines.
        panels: Twelve: three planes of four views.
    """

    name: str
    status: str
    caption: tuple[str, ...]
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class _Plane:
    """A plane through the point `at` (z, y, x), across `axis`; rows from the head downwards."""

    name: str
    axis: int
    at: tuple[int, int, int]
    sides: tuple[str, str, str, str]

    def cut(self, volume: NDArray[Any]) -> NDArray[Any]:
        return self._upright(np.take(volume, self.at[self.axis], axis=self.axis))

    def silhouette(self, mask: NDArray[np.bool_]) -> NDArray[Any]:
        return self._upright(np.asarray(mask.any(axis=self.axis)))

    def _upright(self, section: NDArray[Any]) -> NDArray[Any]:
        return section if self.axis == 0 else section[::-1]


def draw_tile(tile: SheetTile) -> DrawnTile:
    """Cut and draw the three planes through the baseline nodule's centre."""
    lines = tuple(line.strip() for line in tile.caption.splitlines() if line.strip())
    panels = tuple(panel for plane in _planes(tile) for panel in _views(tile, plane))
    return DrawnTile(tile.name, tile.status, lines, panels)


def _planes(tile: SheetTile) -> tuple[_Plane, _Plane, _Plane]:
    at = _centre(tile)
    return (
        _Plane("Axial", 0, at, ("R", "A", "L", "P")),
        _Plane("Coronal", 1, at, ("R", "S", "L", "I")),
        _Plane("Sagittal", 2, at, ("A", "S", "P", "I")),
    )


def _centre(tile: SheetTile) -> tuple[int, int, int]:
    """Find the voxel at the baseline nodule's centre; without a nodule, the ROI's."""
    for mask in (tile.baseline_mask, tile.follow_up_mask):
        where = np.argwhere(mask > 0.5)
        if where.size:
            z, y, x = (math.floor(float(mean) + 0.5) for mean in where.mean(axis=0))
            return z, y, x
    depth, height, width = tile.baseline.shape
    return depth // 2, height // 2, width // 2


def _views(tile: SheetTile, plane: _Plane) -> Iterator[Panel]:
    before, after = (
        plane.cut(image).astype(np.float64) for image in (tile.baseline, tile.follow_up)
    )
    first, first_words = _outline(tile.baseline_mask > 0.5, plane, BASELINE_INK)
    second, second_words = _outline(tile.follow_up_mask > 0.5, plane, FOLLOW_UP_INK)
    changed = float(np.abs(after - before).mean())
    drawn = (
        (_gray(before), (first,), f"baseline CT; baseline nodule {first_words}"),
        (
            _gray(after),
            (second, first),
            (
                f"registered follow-up CT; baseline nodule {first_words}; follow-up nodule "
                f"{second_words}"
            ),
        ),
        (
            _difference(before, after),
            (),
            f"follow-up minus baseline; mean change {100 * changed:.1f} % of the window",
        ),
        (_checkerboard(before, after), (), "cells of baseline and follow-up in turn"),
    )
    for view, (pixels, outlines, words) in zip(VIEWS, drawn, strict=True):
        yield Panel(plane.name, view, pixels, outlines, plane.sides, f"{plane.name}: {words}")


def _outline(mask: NDArray[np.bool_], plane: _Plane, ink: str) -> tuple[Outline, str]:
    """Outline a nodule in a plane, or its silhouette where the plane misses it; and in words."""
    section = plane.cut(mask)
    if section.any():
        area = int(section.sum())
        return Outline(ink, off_plane=False, lines=_contours(section)), f"outlined, {area} mm2"
    if not mask.any():
        return Outline(ink, off_plane=False, lines=()), "absent"
    lines = _contours(plane.silhouette(mask))
    return Outline(ink, off_plane=True, lines=lines), "in another plane, dashed silhouette"


def _contours(section: NDArray[np.bool_]) -> tuple[NDArray[np.float64], ...]:
    """Trace the border half-way between voxels inside and outside, closed at the image's edge."""
    import contourpy

    padded = np.pad(section.astype(np.float64), 1)
    found = contourpy.contour_generator(z=padded).lines(0.5)
    return tuple(np.asarray(line, dtype=np.float64) - 1.0 for line in found)


def _gray(section: NDArray[np.float64]) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = np.rint(255 * section).astype(np.uint8)
    return pixels


def _difference(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Colour what changed: vermilion where denser, blue where thinner, white where nothing."""
    share = np.clip((after - before) / DIFFERENCE_LIMIT, -1, 1)[..., None]
    ink = np.where(share > 0, np.array(DENSER_INK), np.array(THINNER_INK))
    pixels: NDArray[np.uint8] = np.rint(255 + np.abs(share) * (ink - 255)).astype(np.uint8)
    return pixels


def _checkerboard(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Take cells from the two in turn: edges that break at a cell's border were not matched."""
    rows, columns = np.indices(before.shape) // CELL_VOX
    is_before = ((rows + columns) % 2 == 0)[..., None]
    shades = np.where(is_before, before[..., None], after[..., None])
    return _gray(shades * np.where(is_before, BASELINE_TINT, FOLLOW_UP_TINT))
