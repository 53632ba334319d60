"""CT studies on disk of which all is known: a phantom's nodule scanned on any grid, at any pose."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nognet.phantom.dicom import write_ct_series, write_rtstruct, write_seg
from nognet.phantom.motion import Motion
from nognet.phantom.nodule import body_of_volume
from nognet.phantom.patient import PhantomPatient, draw_patient, plan_patients
from nognet.phantom.render import (
    PlacedNodule,
    Scene,
    draw_noise,
    render_hu,
    render_soft_mask,
)
from nognet.phantom.scanner import SCANNERS
from nognet.types import Geometry, Matrix3, Volume
from tests.builders.ct_files import geometry, rotation
from tests.builders.phantom_scene import ball_look, series_header

Triple = tuple[float, float, float]
OFF_GRID_MM = np.array([0.137, 0.291, 0.413])
"""No nodule lies exactly on a voxel: by symmetry whole shells of voxels would tie, and no mask on
that grid could have the true volume (a 6 mm sphere misses it by 3 %)."""


@dataclass(frozen=True)
class Acquisition:
    """How a study is taken, and where the patient lies.

    Attributes:
        spacing_mm: Of the voxels.
        oblique_degrees: Angles of the scan's axes about x, y, z.
        flipped: Whether the axes x, y, z run the other way (their directions are negative).
        turned_degrees: Angles that the patient is turned by.
        table_mm: Where the nodule lies.
        aside_mm: How far from the field's centre it lies, along the scan's axes.
        breath_mm: Amplitude of the breath (see `Motion`).
        rtstruct: The mask is an RTSTRUCT and no SEG.
        scanner: Noise and sharpness, 0 to 2.
    """

    spacing_mm: Triple = (0.75, 0.75, 1.0)
    oblique_degrees: Triple = (0.0, 0.0, 0.0)
    flipped: tuple[bool, bool, bool] = (False, False, False)
    turned_degrees: Triple = (0.0, 0.0, 0.0)
    table_mm: Triple = (0.0, 0.0, 0.0)
    aside_mm: Triple = (0.0, 0.0, 0.0)
    breath_mm: Triple = (0.0, 0.0, 0.0)
    rtstruct: bool = False
    scanner: int = 0


@dataclass(frozen=True)
class TrueNodule:
    """A nodule of known shape: an ellipsoid.

    Attributes:
        volume_mm3: Its volume.
        first_volume_mm3: That at the first time; what it gained pushes lung away.
        axes: Relative semi-axes.
    """

    volume_mm3: float
    first_volume_mm3: float
    axes: Triple = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Scanned:
    """A study in memory.

    Attributes:
        ct: HU, int16.
        soft_mask: ``(D, H, W)``, above 0.5 inside the nodule.
        centre_mm: The nodule's true centre in LPS.
        motion: From the scan's own axes to the patient's tissue.
        axes: ``(3, 3)`` the scan's axes in LPS, not flipped.
    """

    ct: Volume
    soft_mask: NDArray[np.float32]
    centre_mm: NDArray[np.float64]
    motion: Motion
    axes: NDArray[np.float64]

    @property
    def mask(self) -> NDArray[np.uint8]:
        return (self.soft_mask > 0.5).astype(np.uint8)

    def to_tissue(self, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map LPS points ``(N, 3)`` to the patient's tissue."""
        return np.stack(self.motion.to_tissue(*(points_mm @ self.axes).T), axis=1).astype(float)

    def from_tissue(self, tissue_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map tissue points ``(N, 3)`` to LPS."""
        return np.asarray(self.motion.to_scan(tissue_mm) @ self.axes.T)


@cache
def patient(seed: int) -> PhantomPatient:
    """Draw a patient: lung, vessels, airways, chest wall."""
    return draw_patient(plan_patients(0, 2, seed)[0], seed)


def scan(
    who: PhantomPatient,
    nodule: TrueNodule,
    how: Acquisition,
    *,
    field_mm: float = 84.0,
    noise_seed: int = 0,
) -> Scanned:
    """Scan a patient's surroundings of the first nodule's place, with a nodule of known volume."""
    axes = rotation(how.oblique_degrees)
    turned = rotation(how.turned_degrees)
    place = np.asarray(who.nodules[0].centre_mm)
    motion = Motion(
        table_mm=axes.T @ np.asarray(how.table_mm) - (turned @ axes).T @ place,
        rotation=turned @ axes,
        breath_mm=np.asarray(how.breath_mm),
        phase=np.array([0.3, 1.0, 2.0]),
    )
    look = replace(ball_look(), axes=np.asarray(how_round(nodule.axes)))
    body = body_of_volume(look, nodule.volume_mm3, nodule.first_volume_mm3)
    first_radius = (nodule.first_volume_mm3 * 3 / (4 * np.pi)) ** (1 / 3)
    placed = PlacedNodule(place, body, float(first_radius))
    scene = Scene(who.tissue, who.texture, who.vessels, who.airways, (placed,), motion)
    middle = motion.to_scan(place[None])[0]
    grid = _field(middle + np.asarray(how.aside_mm) + OFF_GRID_MM, how.spacing_mm, field_mm)
    scanner = SCANNERS[how.scanner]
    hu = render_hu(scene, grid, scanner.edge_mm)
    hu += draw_noise(hu.shape, scanner, np.random.default_rng(noise_seed))
    whole = np.clip(np.rint(hu), -1024, 3000).astype(np.int16)
    lying, backwards = _lying(grid, axes, how.flipped)
    return Scanned(
        ct=Volume(np.ascontiguousarray(whole[backwards]), lying),
        soft_mask=np.ascontiguousarray(render_soft_mask(scene, placed, grid)[backwards]),
        centre_mm=axes @ middle,
        motion=motion,
        axes=axes,
    )


def how_round(axes: Triple) -> Triple:
    """Scale relative semi-axes to a product of 1."""
    x, y, z = (np.asarray(axes) / np.prod(axes) ** (1 / 3)).tolist()
    return x, y, z


def write_study(folder: Path, scanned: Scanned, how: Acquisition) -> tuple[Path, Path]:
    """Write CT and mask as DICOM; gives the CT's folder and the mask's file."""
    header = series_header(folder.name)
    files = write_ct_series(scanned.ct, folder / "ct", header)
    mask = folder / "mask.dcm"
    grid = scanned.ct.geometry
    if how.rtstruct:
        write_rtstruct({"nodule": scanned.soft_mask}, grid, header, mask)
    else:
        write_seg({"nodule": scanned.mask}, grid, header, mask, ct_files=files)
    return folder / "ct", mask


def _field(centre: NDArray[np.float64], spacing: Triple, field_mm: float) -> Geometry:
    nx, ny, nz = (int(field_mm / s) for s in spacing)
    x, y, z = (centre - (np.array([nx, ny, nz]) - 1) / 2 * np.asarray(spacing)).tolist()
    return geometry((nx, ny, nz), spacing, origin=(x, y, z))


def _lying(
    grid: Geometry, axes: NDArray[np.float64], flipped: tuple[bool, bool, bool]
) -> tuple[Geometry, tuple[slice, slice, slice]]:
    """Lay a grid along a scan's axes, some of them the other way round, and say how to index."""
    sign = np.where(flipped, -1.0, 1.0)
    first = np.where(flipped, np.array(grid.size) - 1.0, 0.0)
    x, y, z = (axes @ grid.index_to_world(first)).tolist()
    rows = tuple(tuple(float(v) for v in row) for row in axes * sign)
    direction: Matrix3 = rows  # type: ignore[assignment]  # three rows of three
    fx, fy, fz = (slice(None, None, -1 if f else 1) for f in flipped)
    return Geometry(grid.size, grid.spacing_mm, (x, y, z), direction), (fz, fy, fx)
