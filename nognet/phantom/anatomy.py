"""The phantom's tissue: chest wall, bones, mediastinum and lung, as Hounsfield units of a point.

Tissue coordinates are LPS millimetres around the middle of the chest. One half of the chest is
drawn; `side` is +1 for the left half and -1 for the right, and ``u = side * x`` points outwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nognet.randomness import numpy_generator

Array = NDArray[np.float32]
TEXTURE_SIZE = 128
TEXTURE_CELL_MM = 0.6
AIR_HU, LUNG_HU, FAT_HU, MUSCLE_HU = -1000.0, -865.0, -100.0, 48.0


class Tissue(Protocol):
    """What surrounds the nodules: the drawn thorax or a real CT."""

    def hu(self, x: Array, y: Array, z: Array, *, edge_mm: float, lung_hu: float) -> Array:
        """Give Hounsfield units at tissue points of any shape; `lung_hu` shifts the lung's."""
        ...


def occupancy(distance_mm: Array, edge_mm: float) -> Array:
    """Turn a signed distance into a share in [0, 1]: 1 inside, 0.5 on the surface.

    Args:
        distance_mm: Signed distance, negative inside.
        edge_mm: Half width of the rise (smoothstep), the scanner's resolution.
    """
    share = np.clip(np.float32(0.5) - distance_mm * np.float32(0.5 / edge_mm), 0, 1)
    result: Array = share * share * (np.float32(3) - 2 * share)
    return result


@lru_cache(maxsize=4)
def texture_field(seed: int) -> Array:
    """Make a periodic cube of unit variance: fine lobular grain over coarser clouds."""
    rng = numpy_generator(seed, "phantom", "texture")
    white = np.fft.rfftn(rng.standard_normal((TEXTURE_SIZE,) * 3))
    full, half = np.fft.fftfreq(TEXTURE_SIZE), np.fft.rfftfreq(TEXTURE_SIZE)
    squared = full[:, None, None] ** 2 + full[None, :, None] ** 2 + half[None, None, :] ** 2
    field = np.zeros((TEXTURE_SIZE,) * 3)
    for sigma_mm, share in ((0.9, 0.8), (4.5, 0.6)):
        sigma = sigma_mm / TEXTURE_CELL_MM
        part = np.fft.irfftn(
            white * np.exp(-2 * (math.pi * sigma) ** 2 * squared), s=field.shape, axes=(0, 1, 2)
        )
        field += share * part / part.std()
    field /= field.std()
    result: Array = np.ascontiguousarray(field, dtype=np.float32)
    result.flags.writeable = False
    return result


@dataclass(frozen=True)
class Texture:
    """A patient's own place in the texture field.

    Attributes:
        seed: Names the field.
        offset_mm: Where the tissue frame's origin lies in it.
    """

    seed: int
    offset_mm: tuple[float, float, float]

    def at(self, x: Array, y: Array, z: Array) -> Array:
        """Sample unit-variance texture at tissue points (nearest cell)."""
        index = [
            ((values + np.float32(offset + 1e4)) * np.float32(1 / TEXTURE_CELL_MM)).astype(np.int32)
            & (TEXTURE_SIZE - 1)
            for values, offset in zip((x, y, z), self.offset_mm, strict=True)
        ]
        flat = (index[2] * TEXTURE_SIZE + index[1]) * TEXTURE_SIZE + index[0]
        result: Array = texture_field(self.seed).reshape(-1).take(flat)
        return result


@dataclass(frozen=True)
class Thorax:
    """One half of a chest.

    Attributes:
        side: +1 left, -1 right.
        size: Scale of the whole chest.
        texture: Parenchymal texture.
        texture_hu: Its standard deviation.
        gravity_hu: Rise of lung density per mm towards the back.
        rib_phase_mm: Where along z the ribs start.
        fissure: Normal ``(u, y, z)`` of the oblique fissure.
    """

    side: int
    size: float
    texture: Texture
    texture_hu: float
    gravity_hu: float
    rib_phase_mm: float
    fissure: tuple[float, float, float]

    def pleura_distance(self, x: Array, y: Array, z: Array) -> Array:
        """Signed distance to the lung's surface, negative in lung."""
        u = np.float32(self.side / self.size) * x
        y = y * np.float32(1 / self.size)
        taper = np.float32(1) - (z * np.float32(1 / 210)) ** 2
        cage = self._cage(u, y, taper)
        if self.side > 0:
            heart = _ellipse(u - 16, y + 38, 50, 42)
        else:
            heart = _ellipse(u + 8, y + 34, 40, 46)
        hilum = _ellipse(u - 8, y - 6, 25, 27)
        spine = _ellipse(u, y - 66, 27, 30)
        inner = np.minimum(np.minimum(heart, hilum), np.minimum(spine, u - 11))
        result: Array = np.maximum(cage, -inner) * np.float32(self.size)
        return result

    def _cage(self, u: Array, y: Array, taper: Array | np.float32) -> Array:
        rho = np.sqrt((u * np.float32(1 / 134)) ** 2 + ((y + 2) * np.float32(1 / 92)) ** 2)
        result: Array = (rho - taper) * np.float32(104)
        return result

    def hu(self, x: Array, y: Array, z: Array, *, edge_mm: float, lung_hu: float) -> Array:
        """Give Hounsfield units at tissue points; lung and the rest are drawn where they are."""
        pleura = self.pleura_distance(x, y, z)
        shape = pleura.shape
        flat = [np.broadcast_to(values, shape).reshape(-1) for values in (x, y, z)]
        pleura = pleura.reshape(-1)
        image = np.zeros(pleura.size, dtype=np.float32)
        outside = np.flatnonzero(pleura > -edge_mm)
        image[outside] = self._wall(*(values[outside] for values in flat), edge_mm=edge_mm)
        inside = np.flatnonzero(pleura < edge_mm)
        lung = self._lung(*(values[inside] for values in flat)) + np.float32(lung_hu)
        share = occupancy(pleura[inside], edge_mm)
        rim = image[inside] * (1 - share)
        image[inside] = np.where(share < 1, rim + lung * share, lung)
        return image.reshape(shape)

    def _lung(self, x: Array, y: Array, z: Array) -> Array:
        lung = self.texture.at(x, y, z)
        lung *= np.float32(self.texture_hu)
        lung += np.float32(LUNG_HU) + np.float32(self.gravity_hu) * y
        normal_u, normal_y, normal_z = (np.float32(n) for n in self.fissure)
        plane = np.abs(np.float32(self.side) * normal_u * x + normal_y * (y - 8) + normal_z * z)
        lung += np.float32(130) * np.clip(1 - plane * np.float32(1 / 1.3), 0, 1)
        return np.maximum(lung, np.float32(-985), out=lung)

    def _wall(self, x: Array, y: Array, z: Array, *, edge_mm: float) -> Array:
        """Draw skin, fat, muscle, mediastinum, ribs and spine at flat points ``(N,)``."""
        u = np.float32(self.side / self.size) * x
        y = y * np.float32(1 / self.size)
        edge = edge_mm / self.size
        body = _ellipse(u, y, 164, 112)
        image = np.full(u.shape, AIR_HU, dtype=np.float32)
        solid = np.flatnonzero(body < edge)
        u, y, z, body = u[solid], y[solid], z[solid], body[solid]
        flesh = np.full(u.shape, FAT_HU, dtype=np.float32)
        cage = self._cage(u, y, np.float32(1) - (z * np.float32(1 / 210)) ** 2)
        _blend(flesh, cage - np.float32(10), MUSCLE_HU, edge)
        _blend(flesh, -(body + np.float32(2)), 20.0, edge)
        medial = np.flatnonzero(np.abs(u) < 72)
        flesh[medial] = self._organs(
            flesh[medial], u[medial], y[medial], z[medial], cage[medial], edge
        )
        self._ribs(flesh, u, y, z, cage, edge)
        _blend(flesh, -body, AIR_HU, edge)
        image[solid] = flesh
        return image

    def _organs(
        self, image: Array, u: Array, y: Array, z: Array, cage: Array, edge: float
    ) -> Array:
        """Draw heart, great vessels, oesophagus and spine around the midline."""
        left = np.float32(self.side)
        _blend(image, np.maximum(_ellipse(u, y + 8, 60, 78), cage), -60.0, edge)
        _blend(image, _ellipse(u * left - 4, y + 37, 52, 38), 42.0, 1.5 * edge)
        _blend(image, _ellipse(u - 12, y - 4, 17, 15), 40.0, edge)
        back = np.flatnonzero(y > 20)
        image_back, u, y, z = image[back], u[back], y[back], z[back]
        _blend(image_back, _ellipse(u * left - 26, y - 40, 12.5, 12.5), 44.0, edge)
        _blend(image_back, _ellipse(u * left - 4, y - 32, 8, 6), 30.0, edge)
        _blend(image_back, _ellipse(u, y - 80, 44, 26), MUSCLE_HU, edge)
        disc = np.abs(np.mod(z + np.float32(self.rib_phase_mm), np.float32(27)) - 13.5) < 3
        vertebra = _ellipse(u, y - 58, 19, 15)
        _blend(image_back, vertebra, 330.0, edge)
        inner = occupancy(vertebra + 2, edge)
        image_back += (np.where(disc, 85, 165).astype(np.float32) - image_back) * inner
        _blend(image_back, _ellipse(u, y - 82, 13, 11), 300.0, edge)
        _blend(image_back, _ellipse(u, y - 81, 9, 7), 25.0, edge)
        image[back] = image_back
        return image

    def _ribs(self, image: Array, u: Array, y: Array, z: Array, cage: Array, edge: float) -> None:
        """Draw ribs as flat arcs around the cage that descend towards the front (in place)."""
        near = np.flatnonzero((np.abs(cage - 5) < 6) & (np.abs(u) > 12))
        u, y, z = u[near], y[near], z[near]
        across = (cage[near] - np.float32(5)) * np.float32(1 / 4)
        level = z - np.float32(0.5) * y + np.float32(self.rib_phase_mm)
        along = (np.mod(level, np.float32(25)) - np.float32(12.5)) * np.float32(1 / 6.2)
        rib = (np.sqrt(across**2 + along**2) - 1) * np.float32(4.5)
        rib = np.maximum(rib, np.float32(14) - np.abs(u))
        bone = image[near]
        _blend(bone, rib, 420.0, edge)
        _blend(bone, rib + np.float32(1.8), 170.0, edge)
        image[near] = bone


def draw_thorax(texture_seed: int, side: int, rng: np.random.Generator) -> Thorax:
    """Draw a patient's chest."""
    tilt = rng.normal(0.0, 0.06, 2)
    normal = np.array([0.12 + tilt[0], 0.66, 0.74 + tilt[1]])
    normal /= np.linalg.norm(normal)
    offset = rng.uniform(0, TEXTURE_SIZE * TEXTURE_CELL_MM, 3)
    return Thorax(
        side=side,
        size=float(rng.uniform(0.95, 1.05)),
        texture=Texture(texture_seed, (float(offset[0]), float(offset[1]), float(offset[2]))),
        texture_hu=float(rng.uniform(26, 38)),
        gravity_hu=float(rng.uniform(0.15, 0.4)),
        rib_phase_mm=float(rng.uniform(0, 25)),
        fissure=(float(normal[0]), float(normal[1]), float(normal[2])),
    )


def _ellipse(u: Array, y: Array, a: float, b: float) -> Array:
    """Distance to an ellipse around the origin, to first order near its rim."""
    rho = np.sqrt((u * np.float32(1 / a)) ** 2 + (y * np.float32(1 / b)) ** 2)
    result: Array = (rho - 1) * np.float32(math.sqrt(a * b))
    return result


def _blend(image: Array, distance_mm: Array, hu: float, edge_mm: float) -> None:
    """Paint `hu` into `image` where the distance is negative, with a soft edge (in place)."""
    image += (np.float32(hu) - image) * occupancy(distance_mm, edge_mm)
