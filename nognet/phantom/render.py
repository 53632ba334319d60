"""Render one date of a patient onto a voxel grid: tissue, vessels, airways, nodules, noise, mask.

Whole studies and ROI examples are drawn here, by the same code. Noise is drawn apart, so that the
noiseless image of a date is a function of the scene alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nognet.phantom.anatomy import Texture, Tissue, occupancy
from nognet.phantom.motion import Motion
from nognet.phantom.nodule import NoduleBody, signed_distance
from nognet.phantom.scanner import Scanner
from nognet.phantom.tree import Capsules
from nognet.types import Geometry

Array = NDArray[np.float32]
Box = tuple[slice, slice, slice]
PUSH_SHARE, PUSH_REACH_MM = 0.75, 7.0
VESSEL_HU, WALL_HU, LUMEN_HU = 35.0, -120.0, -985.0


@dataclass(frozen=True)
class PlacedNodule:
    """A nodule of one date in the patient.

    Attributes:
        centre_mm: Tissue coordinates x, y, z at this date.
        body: Shape and density at this date.
        first_radius_mm: Effective radius at the first date; what it gained pushes lung away.
        contact: Unit vector ``(3,)`` towards the pleura or vessel that it touches, which is not
            pushed and shows through; None where it touches nothing.
    """

    centre_mm: NDArray[np.float64]
    body: NoduleBody
    first_radius_mm: float
    contact: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Scene:
    """A patient at one date, ready to be scanned.

    Attributes:
        tissue: Chest wall and lung.
        texture: Texture that shows through the nodules.
        vessels: Branches of arteries and veins.
        airways: Lumina of bronchi.
        nodules: The nodules as they are at this date.
        motion: Position and breath.
    """

    tissue: Tissue
    texture: Texture
    vessels: Capsules
    airways: Capsules
    nodules: tuple[PlacedNodule, ...]
    motion: Motion


def grid_axes(geometry: Geometry) -> tuple[NDArray[np.float64], ...]:
    """World coordinates along x, y, z of an axis-aligned grid, shaped to broadcast to (D, H, W)."""
    x, y, z = (
        (origin + np.arange(size) * step).astype(np.float64)
        for origin, size, step in zip(
            geometry.origin_mm, geometry.size, geometry.spacing_mm, strict=True
        )
    )
    return x[None, None, :], y[None, :, None], z[:, None, None]


def render_hu(scene: Scene, geometry: Geometry, edge_mm: float) -> Array:
    """Render the noiseless CT ``(D, H, W)`` float32 in Hounsfield units.

    Args:
        scene: The patient at one date.
        geometry: An axis-aligned grid (identity direction) in the scan's frame.
        edge_mm: The scanner's resolution, as in `occupancy`.
    """
    tissue = list(scene.motion.to_tissue(*grid_axes(geometry)))
    for nodule in scene.nodules:
        _push_lung_away(tissue, nodule, scene.motion, geometry)
    image = scene.tissue.hu(*tissue, edge_mm=edge_mm, lung_hu=scene.motion.lung_hu)
    _paint_branches(image, _in_scan(scene.vessels, scene), geometry, edge_mm, VESSEL_HU)
    airways = _in_scan(scene.airways, scene)
    walls = Capsules(airways.start_mm, airways.end_mm, airways.radius_mm * 1.12 + 0.55)
    _paint_branches(image, walls, geometry, edge_mm, WALL_HU)
    _paint_branches(image, airways, geometry, edge_mm, LUMEN_HU)
    for nodule in scene.nodules:
        _paint_nodule(image, tissue, scene, nodule, geometry, edge_mm)
    return image


def render_soft_mask(scene: Scene, nodule: PlacedNodule, geometry: Geometry) -> Array:
    """Mark the nodule ``(D, H, W)`` by a field that is above 0.5 inside and 0.5 on its surface.

    The surface is moved, by hundredths of a millimetre, so that the voxels inside are as many as
    the volume holds: the count of a small nodule otherwise errs by percents with its place on the
    grid.
    """
    field = np.zeros(geometry.size[::-1], dtype=np.float32)
    spacing = min(geometry.spacing_mm)
    box, distance = nodule_distance(nodule, scene.motion, geometry, margin_mm=2 * spacing)
    if distance.size == 0:
        return field
    count = round(nodule.body.volume_mm3 / geometry.voxel_volume_mm3)
    ordered = np.sort(distance, axis=None)
    last = min(max(count, 1), ordered.size - 1)
    level = float(ordered[last - 1] + ordered[last]) / 2
    # a nodule that the grid cuts off has fewer voxels than its volume: no level makes up for that
    level = float(np.clip(level, -0.35 * spacing, 0.35 * spacing))
    field[box] = np.clip(0.5 + (level - distance) / (2 * spacing), 0, 1)
    return field


def render_mask(scene: Scene, nodule: PlacedNodule, geometry: Geometry) -> NDArray[np.uint8]:
    """Mark the nodule's voxels ``(D, H, W)``: where `render_soft_mask` is above 0.5."""
    return (render_soft_mask(scene, nodule, geometry) > 0.5).astype(np.uint8)


def nodule_distance(
    nodule: PlacedNodule, motion: Motion, geometry: Geometry, *, margin_mm: float
) -> tuple[Box, Array]:
    """Signed distance to the nodule's surface in the box of the grid that holds it."""
    centre = motion.to_scan(nodule.centre_mm[None])[0]
    box, offsets = _box_around(centre, nodule.body.reach_mm + margin_mm, geometry)
    shape = tuple(part.stop - part.start for part in box)
    points = np.stack([np.broadcast_to(o, shape).reshape(-1) for o in offsets], axis=1)
    # the nodule is stiff: it turns and moves with its surroundings, but doesn't breathe
    turned = points @ motion.rotation.T.astype(np.float32)
    return box, signed_distance(nodule.body, turned).reshape(shape)


def draw_noise(shape: tuple[int, ...], scanner: Scanner, rng: np.random.Generator) -> Array:
    """Draw the scanner's noise ``(D, H, W)``: independent by slice, correlated by its kernel."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    kernel = np.array([1.0])
    for _ in range(abs(scanner.noise_blur)):
        kernel = np.convolve(kernel, [0.25, 0.5, 0.25])
    smooth = _smooth_in_plane(noise, abs(scanner.noise_blur))
    power = float(np.sum(kernel**2)) ** 2
    if scanner.noise_blur >= 0:
        return smooth * np.float32(scanner.noise_hu / math.sqrt(power))
    centre = float(kernel.max()) ** 2
    sharp = noise - np.float32(0.6) * smooth
    power = 1 - 2 * 0.6 * centre + 0.36 * power
    return sharp * np.float32(scanner.noise_hu / math.sqrt(power))


def _smooth_in_plane(noise: Array, passes: int) -> Array:
    for _ in range(passes):
        for axis in (1, 2):
            before, after = np.roll(noise, 1, axis), np.roll(noise, -1, axis)
            noise = np.float32(0.5) * noise + np.float32(0.25) * (before + after)
    return noise


def _box_around(
    centre_mm: NDArray[np.float64], reach_mm: float, geometry: Geometry
) -> tuple[Box, tuple[Array, ...]]:
    """Give the index box within reach of a point, and offsets x, y, z (broadcastable) from it."""
    slices, offsets = [], []
    for axis in (2, 1, 0):
        spacing, origin = geometry.spacing_mm[axis], geometry.origin_mm[axis]
        low = math.ceil((centre_mm[axis] - reach_mm - origin) / spacing)
        high = math.floor((centre_mm[axis] + reach_mm - origin) / spacing) + 1
        low, high = max(low, 0), min(high, geometry.size[axis])
        slices.append(slice(low, max(high, low)))
        offset = origin + np.arange(low, max(high, low)) * spacing - centre_mm[axis]
        position = [1, 1, 1]
        position[2 - axis] = -1
        offsets.append(offset.astype(np.float32).reshape(position))
    return (slices[0], slices[1], slices[2]), (offsets[2], offsets[1], offsets[0])


def _push_mm(distance_mm: NDArray[Any], nodule: PlacedNodule) -> NDArray[Any]:
    """How far tissue that is now at this distance was moved outwards since the first date."""
    radius = nodule.body.radius_mm
    gain = PUSH_SHARE * (radius - nodule.first_radius_mm)
    push = gain * np.exp(-np.maximum(distance_mm - radius, 0) / PUSH_REACH_MM)
    result: NDArray[Any] = np.minimum(push, 0.8 * distance_mm)
    return result


def _push_lung_away(
    tissue: list[Array], nodule: PlacedNodule, motion: Motion, geometry: Geometry
) -> None:
    """Shift the tissue coordinates around a nodule that has grown or shrunk (in place)."""
    if abs(nodule.body.radius_mm - nodule.first_radius_mm) < 1e-3:
        return
    centre = motion.to_scan(nodule.centre_mm[None])[0]
    box, offsets = _box_around(centre, nodule.body.radius_mm + 3 * PUSH_REACH_MM, geometry)
    distance = np.sqrt(offsets[0] ** 2 + offsets[1] ** 2 + offsets[2] ** 2) + np.float32(1e-3)
    share = _push_mm(distance, nodule).astype(np.float32) / distance
    turn = motion.rotation.astype(np.float32)
    towards = [sum(turn[row, axis] * offsets[axis] for axis in range(3)) for row in range(3)]
    if nodule.contact is not None:
        cosine = sum(towards[row] * np.float32(nodule.contact[row]) for row in range(3)) / distance
        share *= _yielding(cosine)
    for row in range(3):
        tissue[row][box] -= share * towards[row]


def _yielding(cosine: NDArray[Any]) -> NDArray[Any]:
    """How far what lies in a direction gives way, by its cosine with the contact's: 0 towards it.

    A factor by direction alone keeps the push radial, and so the map one to one.
    """
    result: NDArray[Any] = 1 - np.clip(cosine, 0, 1)
    return result


def _in_scan(branches: Capsules, scene: Scene) -> Capsules:
    """Move branches to where they are in the scan, pushed aside by what nodules have gained."""
    if not len(branches.radius_mm):
        return branches
    ends = np.concatenate([branches.start_mm, branches.end_mm])
    for nodule in scene.nodules:
        away = ends - nodule.centre_mm
        was = np.linalg.norm(away, axis=1) + 1e-6
        share = 1.0 if nodule.contact is None else _yielding(away @ nodule.contact / was)
        now = was
        for _ in range(8):
            now = was + share * _push_mm(now, nodule)
        ends = nodule.centre_mm + away * (now / was)[:, None]
    ends = scene.motion.to_scan(ends)
    half = len(branches.radius_mm)
    return Capsules(ends[:half], ends[half:], branches.radius_mm)


def _paint_branches(
    image: Array, branches: Capsules, geometry: Geometry, edge_mm: float, hu: float
) -> None:
    """Paint straight round pieces into their bounding boxes (in place)."""
    reach = branches.radius_mm + edge_mm
    origin, spacing = np.asarray(geometry.origin_mm), np.asarray(geometry.spacing_mm)
    lower = np.minimum(branches.start_mm, branches.end_mm) - reach[:, None]
    upper = np.maximum(branches.start_mm, branches.end_mm) + reach[:, None]
    low = np.maximum(np.ceil((lower - origin) / spacing), 0).astype(int)
    high = np.minimum(np.floor((upper - origin) / spacing) + 1, geometry.size).astype(int)
    for index in np.flatnonzero((high > low).all(axis=1)):
        axes = [
            (origin[a] + np.arange(low[index, a], high[index, a]) * spacing[a]).astype(np.float32)
            for a in range(3)
        ]
        distance = _capsule_distance(axes, branches, index)
        radius = float(branches.radius_mm[index])
        share = occupancy(distance, edge_mm)
        # a piece thinner than the resolution shows only in part
        share *= np.float32(1 - math.exp(-2.5 * (radius / edge_mm) ** 2))
        box = tuple(slice(low[index, a], high[index, a]) for a in (2, 1, 0))
        image[box] += (np.float32(hu) - image[box]) * share


def _capsule_distance(axes: list[Array], branches: Capsules, index: np.intp) -> Array:
    """Distance ``(D, H, W)`` to one piece's surface on a grid given by its axes x, y, z."""
    start = branches.start_mm[index].astype(np.float32)
    along = branches.end_mm[index].astype(np.float32) - start
    x = (axes[0] - start[0])[None, None, :]
    y = (axes[1] - start[1])[None, :, None]
    z = (axes[2] - start[2])[:, None, None]
    length2 = np.float32(along @ along + 1e-6)
    dot = (x * along[0] + y * along[1]) + z * along[2]
    square = (x * x + y * y) + z * z
    share = np.clip(dot / length2, 0, 1)
    square += share * (share * length2 - 2 * dot)
    result: Array = np.sqrt(np.maximum(square, 0)) - np.float32(branches.radius_mm[index])
    return result


def _paint_nodule(
    image: Array,
    tissue: list[Array],
    scene: Scene,
    nodule: PlacedNodule,
    geometry: Geometry,
    edge_mm: float,
) -> None:
    look = nodule.body.look
    edge = math.hypot(edge_mm, look.blur_mm)
    box, distance = nodule_distance(nodule, scene.motion, geometry, margin_mm=edge)
    grain = scene.texture.at(*(values[box] for values in tissue))
    density = np.float32(look.hu) + np.float32(30 * look.heterogeneity) * grain
    if look.core_fraction:
        inset = np.float32((1 - look.core_fraction) * nodule.body.radius_mm)
        core = occupancy(distance + inset, math.hypot(edge_mm, 0.4))
        density += (np.float32(look.core_hu) - density) * core
    if nodule.contact is not None:  # what it touches keeps its place where both overlap
        density = np.maximum(density, image[box])
    image[box] += (density - image[box]) * occupancy(distance, edge)
