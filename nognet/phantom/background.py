"""Semi-synthetic patients: nodules of the phantom's law grown inside a real CT.

The real CT is tissue like the drawn thorax is: sampled where the patient's points lie at each date,
pushed aside by growth, with the scanner's noise on top. Its own noise is the same at all dates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nognet.errors import SiteDataError
from nognet.phantom.anatomy import TEXTURE_CELL_MM, TEXTURE_SIZE, Array, Texture
from nognet.phantom.patient import PatientPlan, PhantomNodule, PhantomPatient, draw_nodules
from nognet.phantom.tree import Capsules
from nognet.randomness import derived_seed, numpy_generator
from nognet.types import Geometry, Volume

LUNG_THRESHOLD_HU = -600.0
OUTSIDE_HU = -1024.0
OUTSIDE_AIR_HU = -975.0
LEVEL_SPREAD_MM = 8.0
WALL_GAP_MM = 2.0
NEIGHBOUR_GAP_MM = 14.0
STACK_MARGIN_MM = 26.0


@dataclass(frozen=True)
class RealTissue:
    """A real CT as tissue; its world frame is the tissue frame."""

    volume: Volume

    def hu(self, x: Array, y: Array, z: Array, *, edge_mm: float, lung_hu: float) -> Array:
        """Interpolate linearly at tissue points; outside the CT it is air."""
        del edge_mm  # a real image brings its own resolution
        image = sample(self.volume, x, y, z)
        lung = np.clip((np.float32(-500) - image) * np.float32(1 / 200), 0, 1)
        result: Array = image + np.float32(lung_hu) * lung
        return result


@dataclass(frozen=True)
class Background:
    """A real CT and where in it nodules may be put.

    Attributes:
        tissue: The CT.
        places_mm: ``(N, 3)`` world positions of lung voxels.
        depth_mm: ``(N,)`` distance of each to what is not lung.
        near_end: ``(N,)`` whether the stack ends within the ROI's reach.
    """

    tissue: RealTissue
    places_mm: NDArray[np.float64]
    depth_mm: NDArray[np.float64]
    near_end: NDArray[np.bool_]


def sample(volume: Volume, x: Array, y: Array, z: Array) -> Array:
    """Interpolate a volume linearly at world points of any one shape."""
    geometry = volume.geometry
    to_index = (
        np.linalg.inv(np.asarray(geometry.direction)) / np.asarray(geometry.spacing_mm)[:, None]
    )
    shifted = [v - np.float32(o) for v, o in zip((x, y, z), geometry.origin_mm, strict=True)]
    index = [
        sum(np.float32(to_index[row, axis]) * shifted[axis] for axis in range(3))
        for row in range(3)
    ]
    size = geometry.size
    low, share = [], []
    inside = np.ones(x.shape, dtype=bool)
    for values, count in zip(index, size, strict=True):
        inside &= (values >= -0.5) & (values <= count - 0.5)
        floor = np.clip(np.floor(values), 0, max(count - 2, 0)).astype(np.int32)
        low.append(floor)
        share.append(np.clip(values - floor, 0, 1).astype(np.float32))
    flat = np.asarray(volume.array, dtype=np.float32).reshape(-1)
    result = np.zeros(x.shape, dtype=np.float32)
    for corner in range(8):
        steps = [(corner >> axis) & 1 for axis in range(3)]
        weight = np.ones(x.shape, dtype=np.float32)
        for axis in range(3):
            weight *= share[axis] if steps[axis] else 1 - share[axis]
        i, j, k = (np.minimum(low[axis] + steps[axis], size[axis] - 1) for axis in range(3))
        result += weight * flat.take((k * size[1] + j) * size[0] + i)
    result[~inside] = OUTSIDE_HU
    return result


def read_background(path: Path) -> Volume:
    """Read a CT: a folder of one DICOM series, or a NIfTI, NRRD or MetaImage file.

    Raises:
        SiteDataError: it can't be read, or is not a volume of Hounsfield units.
    """
    import SimpleITK as sitk

    if not path.exists():
        raise SiteDataError(f"{path}: no such file or folder; give a CT to grow nodules in")
    try:
        if path.is_dir():
            reader = sitk.ImageSeriesReader()
            reader.SetFileNames(_series_files(path))
            image = reader.Execute()
        else:
            image = sitk.ReadImage(str(path))
    except RuntimeError as err:
        raise SiteDataError(
            f"{path}: SimpleITK can't read it; give a DICOM folder, NIfTI, NRRD or MHA file"
        ) from err
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise SiteDataError(
            f"{path}: found {image.GetDimension()} dimensions of "
            f"{image.GetNumberOfComponentsPerPixel()} components, expected a volume of scalars"
        )
    array = sitk.GetArrayFromImage(image).astype(np.float32)
    d = [float(value) for value in image.GetDirection()]
    geometry = Geometry(
        size=image.GetSize(),
        spacing_mm=image.GetSpacing(),
        origin_mm=image.GetOrigin(),
        direction=((d[0], d[1], d[2]), (d[3], d[4], d[5]), (d[6], d[7], d[8])),
    )
    return Volume(array, geometry)


def _series_files(folder: Path) -> Sequence[str]:
    """List the files of the folder's only series, in order.

    Raises:
        SiteDataError: the folder holds no series, or several.
    """
    import SimpleITK as sitk

    ids = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if len(ids) != 1:
        raise SiteDataError(
            f"{folder}: found {len(ids)} DICOM series, expected one; give the folder of one CT"
        )
    files: Sequence[str] = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), ids[0])
    return files


@lru_cache(maxsize=1)
def load_background(path: Path) -> Background:
    """Read a CT and find its lung by threshold, apart from the air around the patient.

    Raises:
        SiteDataError: it can't be read or shows no lung.
    """
    volume = read_background(path)
    depth = lung_depth_mm(volume)
    index = np.argwhere(depth > WALL_GAP_MM + 3.0)
    if not len(index):
        raise SiteDataError(
            f"{path}: no lung found (voxels below {LUNG_THRESHOLD_HU:g} HU, enclosed by tissue, "
            f"{WALL_GAP_MM + 3:g} mm deep); give a chest CT in Hounsfield units"
        )
    # a nodule near the stack's ends would be followed half in the dark: those come last
    to_end = np.minimum(index[:, 0], depth.shape[0] - 1 - index[:, 0])
    near_end = to_end * volume.geometry.spacing_mm[2] < STACK_MARGIN_MM
    places = volume.geometry.index_to_world(index[:, ::-1].astype(np.float64))
    return Background(
        RealTissue(volume), places, depth[tuple(index.T)].astype(np.float64), near_end
    )


def lung_depth_mm(volume: Volume) -> NDArray[np.float32]:
    """Distance of every lung voxel to what isn't lung ``(D, H, W)``; 0 outside lung."""
    import SimpleITK as sitk

    dark = sitk.GetImageFromArray((volume.array < LUNG_THRESHOLD_HU).astype(np.uint8))
    dark.SetSpacing(volume.geometry.spacing_mm)
    opened = sitk.BinaryMorphologicalClosing(dark, [1, 1, 1])
    labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(opened))
    # the air around the patient touches the image's sides; a lung that a crop cuts off may too,
    # but is denser than air
    sides = (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1])
    outside = [
        label
        for label in np.unique(np.concatenate([side.reshape(-1) for side in sides]))
        if label and np.median(volume.array[labels == label]) < OUTSIDE_AIR_HU
    ]
    lung = (labels > 0) & ~np.isin(labels, outside)
    image = sitk.GetImageFromArray(lung.astype(np.uint8))
    image.SetSpacing(volume.geometry.spacing_mm)
    distance = sitk.SignedMaurerDistanceMap(
        image, insideIsPositive=True, squaredDistance=False, useImageSpacing=True
    )
    result: NDArray[np.float32] = np.where(lung, sitk.GetArrayFromImage(distance), 0)
    return result.astype(np.float32)


def draw_patient_in(plan: PatientPlan, seed: int, path: Path) -> PhantomPatient:
    """Draw the plan's nodules into a real CT.

    Raises:
        SiteDataError: the CT can't be read, shows no lung, or has no room for the nodules.
    """
    background = load_background(path)
    rng = numpy_generator(seed, "phantom", "in background", plan.site, plan.number)
    drawn = draw_nodules(plan, rng)
    centres = _find_room(background, [reach for _, _, reach in drawn], rng, path)
    offset: Any = rng.uniform(0, TEXTURE_SIZE * TEXTURE_CELL_MM, 3)
    return PhantomPatient(
        plan=plan,
        tissue=background.tissue,
        texture=Texture(derived_seed(seed, "phantom", "site", plan.site), tuple(offset.tolist())),
        middle_mm=np.mean(centres, axis=0),
        vessels=_nothing(),
        airways=_nothing(),
        nodules=tuple(
            PhantomNodule(fate, look, centre)
            for (fate, look, _), centre in zip(drawn, centres, strict=True)
        ),
    )


def _find_room(
    background: Background, reaches_mm: Sequence[float], rng: np.random.Generator, path: Path
) -> list[NDArray[np.float64]]:
    order = rng.permutation(len(background.depth_mm))
    order = order[np.argsort(background.near_end[order], kind="stable")]
    places, depth = background.places_mm[order], background.depth_mm[order]
    chosen: list[NDArray[np.float64]] = []
    for reach in reaches_mm:
        fits = depth > reach + WALL_GAP_MM
        for other, other_reach in zip(chosen, reaches_mm, strict=False):
            fits &= np.abs(places[:, 2] - other[2]) < LEVEL_SPREAD_MM
            gap = np.linalg.norm(places - other, axis=1) - reach - other_reach
            fits &= gap > NEIGHBOUR_GAP_MM
        found = np.flatnonzero(fits)
        if not len(found):
            raise SiteDataError(
                f"{path}: no place for {len(reaches_mm)} nodules that reach "
                f"{max(reaches_mm):.0f} mm; the deepest lung voxel is {depth.max():.0f} mm from a "
                "wall; give a CT with more lung"
            )
        chosen.append(places[found[0]])
    return chosen


def _nothing() -> Capsules:
    return Capsules(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0))
