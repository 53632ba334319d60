"""The values that travel through nognet: `Geometry`, `Volume`, `RoiPair`.

Conventions, stated once. Arrays are ``(z, y, x)`` as SimpleITK gives them; batches are
``(B, C, D, H, W)``. Geometry (`spacing_mm`, `origin_mm`, columns of `direction`) is in ITK's own
order ``(x, y, z)``, in the DICOM patient frame LPS, in millimetres. Masks are {0, 1}. CT is in
Hounsfield units until the ROI is cut; ROI images are scaled to [0, 1]. Intervals are in days.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Vector3 = tuple[float, float, float]
Matrix3 = tuple[Vector3, Vector3, Vector3]
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Stratum = Literal["growing", "stable", "shrinking"]
STRATA: tuple[Stratum, ...] = ("growing", "stable", "shrinking")
GROWING_RATIO = 1.25
SHRINKING_RATIO = 0.80

IDENTITY3: Matrix3 = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def stratum_of(baseline_volume_mm3: float, follow_up_volume_mm3: float) -> Stratum:
    """Name the growth stratum: growing at +25 % volume and more, shrinking at -20 % and less.

    >>> stratum_of(100.0, 125.0), stratum_of(100.0, 100.0), stratum_of(100.0, 80.0)
    ('growing', 'stable', 'shrinking')
    """
    ratio = follow_up_volume_mm3 / baseline_volume_mm3
    if ratio >= GROWING_RATIO:
        return "growing"
    return "shrinking" if ratio <= SHRINKING_RATIO else "stable"


@dataclass(frozen=True)
class Geometry:
    """Where a voxel grid lies in the patient: LPS, millimetres, ITK's (x, y, z) order.

    Attributes:
        size: Voxels along x, y, z.
        spacing_mm: Distance of neighbouring voxel centres along x, y, z.
        origin_mm: World position of the centre of voxel (0, 0, 0).
        direction: Row-major 3 x 3 matrix; its columns are the world directions of x, y, z.
    """

    size: tuple[int, int, int]
    spacing_mm: Vector3
    origin_mm: Vector3 = (0.0, 0.0, 0.0)
    direction: Matrix3 = IDENTITY3

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel."""
        return float(np.prod(self.spacing_mm))

    def index_to_world(self, index_xyz: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Map voxel indices ``(..., 3)`` in x, y, z order to LPS millimetres ``(..., 3)``."""
        scaled = np.asarray(index_xyz, dtype=np.float64) * np.asarray(self.spacing_mm)
        world: NDArray[np.float64] = scaled @ np.asarray(self.direction).T
        world += np.asarray(self.origin_mm)
        return world

    def world_to_index(self, world_mm: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Map LPS millimetres ``(..., 3)`` to continuous voxel indices in x, y, z order."""
        shifted = np.asarray(world_mm, dtype=np.float64) - np.asarray(self.origin_mm)
        inverse = np.linalg.inv(np.asarray(self.direction))
        along_axes: NDArray[np.float64] = shifted @ inverse.T
        along_axes /= np.asarray(self.spacing_mm)
        return along_axes


@dataclass(frozen=True)
class Volume:
    """A scalar volume: ``array`` (D, H, W) in z, y, x order and where it lies.

    Raises:
        ValueError: the array's shape and the geometry's size disagree.
    """

    array: NDArray[Any]
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.array.shape != self.geometry.size[::-1]:
            raise ValueError(
                f"array of shape {self.array.shape} (z, y, x) can't have a geometry of size "
                f"{self.geometry.size} (x, y, z)"
            )


@dataclass(frozen=True)
class PriorScan:
    """The same nodule before the baseline, in the baseline's frame and on its ROI's grid.

    Attributes:
        image: CT, ``(D, H, W)`` float32 in [0, 1].
        mask: Nodule, ``(D, H, W)`` uint8 in {0, 1}.
        days_before: Days from the prior scan to the baseline, > 0.
    """

    image: NDArray[np.float32]
    mask: NDArray[np.uint8]
    days_before: float


@dataclass(frozen=True)
class RoiPair:
    """One example: a nodule at two times on one 1 mm grid, in the baseline's frame.

    Attributes:
        pair_id: Pseudonym of the pair (hexadecimal), unique within a site.
        patient_id: Pseudonym of the patient, the record of privacy and of the split.
        baseline: CT at the earlier time, ``(D, H, W)`` float32 in [0, 1].
        baseline_mask: Nodule at the earlier time, ``(D, H, W)`` uint8 in {0, 1}.
        follow_up: CT at the later time in the baseline's frame, as `baseline`.
        follow_up_mask: Nodule at the later time, as `baseline_mask`.
        interval_days: Days from baseline to follow-up, > 0.
        baseline_volume_mm3: Nodule volume measured on the native grid.
        follow_up_volume_mm3: The same at the later time.
        prior: A scan before the baseline; None where there is none.
    """

    pair_id: str
    patient_id: str
    baseline: NDArray[np.float32]
    baseline_mask: NDArray[np.uint8]
    follow_up: NDArray[np.float32]
    follow_up_mask: NDArray[np.uint8]
    interval_days: float
    baseline_volume_mm3: float
    follow_up_volume_mm3: float
    prior: PriorScan | None = None

    @property
    def stratum(self) -> Stratum:
        """Growth stratum by the volumes on the native grid."""
        return stratum_of(self.baseline_volume_mm3, self.follow_up_volume_mm3)

    @property
    def log_growth_per_year(self) -> float:
        """Natural logarithm of the volume ratio, divided by the interval in years."""
        log_ratio = np.log(self.follow_up_volume_mm3 / self.baseline_volume_mm3)
        return float(log_ratio / (self.interval_days / 365.25))
