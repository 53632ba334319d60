"""Images, masks and per-pair rows to measure metrics and statistics on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nognet.metrics.definitions import PAIR_METRIC_NAMES
from nognet.metrics.statistics import PairRow
from nognet.types import STRATA


def ball_mask(
    size: int, radius: float, *, centre: tuple[float, float, float] | None = None
) -> Tensor:
    """Make a ``(1, 1, size, size, size)`` mask of a ball."""
    middle = centre or ((size - 1) / 2,) * 3
    axes = torch.meshgrid(*(torch.arange(size, dtype=torch.float64),) * 3, indexing="ij")
    squared = sum((axis - at) ** 2 for axis, at in zip(axes, middle, strict=True))
    return (torch.as_tensor(squared) <= radius**2).float()[None, None]


def image_pair(size: int = 20, *, seed: int = 0, batch: int = 1) -> tuple[Tensor, Tensor]:
    """Make a smooth image and a disturbed copy, ``(batch, 1, size, size, size)`` in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, 1, size, size, size)
    ramp = torch.linspace(0, 3, size).sin().view(1, 1, 1, 1, -1) * 0.5
    first = (ramp + 0.3 * torch.rand(shape, generator=generator)).clamp(0, 1)
    second = (first + 0.1 * torch.randn(shape, generator=generator)).clamp(0, 1)
    return first, second


def pair_rows(
    n_pairs: int,
    *,
    seed: int = 0,
    predictors: tuple[str, ...] = ("federated", "copy", "isotropic"),
    prefix: str = "p",
) -> list[PairRow]:
    """Make rows of random values, about two pairs a patient."""
    draws = np.random.default_rng(seed)
    rows = []
    for index in range(n_pairs):
        stratum = STRATA[int(draws.integers(len(STRATA)))]
        for predictor in predictors:
            values = {name: float(draws.random()) for name in PAIR_METRIC_NAMES}
            growth = float(np.round(draws.random() * 2, 1))
            rows.append(PairRow(predictor, f"{prefix}{index // 2}", stratum, values, growth))
    return rows
