"""Make a network, its first weights from a generator, and the specification of its parameters."""

from __future__ import annotations

import math

import torch
from torch import nn

from nognet.config import NetworkConfig
from nognet.network.decoders import DualStage, TextureStage
from nognet.network.growth import GrowthHead
from nognet.network.layers import AdaptiveNorm, CrossTaskAttention, SpatialModulation
from nognet.network.model import MTNoGNet
from nognet.network.refinement import Refinement
from nognet.network.segmentation import Segmentation

_MODULATION_STD = 1e-2


def build_network(config: NetworkConfig, generator: torch.Generator) -> MTNoGNet:
    """Build MT-NoGNet with its first weights drawn from `generator`.

    All heads start at zero, so that the untrained network predicts the baseline itself.
    """
    with torch.device("meta"):
        network = MTNoGNet(config)
    network = network.to_empty(device="cpu")
    with torch.no_grad():
        for module in network.modules():
            _initialise_leaf(module, generator)
        for module in network.modules():
            _initialise_special(module, generator)
    return network


def _initialise_leaf(module: nn.Module, generator: torch.Generator) -> None:
    """He et al. (2015) for convolutions and linear layers, identity for norms."""
    if isinstance(module, nn.Conv3d | nn.Linear):
        fan_in = math.prod(module.weight.shape[1:])
        module.weight.normal_(0.0, math.sqrt(2.0 / fan_in), generator=generator)
        if module.bias is not None:
            module.bias.zero_()
    elif isinstance(module, nn.GroupNorm) and module.affine:
        module.weight.fill_(1.0)
        module.bias.zero_()


def _initialise_special(module: nn.Module, generator: torch.Generator) -> None:
    """Start modulations and attention near 'no change', and every output head at exactly zero."""
    if isinstance(module, AdaptiveNorm | SpatialModulation):
        module.modulation.weight.normal_(0.0, _MODULATION_STD, generator=generator)
    elif isinstance(module, CrossTaskAttention):
        module.output.weight.normal_(0.0, _MODULATION_STD, generator=generator)
    elif isinstance(module, GrowthHead):
        module.outer.weight.zero_()
        module.spread.weight.zero_()
    elif isinstance(module, Refinement | Segmentation):
        module.outer.weight.zero_()
    elif isinstance(module, DualStage):
        module.motion.weight.zero_()
    elif isinstance(module, TextureStage):
        module.residual.weight.zero_()
