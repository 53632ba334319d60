"""A small model, a CT with one nodule that looks different from each side, and the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from typer.testing import CliRunner, Result

from nognet.commands.main import app
from nognet.config import NetworkConfig, RoiConfig
from nognet.data.sitk_bridge import to_sitk
from nognet.fit.model_file import save_model
from nognet.fit.weights import Weights, initial_weights
from nognet.randomness import torch_generator
from nognet.types import Geometry
from tests.builders.ct_files import geometry, rotation, world_of

ROI = RoiConfig(size_vox=32)
NETWORK = NetworkConfig(width=4, time_features=2, embedding_width=8, attention_heads=2)
GRID = geometry(
    (70, 64, 44), (0.8, 0.8, 1.25), origin=(-31.0, 12.5, -205.0), axes=rotation((12, -8, 15))
)
CENTRE = GRID.index_to_world(np.array([33.3, 30.1, 21.4]))
SHIFT_ZYX_VOX = (0.1, -0.2, 0.3)
RADII_MM = np.array([9.0, 7.0, 8.0])


def ellipsoid(grid: Geometry, centre: np.ndarray) -> np.ndarray:
    """A nodule that looks different from each side."""
    away = (world_of(grid) - centre) / RADII_MM
    return np.asarray((away**2).sum(-1) <= 1.0, dtype=np.uint8)


def write_study(folder: Path, *, centre: np.ndarray = CENTRE) -> tuple[Path, Path]:
    """Write a CT and its mask."""
    mask = ellipsoid(GRID, centre)
    rng = np.random.default_rng(4)
    hu = -850.0 + 60.0 * rng.standard_normal(mask.shape) + 900.0 * mask
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("ct", hu.astype(np.int16)), ("mask", mask)):
        sitk.WriteImage(to_sitk(array, GRID), str(folder / f"{name}.mha"))
    return folder / "ct.mha", folder / "mask.mha"


def lively_weights(*, growth_bias: float, network: NetworkConfig = NETWORK) -> Weights:
    """Weights whose field bends differently along each axis, and a nodule that grows."""
    weights = initial_weights(network, 3)
    generator = torch_generator(3, "lively")
    for name in ("at_half.motion.weight", "refinement.outer.weight"):
        weights[name].normal_(0.0, 0.0005, generator=generator)
    weights["at_quarter.motion.bias"].copy_(
        weights["at_quarter.motion.bias"].new_tensor(SHIFT_ZYX_VOX)
    )
    weights["growth.outer.bias"].fill_(growth_bias)
    return weights


def write_model(
    folder: Path,
    *,
    growth_bias: float = 0.2,
    weights: Weights | None = None,
    network: NetworkConfig = NETWORK,
    roi: RoiConfig = ROI,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.nognet"
    used = lively_weights(growth_bias=growth_bias, network=network) if weights is None else weights
    save_model(path, used, network=network, roi=roi, provenance={"study": "tiny", "round": 7})
    return path


def predict(
    model: Path, study: tuple[Path, Path], out: Path, *days: float | str, more: tuple[str, ...] = ()
) -> Result:
    arguments = ["predict", "--model", model, "--image", study[0], "--mask", study[1], "--out", out]
    arguments += [part for day in days for part in ("--interval-days", day)]
    return CliRunner().invoke(app, [str(argument) for argument in (*arguments, *more)])
