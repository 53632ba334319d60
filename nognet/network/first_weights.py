"""First weights of any network, drawn from a generator alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

MODULATION_STD = 1e-2
"""Modulations of norms start near 'no change'."""

Network = TypeVar("Network", bound=nn.Module)
Initialise = Callable[[nn.Module, torch.Generator], None]


def built(
    make: Callable[[], Network], generator: torch.Generator, initialise: Initialise
) -> Network:
    """Make a network and draw its first weights; nothing is taken from the global generator.

    Args:
        make: Makes it; it is called on the meta device, where nothing is drawn.
        generator: Draws all weights, module by module.
        initialise: Called for every module after the usual weights: heads, modulations.
    """
    with torch.device("meta"):
        network = make()
    network = network.to_empty(device="cpu")
    with torch.no_grad():
        for module in network.modules():
            _initialise_leaf(module, generator)
        for module in network.modules():
            initialise(module, generator)
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
