"""Phantom scenes small enough for tests: one nodule in even tissue, one patient on a small grid."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nognet.phantom.anatomy import Texture
from nognet.phantom.dicom import SeriesHeader
from nognet.phantom.growth import Kind, NodulePlan
from nognet.phantom.motion import Motion, rotation_matrix
from nognet.phantom.nodule import Look, body_at, draw_look
from nognet.phantom.render import PlacedNodule, Scene
from nognet.phantom.tree import Capsules
from nognet.types import Geometry


@dataclass(frozen=True)
class EvenTissue:
    value_hu: float = -850.0

    def hu(
        self,
        x: NDArray[np.float32],
        y: NDArray[np.float32],
        z: NDArray[np.float32],
        *,
        edge_mm: float,
        lung_hu: float,
    ) -> NDArray[np.float32]:
        del y, z, edge_mm
        return np.full(x.shape, self.value_hu + lung_hu, dtype=np.float32)


def still() -> Motion:
    return Motion(np.zeros(3), np.eye(3), np.zeros(3), np.zeros(3))


def moved(angle_rad: float = 0.05, breath_mm: float = 1.5) -> Motion:
    return Motion(
        table_mm=np.array([3.0, -12.0, 210.0]),
        rotation=rotation_matrix(np.array([angle_rad, -angle_rad / 2, angle_rad])),
        breath_mm=np.full(3, breath_mm),
        phase=np.array([0.3, 1.0, 2.0]),
    )


def ball_look() -> Look:
    return Look(
        axes=np.ones(3),
        growth_axes=np.full(3, 1 / 3),
        bumps=np.array([[1.0, 0.0, 0.0]]),
        heights=np.zeros(1),
        sharpness=np.ones(1),
        lengthening=np.zeros(1),
        hu=40.0,
        heterogeneity=0.0,
    )


def nodule_plan(kind: Kind = "smooth", diameter_mm: float = 8.0, rate: float = 0.0) -> NodulePlan:
    return NodulePlan(kind, 0.5, diameter_mm, rate, contrary=False)


def drawn_look(kind: Kind, seed: int) -> Look:
    return draw_look(nodule_plan(kind), np.random.default_rng(seed))


def one_nodule_scene(
    look: Look,
    plan: NodulePlan,
    *,
    days: float = 0.0,
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    motion: Motion | None = None,
) -> Scene:
    nowhere = Capsules(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0))
    nodule = PlacedNodule(np.asarray(centre_mm), body_at(look, plan, days), plan.diameter_mm / 2)
    return Scene(
        tissue=EvenTissue(),
        texture=Texture(1, (0.0, 0.0, 0.0)),
        vessels=nowhere,
        airways=nowhere,
        nodules=(nodule,),
        motion=motion or still(),
    )


def grid(
    *,
    spacing_mm: tuple[float, float, float] = (0.8, 0.8, 1.0),
    extent_mm: float = 36.0,
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Geometry:
    size = tuple(round(extent_mm / s) for s in spacing_mm)
    origin = tuple(c - (n - 1) / 2 * s for c, n, s in zip(centre_mm, size, spacing_mm, strict=True))
    return Geometry(size=size, spacing_mm=spacing_mm, origin_mm=origin)


def series_header(uid_source: str = "test") -> SeriesHeader:
    return SeriesHeader(
        patient_id="PHANTOM-T001",
        patient_name="PHANTOM^T001",
        study_date=dt.date(2015, 3, 4),
        uid_source=uid_source,
        thickness_mm=1.5,
        equipment={"Manufacturer": "TEST", "ConvolutionKernel": "B40f", "KVP": "120"},
    )
