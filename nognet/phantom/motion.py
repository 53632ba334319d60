"""Between two dates a patient lies and breathes differently: the map from scanner to tissue.

`Motion` maps a point of the scan (LPS, millimetres) back to the patient's own tissue frame:
first the breathing (smooth, strongest along z), then the rigid difference of position.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Motion:
    """Position and breath of one date.

    Attributes:
        table_mm: Where the tissue frame's origin lies in the scan: table and patient position.
        rotation: ``(3, 3)`` matrix from scan axes to tissue axes.
        breath_mm: Amplitude of the breathing along x, y, z.
        phase: Phases ``(3,)`` of the breathing's waves.
        lung_hu: Change of the lung's density with the breath.
    """

    table_mm: NDArray[np.float64]
    rotation: NDArray[np.float64]
    breath_mm: NDArray[np.float64]
    phase: NDArray[np.float64]
    lung_hu: float = 0.0

    def to_tissue(self, x: NDArray[Any], y: NDArray[Any], z: NDArray[Any]) -> tuple[Array, ...]:
        """Map scan coordinates (any broadcastable shapes) to tissue coordinates x, y, z."""
        x, y, z = (
            (values - offset).astype(np.float32)
            for values, offset in zip((x, y, z), self.table_mm, strict=True)
        )
        ax, ay, az = (np.float32(a) for a in self.breath_mm)
        px, py, pz = (np.float32(p) for p in self.phase)
        breathed = (
            x - ax * np.sin(z / np.float32(38) + px),
            y - ay * np.sin(z / np.float32(46) + py),
            z - az * (1 + np.float32(0.35) * np.sin(y / np.float32(33) + pz)),
        )
        m = self.rotation.astype(np.float32)
        tissue_x, tissue_y, tissue_z = (
            m[row, 0] * breathed[0] + m[row, 1] * breathed[1] + m[row, 2] * breathed[2]
            for row in range(3)
        )
        return tissue_x, tissue_y, tissue_z

    def to_scan(self, tissue_mm: NDArray[Any]) -> NDArray[np.float64]:
        """Map tissue points ``(N, 3)`` to the scan; inverts `to_tissue` to below 1e-3 mm."""
        tissue = np.asarray(tissue_mm, dtype=np.float64)
        scan = tissue @ self.rotation + self.table_mm
        for _ in range(6):
            error = np.stack(self.to_tissue(*scan.T), axis=1) - tissue
            scan -= error @ self.rotation
        return scan


def draw_motion(
    table_mm: tuple[float, float, float], rng: np.random.Generator, *, scale: float = 1.0
) -> Motion:
    """Draw a date's position: shifts of a few mm, a rotation of a degree or so, another breath.

    Args:
        table_mm: The scanner's usual origin of the patient.
        rng: Generator of this date.
        scale: 1 for whole studies; small for what is left after registration.
    """
    angles = np.clip(rng.normal(0.0, 0.9, 3), -2, 2) * math.pi / 180 * scale
    return Motion(
        table_mm=np.asarray(table_mm) + np.clip(rng.normal(0.0, 2.5, 3), -5, 5) * scale,
        rotation=rotation_matrix(angles),
        breath_mm=np.array([0.5, 0.7, 1.6]) * np.clip(rng.normal(0.0, 1.0, 3), -1.5, 1.5) * scale,
        phase=rng.uniform(0, 2 * math.pi, 3),
        lung_hu=float(np.clip(rng.normal(0.0, 9.0), -20, 20)),
    )


def rotation_matrix(angles_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotate about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles_rad), np.sin(angles_rad)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    result: NDArray[np.float64] = about_z @ about_y @ about_x
    return result
