"""A hospital's folder on disk: patients with nodules in textured tissue, a table, a site.yaml."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nognet.config import PreparationConfig, RegistrationConfig, RoiConfig, SiteConfig
from nognet.types import Geometry
from tests.builders.ct_files import ball, geometry, middle, write_image, write_series

GRID = geometry((84, 72, 36), (1.2, 1.2, 2.0), origin=(-30.0, -30.0, -100.0))
"""100 x 86 x 72 mm: room for two nodules apart."""
HEADER = "patient,nodule,date,image,mask,segment,series"
Offset = tuple[float, float, float]


@functools.cache
def tissue(seed: int, grid: Geometry = GRID) -> NDArray[np.float64]:
    """Lung with smooth structures of random places, and a chest wall, in HU."""
    rng = np.random.default_rng(seed)
    noise = sitk.GetImageFromArray(rng.normal(size=grid.size[::-1]).astype(np.float32))
    smooth = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(noise, 2.0))
    hu = -860 + 500 * np.maximum(smooth / smooth.std() - 1, 0)
    hu[:, :8] = 40
    result: NDArray[np.float64] = np.clip(hu, -1000, 300)
    result.setflags(write=False)
    return result


def nodule(offset_mm: Offset, radius_mm: float, grid: Geometry = GRID) -> NDArray[np.uint8]:
    """A ball at an offset from the grid's middle."""
    return ball(grid, middle(grid) + np.asarray(offset_mm), radius_mm)


@dataclass(frozen=True)
class Scan:
    """A CT of a patient: nodules by name, each an offset in mm and a radius in mm.

    Attributes:
        date: Day in the table.
        nodules: All that the CT shows.
        seed: Of the tissue; the same at all times of a patient.
        tags: DICOM tags to set.
        dirt: Adds so much HU of noise, so that no two CTs are equal.
    """

    date: str
    nodules: Mapping[str, tuple[Offset, float]]
    seed: int = 0
    tags: Mapping[str, Any] = field(default_factory=dict)
    dirt: float = 3.0

    def hounsfield(self, grid: Geometry = GRID) -> NDArray[np.float64]:
        """The CT's values."""
        hu = tissue(self.seed, grid).copy()
        for offset, radius in self.nodules.values():
            hu[nodule(offset, radius, grid) > 0] = 40
        key = [self.seed, int(self.date.replace("-", ""))]
        noise = np.random.default_rng(key).normal(0, self.dirt, hu.shape)
        return np.round(hu + noise)


def write_scan(folder: Path, scan: Scan) -> None:
    """Write ``ct/`` and a mask a nodule, ``<name>.nrrd``."""
    write_series(folder / "ct", scan.hounsfield(), GRID, **scan.tags)
    for name, (offset, radius) in scan.nodules.items():
        write_image(folder / f"{name}.nrrd", nodule(offset, radius), GRID)


def write_table(folder: Path, rows: Sequence[Sequence[str]]) -> Path:
    """Write `studies.csv`."""
    path = folder / "studies.csv"
    lines = [HEADER, *(",".join([*row, *[""] * (7 - len(row))]) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def site_config(folder: Path, **limits: Any) -> SiteConfig:
    """A site whose registration looks at 20 mm around nodules; `limits` change the preparation."""
    values = {"workers": 1, "registration": RegistrationConfig(region_margin_mm=20.0), **limits}
    return SiteConfig(
        name="here",
        studies=folder / "studies.csv",
        cache=folder / "cache",
        state=folder / "state",
        roi=RoiConfig(size_vox=32),
        preparation=PreparationConfig(**values),
    )


VISITS = (("2020-01-01", 4.0), ("2021-01-01", 5.0))


def write_growing_site(
    folder: Path,
    patients: Sequence[str],
    *,
    visits: Sequence[tuple[str, float]] = VISITS,
    **limits: Any,
) -> SiteConfig:
    """Each patient has one nodule ``n`` in its own tissue, at two dates or those of `visits`."""
    rows = []
    for seed, patient in enumerate(patients):
        for date, radius in visits:
            place = folder / patient / date
            write_scan(place, Scan(date, {"n": ((0.0, 0.0, 0.0), radius)}, seed))
            rows.append([patient, "n", date, f"{patient}/{date}/ct", f"{patient}/{date}/n.nrrd"])
    write_table(folder, rows)
    return site_config(folder, **limits)
