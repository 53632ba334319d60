"""The nodule renderer's geometry: a star-shaped surface with lobes and spicules, of known volume.

In coordinates divided by the axes of an ellipsoid the surface is ``r = R(d)`` for directions ``d``,

    R(d) = 1 + sum_k a_k exp(kappa_k (d . n_k - 1)),

so its volume is ``4 pi / 3 * axes * mean over the sphere of R^3``: a quadrature, no voxels.
The axes are scaled to the volume that the growth law asks for. They are those of the tissue, or
turned: the first along the direction of contact, where the nodule touches something.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nognet.phantom.growth import Kind, NodulePlan

Array = NDArray[np.float32]
SPHERE_POINTS = 4096


@dataclass(frozen=True)
class Look:
    """What is drawn once for a nodule and seen at every date.

    Attributes:
        axes: Relative semi-axes along the nodule's own x, y, z, their product 1.
        growth_axes: Shares of ln V that each axis takes when the nodule grows; their sum is 1.
        bumps: Unit vectors ``(K, 3)`` of lobes and spicules, x, y, z.
        heights: ``(K,)`` height of each bump over the unit sphere; negative dents it.
        sharpness: ``(K,)`` concentration kappa of each bump.
        lengthening: ``(K,)`` relative growth of each bump's height per unit of ln V.
        hu: Density of the body.
        core_hu: Density of the solid core.
        core_fraction: Radius of the core over that of the nodule; 0 without a core.
        condensation: Growth of `core_fraction` per unit of ln V.
        densification_hu: Gain of the body's density per unit of ln V.
        blur_mm: Width of the nodule's own edge, beside the scanner's.
        heterogeneity: Share of the parenchymal texture that shows through.
        frame: ``(3, 3)``; its rows are the nodule's own axes x, y, z in tissue coordinates.
    """

    axes: NDArray[np.float64]
    growth_axes: NDArray[np.float64]
    bumps: NDArray[np.float64]
    heights: NDArray[np.float64]
    sharpness: NDArray[np.float64]
    lengthening: NDArray[np.float64]
    hu: float
    core_hu: float = 40.0
    core_fraction: float = 0.0
    condensation: float = 0.0
    densification_hu: float = 0.0
    blur_mm: float = 0.0
    heterogeneity: float = 0.3
    frame: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))


@dataclass(frozen=True)
class NoduleBody:
    """A nodule at one date, around its own centre.

    Attributes:
        look: Its look, with bumps and core as they are at this date.
        axes_mm: Semi-axes of the ellipsoid, millimetres, x, y, z.
        volume_mm3: Volume inside the surface.
        reach_mm: No point of the surface is farther from the centre.
    """

    look: Look
    axes_mm: NDArray[np.float64]
    volume_mm3: float
    reach_mm: float

    @property
    def radius_mm(self) -> float:
        """Radius of the sphere of the same volume."""
        return float((self.volume_mm3 * 3 / (4 * math.pi)) ** (1 / 3))


def unit_vectors(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw directions ``(count, 3)`` evenly over the sphere."""
    vectors = rng.standard_normal((count, 3))
    result: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return result


@lru_cache(maxsize=4)
def sphere_directions(count: int = SPHERE_POINTS) -> NDArray[np.float64]:
    """Directions ``(count, 3)`` of equal area (Fibonacci lattice)."""
    index = np.arange(count) + 0.5
    z = 1 - 2 * index / count
    azimuth = math.pi * (1 + 5**0.5) * index
    ring = np.sqrt(1 - z**2)
    points = np.stack([ring * np.cos(azimuth), ring * np.sin(azimuth), z], axis=1)
    points.flags.writeable = False
    return points


def draw_look(plan: NodulePlan, rng: np.random.Generator) -> Look:
    """Draw the look that belongs to the plan's kind and aggressiveness."""
    stretch = np.exp(rng.normal(0.0, 0.05 if plan.kind == "smooth" else 0.11, 3))
    weights = 1 / 3 + np.clip(rng.normal(0.0, 0.05, 3), -0.12, 0.12)
    bumps, heights, sharpness, lengthening = _bumps(plan.kind, plan.aggressiveness, rng)
    base = Look(
        axes=stretch / np.prod(stretch) ** (1 / 3),
        growth_axes=weights / weights.sum(),
        bumps=bumps,
        heights=heights,
        sharpness=sharpness,
        lengthening=lengthening,
        hu=30.0 + 15.0 * float(rng.standard_normal()),
    )
    return _with_density(base, plan, rng)


def _bumps(
    kind: Kind, aggressiveness: float, rng: np.random.Generator
) -> tuple[NDArray[np.float64], ...]:
    """Draw lobes, then spicules: directions, heights, sharpness, lengthening."""
    lobes, low, high = {
        "spiculated": (5, 0.05, 0.15),
        "lobulated": (5, 0.15 + 0.1 * aggressiveness, 0.35 + 0.2 * aggressiveness),
        "part_solid": (6, 0.05, 0.25),
        "smooth": (3, 0.0, 0.05),
        "ground_glass": (4, 0.0, 0.15),
        "infectious": (14, -0.25, 0.35),
    }[kind]
    spicules = round(7 + 7 * aggressiveness) if kind == "spiculated" else 0
    tall = rng.uniform(0.3, 0.55 + 0.35 * aggressiveness, spicules)
    return (
        unit_vectors(lobes + spicules, rng),
        np.concatenate([rng.uniform(low, high, lobes), tall]),
        np.concatenate([rng.uniform(5, 9, lobes), rng.uniform(32, 55, spicules)]),
        np.concatenate([rng.normal(0.0, 0.15, lobes), rng.uniform(0.05, 0.3, spicules)]),
    )


def _with_density(look: Look, plan: NodulePlan, rng: np.random.Generator) -> Look:
    if plan.kind == "part_solid":
        return replace(
            look,
            hu=float(rng.normal(-540, 35)),
            core_hu=float(rng.normal(15, 20)),
            core_fraction=0.38 + 0.2 * plan.aggressiveness,
            condensation=0.12,
            densification_hu=60.0,
            blur_mm=0.6,
            heterogeneity=0.6,
        )
    if plan.kind == "ground_glass":
        hu = float(rng.normal(-610, 35))
        return replace(look, hu=hu, densification_hu=120.0, blur_mm=0.7, heterogeneity=0.7)
    if plan.kind == "infectious":
        hu = float(rng.normal(-180, 50))
        return replace(look, hu=hu, densification_hu=60.0, blur_mm=2.0, heterogeneity=1.6)
    return look


def relative_radius(look: Look, directions: NDArray[Any]) -> NDArray[np.float64]:
    """Evaluate R(d) for unit vectors ``(N, 3)`` along the nodule's own axes -> ``(N,)``."""
    cosine = directions @ look.bumps.T
    height: NDArray[np.float64] = np.exp(look.sharpness * (cosine - 1)) @ look.heights
    return np.maximum(1 + height, 0.3)


def body_at(look: Look, plan: NodulePlan, days: float) -> NoduleBody:
    """Give the nodule's body that many days after the first date, of exactly the law's volume."""
    return body_of_volume(look, plan.volume_mm3(days), plan.volume_mm3(0.0))


def body_of_volume(look: Look, volume_mm3: float, first_volume_mm3: float) -> NoduleBody:
    """Grow a look from its first volume to another one."""
    growth = math.log(volume_mm3 / first_volume_mm3)
    lengthening = np.clip(1 + look.lengthening * growth, 0.5, 2.0)
    now = replace(
        look,
        heights=look.heights * lengthening,
        core_fraction=min(look.core_fraction + look.condensation * growth, 0.9)
        if look.core_fraction
        else 0.0,
        hu=look.hu + look.densification_hu * growth,
    )
    relative = look.axes * np.exp((look.growth_axes - 1 / 3) * growth)
    radii = relative_radius(now, sphere_directions())
    unit_volume = 4 * math.pi / 3 * float(np.prod(relative)) * float(np.mean(radii**3))
    axes_mm = relative * (volume_mm3 / unit_volume) ** (1 / 3)
    return NoduleBody(now, axes_mm, volume_mm3, float(radii.max() * axes_mm.max()))


def signed_distance(body: NoduleBody, points_mm: NDArray[Any]) -> Array:
    """Distance to the surface, negative inside, exact in sign and to first order in length.

    Args:
        body: The nodule.
        points_mm: ``(N, 3)`` points from the nodule's centre, tissue's x, y, z.

    Returns:
        ``(N,)`` float32 millimetres: ``(r - R(d)) / |gradient|``.
    """
    look = body.look
    own = points_mm.astype(np.float32) @ look.frame.T.astype(np.float32)
    scaled = own / body.axes_mm.astype(np.float32)
    radius = np.sqrt(np.einsum("nk,nk->n", scaled, scaled)) + np.float32(1e-6)
    direction = scaled / radius[:, None]
    bumps = look.bumps.astype(np.float32)
    cosine = direction @ bumps.T
    lobes = np.exp(look.sharpness.astype(np.float32) * (cosine - 1))
    lobes *= look.heights.astype(np.float32)
    surface = np.maximum(1 + lobes.sum(axis=1), np.float32(0.3))
    lobes *= look.sharpness.astype(np.float32)
    along = np.einsum("nk,nk->n", lobes, cosine)
    # the slope is taken on the surface, so that the distance is monotonic along every ray
    gradient = direction - (lobes @ bumps - direction * along[:, None]) / surface[:, None]
    gradient /= body.axes_mm.astype(np.float32)
    steepness = np.sqrt(np.einsum("nk,nk->n", gradient, gradient))
    result: Array = (radius - surface) / np.maximum(steepness, np.float32(1e-3))
    return result
