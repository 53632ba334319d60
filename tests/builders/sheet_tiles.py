"""Pairs for the contact sheet: a ball that grows, beside a vessel, at any place of a box."""

from __future__ import annotations

import numpy as np

from nognet.report.sheet import SheetTile


def build_tile(
    *,
    name: str = "P001 nodule_1",
    status: str = "ok",
    caption: str = "182 days",
    shape: tuple[int, int, int] = (32, 32, 32),
    centre: tuple[int, int, int] = (16, 16, 16),
    follow_up_centre: tuple[int, int, int] | None = None,
    radii: tuple[float, float] = (4.0, 6.0),
) -> SheetTile:
    """Make a pair whose nodule lies where it is wanted at both times (z, y, x)."""
    ends = (centre, follow_up_centre or centre)
    balls = [_ball(shape, place, radius) for place, radius in zip(ends, radii, strict=True)]
    vessel = np.zeros(shape)
    vessel[:, 5, 7] = 0.5
    images = [np.clip(0.1 + 0.6 * ball + vessel, 0, 1).astype(np.float32) for ball in balls]
    return SheetTile(
        name=name,
        status=status,
        caption=caption,
        baseline=images[0],
        follow_up=images[1],
        baseline_mask=balls[0].astype(np.uint8),
        follow_up_mask=balls[1].astype(np.uint8),
    )


def _ball(shape: tuple[int, int, int], centre: tuple[int, int, int], radius: float) -> np.ndarray:
    z, y, x = (axis - middle for axis, middle in zip(np.indices(shape), centre, strict=True))
    return z**2 + y**2 + x**2 <= radius**2
