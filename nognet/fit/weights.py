"""The weights of a network as plain named tensors, in a fixed order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from nognet.config import NetworkConfig
from nognet.errors import WireError
from nognet.network import MTNoGNet, build_network
from nognet.randomness import torch_generator

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype of one tensor of the weights."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def count(self) -> int:
        """Number of elements."""
        return int(torch.Size(self.shape).numel())


def initial_weights(network: NetworkConfig, seed: int) -> Weights:
    """Draw the first weights of a run; the same seed gives the same bits."""
    return weights_of(build_network(network, torch_generator(seed, "initial-weights")))


@lru_cache(maxsize=16)  # a message asks for it a dozen times, and each builds the network
def weight_spec(network: NetworkConfig) -> tuple[TensorSpec, ...]:
    """Specify all tensors of a network, in the order in which they travel."""
    with torch.device("meta"):
        parameters = MTNoGNet(network).state_dict()
    return tuple(TensorSpec(name, tuple(tensor.shape)) for name, tensor in parameters.items())


def weights_of(module: MTNoGNet) -> Weights:
    """Copy a network's weights to float32 tensors on the CPU."""
    return {
        name: tensor.detach().to("cpu", torch.float32, copy=True)
        for name, tensor in module.state_dict().items()
    }


def network_with(network: NetworkConfig, weights: Weights, device: torch.device) -> MTNoGNet:
    """Build a network that holds copies of the given weights.

    Raises:
        WireError: the weights' names or shapes are not those of the architecture.
    """
    check_weights(weights, weight_spec(network))
    with torch.device("meta"):
        module = MTNoGNet(network)
    module.load_state_dict({name: t.clone() for name, t in weights.items()}, assign=True)
    return module.requires_grad_().to(device)


def check_weights(weights: Weights, spec: tuple[TensorSpec, ...]) -> None:
    """Hold weights against their specification.

    Raises:
        WireError: a name, an order, a shape or a dtype differs; the first difference is named.
    """
    names = [item.name for item in spec]
    if list(weights) != names:
        odd = sorted(set(weights) ^ set(names))
        shown = ", ".join(odd[:3]) or "their order"
        raise WireError(
            f"weights of another architecture: {len(weights)} tensors found, {len(names)} "
            f"expected; they differ in {shown}",
            code="other-architecture",
        )
    for item in spec:
        tensor = weights[item.name]
        found = (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        if found != (item.shape, item.dtype):
            raise WireError(
                f"tensor {item.name}: found {found[1]} {found[0]}, expected {item.dtype} "
                f"{item.shape}",
                code="other-architecture",
            )
