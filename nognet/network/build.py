"""Make MT-NoGNet, its first weights from a generator."""

from __future__ import annotations

import torch
from torch import nn

from nognet.config import NetworkConfig
from nognet.network.decoders import DualStage, TextureStage
from nognet.network.first_weights import MODULATION_STD, built
from nognet.network.growth import GrowthHead
from nognet.network.layers import AdaptiveNorm, CrossTaskAttention, SpatialModulation
from nognet.network.model import MTNoGNet
from nognet.network.refinement import Refinement
from nognet.network.segmentation import Segmentation


def build_network(config: NetworkConfig, generator: torch.Generator) -> MTNoGNet:
    """Build MT-NoGNet with its first weights drawn from `generator`.

    All heads start at zero, so that the untrained network predicts the baseline itself.
    """
    return built(lambda: MTNoGNet(config), generator, _initialise)


def _initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Start modulations and attention near 'no change', and every output head at exactly zero."""
    if isinstance(module, AdaptiveNorm | SpatialModulation):
        module.modulation.weight.normal_(0.0, MODULATION_STD, generator=generator)
    elif isinstance(module, CrossTaskAttention):
        module.output.weight.normal_(0.0, MODULATION_STD, generator=generator)
    elif isinstance(module, GrowthHead):
        module.outer.weight.zero_()
        module.spread.weight.zero_()
    elif isinstance(module, Refinement | Segmentation):
        module.outer.weight.zero_()
    elif isinstance(module, DualStage):
        module.motion.weight.zero_()
    elif isinstance(module, TextureStage):
        module.residual.weight.zero_()
