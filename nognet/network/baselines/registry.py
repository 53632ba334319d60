"""The peers by name, each with its loss and its width."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from nognet.config import LossConfig
from nognet.network.baselines import nofonet, unet, warpnet, wnet


@dataclass(frozen=True)
class Baseline:
    """A peer that MT-NoGNet is compared with, in our own implementation.

    Attributes:
        name: Its key in `BASELINES`.
        title: What a table calls it.
        source: Whose idea it is, and what of it is ours.
        build: Makes it from a width and a generator; called as MT-NoGNet is.
        loss: Its own loss; terms that it doesn't have weigh 0.
        default_width: Width at which a step costs about what one of MT-NoGNet does.
    """

    name: str
    title: str
    source: str
    build: Callable[[int, torch.Generator], nn.Module]
    loss: LossConfig
    default_width: int


_ALL = (
    Baseline(
        name="warpnet",
        title="WarpNet-like",
        source="WarpNet (2020): a displacement field alone; from its description",
        build=warpnet.build_warpnet,
        loss=warpnet.LOSS,
        default_width=16,
    ),
    Baseline(
        name="unet",
        title="U-Net synthesis",
        source="U-Net (Ronneberger et al. 2015) in 3D: image and mask without a warp",
        build=unet.build_unet,
        loss=unet.LOSS,
        default_width=16,
    ),
    Baseline(
        name="nofonet",
        title="NoFoNet-like",
        source="NoFoNet (arXiv 2006.13890): warp, then gated texture; from its description",
        build=nofonet.build_nofonet,
        loss=nofonet.LOSS,
        default_width=16,
    ),
    Baseline(
        name="wnet",
        title="Two-scan W-net (NGP-Net-like)",
        source="NGP-Net (IEEE TMI 2026): two scans, no mask; only in its manner",
        build=wnet.build_wnet,
        loss=wnet.LOSS,
        default_width=16,
    ),
)

BASELINES: dict[str, Baseline] = {baseline.name: baseline for baseline in _ALL}
