"""Who competes: MT-NoGNet, the published baselines, and MT-NoGNet with one part changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nognet.config import LossConfig, NetworkConfig
from nognet.errors import ConfigError
from nognet.fit.predictors import FollowUp
from nognet.network import Batch, build_network, warp
from nognet.network.baselines import BASELINES
from nognet.network.nodule import growth_field, nodule_shape
from nognet.network.warp import spatial_size

MODEL = "mtnognet"
COPY, ISOTROPIC, ORACLE = "copy", "isotropic", "oracle"
UNTRAINED_TITLES = {
    COPY: "copy the baseline",
    ISOTROPIC: "isotropic, median rate",
    ORACLE: "isotropic, true ratio (oracle)",
}
MODEL_TITLE = "MT-NoGNet"


@dataclass(frozen=True)
class Contestant:
    """A network to train.

    Attributes:
        name: In files and on the command line.
        title: In tables.
        build: Makes it with first weights from a generator.
        loss: What it is trained with.
        about: What it is, in words.
    """

    name: str
    title: str
    build: Callable[[torch.Generator], nn.Module]
    loss: LossConfig
    about: str


@dataclass(frozen=True)
class Ablation:
    """MT-NoGNet with some settings changed."""

    name: str
    title: str
    network: dict[str, Any]
    loss: dict[str, Any]


_NO_IMAGE_LOSS = {"image_l1": 0.0, "image_mse": 0.0, "ncc": 0.0, "region_l1": 0.0, "residual": 0.0}
_NO_MASK_LOSS = {"dice": 0.0, "growth_rate": 0.0, "growth_spread": 0.0}
_NO_DEEP_LOSS = {"deep_supervision": 0.0}  # it mixes both tasks
ABLATIONS = {
    ablation.name: ablation
    for ablation in (
        Ablation("attention", "with attention", {"attention": True}, {}),
        Ablation("norm-spatial", "with spatial norm", {"adaptive_norm": "spatial"}, {}),
        Ablation("norm-none", "without adaptive norm", {"adaptive_norm": "none"}, {}),
        Ablation("deep", "with deep supervision", {"deep_supervision": True}, {}),
        Ablation("focus", "with regional focus", {}, {"region_l1": 1.0}),
        Ablation(
            "all-parts",
            "with all parts",
            {"attention": True, "adaptive_norm": "spatial", "deep_supervision": True},
            {"region_l1": 1.0},
        ),
        Ablation("direct", "direct displacement", {"displacement": "direct"}, {}),
        Ablation("image-only", "image task alone", {}, {**_NO_MASK_LOSS, **_NO_DEEP_LOSS}),
        Ablation(
            "mask-only", "mask task alone", {"texture": False}, {**_NO_IMAGE_LOSS, **_NO_DEEP_LOSS}
        ),
    )
}


def network_names() -> tuple[str, ...]:
    """Name the networks that compete by default: the baselines, then MT-NoGNet."""
    return (*BASELINES, MODEL)


def contestant(name: str, width: int | None = None) -> Contestant:
    """Find a network by its name.

    Args:
        name: A baseline, `mtnognet` or an ablation.
        width: Channels at the finest scale; None is each network's own.

    Raises:
        ConfigError: there is no such network.
    """
    if name == MODEL:
        return _variant(Ablation(MODEL, MODEL_TITLE, {}, {}), width)
    if name in ABLATIONS:
        return _variant(ABLATIONS[name], width)
    if name not in BASELINES:
        there = ", ".join((*network_names(), *ABLATIONS))
        raise ConfigError(f"there is no network '{name}'; expected some of: {there}", code="name")
    baseline = BASELINES[name]
    size = width or baseline.default_width
    return Contestant(
        name=name,
        title=baseline.title,
        build=lambda generator: baseline.build(size, generator),
        loss=baseline.loss,
        about=f"{baseline.source}; width {size}",
    )


def _variant(ablation: Ablation, width: int | None) -> Contestant:
    changes = {**ablation.network, **({} if width is None else {"width": width})}
    config = NetworkConfig(**changes)
    told = {**changes, "width": config.width, **{f"loss.{k}": v for k, v in ablation.loss.items()}}
    return Contestant(
        name=ablation.name,
        title=ablation.title,
        build=lambda generator: build_network(config, generator),
        loss=LossConfig(**ablation.loss),
        about=", ".join(f"{key} {value}" for key, value in told.items()),
    )


def oracle(batch: Batch) -> FollowUp:
    """Grow each nodule as a ball by its **true** volume ratio: no prediction, but a bound."""
    return _grown(batch, batch.log_growth)


def _grown(batch: Batch, log_growth: Tensor) -> FollowUp:
    field = growth_field(nodule_shape(batch.mask), log_growth, spatial_size(batch.mask))
    both = warp(torch.cat([batch.image, batch.mask], dim=1), field)
    return FollowUp(both[:, :1], both[:, 1:], field)
