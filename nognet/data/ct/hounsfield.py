"""Are these values Hounsfield units of a patient? Every chest CT holds air, and much contrast."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nognet.data.ct.pixels import LOWEST_HU
from nognet.data.findings import Finding

AIR_BELOW_HU = -300.0
"""Every CT of a chest has voxels below this: lung, airways, the room around the patient."""
LEAST_CONTRAST_HU = 200.0
"""A patient's CT spans more; what spans less is a test object or a crop."""
HIGHEST_OF_8_BITS = 255
STORED_VALUES_ABOVE = 1000.0
"""Nothing below 0 but something above this: stored values whose intercept is missing or 0."""


def judge_values(hu: NDArray[Any], *, declared: bool) -> Finding | None:
    """Say whether values can't be HU, or are odd for a patient.

    Args:
        hu: Values ``(D, H, W)`` as read, padding at -1024.
        declared: The file declares slope and intercept, so that odd values are its own.
    """
    low, high = _known_range(hu)
    if low is None or high is None:
        return Finding("not-hounsfield", "refused", "no voxel lies above -1024 HU: all is padding")
    airless, flat = low >= AIR_BELOW_HU, high - low < LEAST_CONTRAST_HU
    if not airless and not flat:
        return None
    found = f"values from {low:g} to {high:g}"
    if low >= 0 and high <= HIGHEST_OF_8_BITS and not flat:
        return Finding("eight-bit", "refused", f"not usable for HU: {found} are a picture's")
    without = f"no voxel lies below {AIR_BELOW_HU:g} HU (the least is {low:g})"
    if airless and (not declared or (low >= 0 and high >= STORED_VALUES_ABOVE)):
        message = f"{without}, but a chest CT holds lung and air: these are stored values, not HU"
        return Finding("not-hounsfield", "refused", message)
    what = without if airless else f"they span less than {LEAST_CONTRAST_HU:g} HU"
    message = f"{found} are no patient's HU: {what}; a test object, or a crop"
    return Finding("not-hounsfield", "warning", message)


def _known_range(hu: NDArray[Any]) -> tuple[float | None, float | None]:
    """Least and greatest value above padding; stops as soon as they are a patient's."""
    low: float | None = None
    high: float | None = None
    for plane in hu:
        top = float(plane.max())
        if top <= LOWEST_HU:
            continue
        least = float(plane.min())
        if least <= LOWEST_HU:
            least = float(plane[plane > LOWEST_HU].min())
        low = least if low is None else min(low, least)
        high = top if high is None else max(high, top)
        if low < AIR_BELOW_HU and high - low >= LEAST_CONTRAST_HU:
            break
    return low, high


def whole_numbers(values: NDArray[np.floating[Any]]) -> NDArray[np.int16] | NDArray[np.floating]:
    """Give values as int16 where all are whole and fit, else as they are; plane by plane."""
    for plane in values:
        if float(plane.max()) > np.iinfo(np.int16).max or not (plane == np.rint(plane)).all():
            return values
    return values.astype(np.int16)
