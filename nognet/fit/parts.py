"""Which parameters are shared by all sites, and which stay at each site.

Only shared ones are in the contract and in the vectors that travel; a site's local ones begin with
the study's first weights and are never sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import torch
from torch import nn

from nognet.config import NetworkConfig, StudyConfig
from nognet.fit.weights import TensorSpec, Weights, initial_weights, weight_spec
from nognet.network import MTNoGNet
from nognet.network.layers import AdaptiveNorm, SpatialModulation

_NORMS = (nn.GroupNorm, AdaptiveNorm, SpatialModulation)
_HEAD = ("growth.outer.", "growth.spread.")


def shared_spec(study: StudyConfig) -> tuple[TensorSpec, ...]:
    """Specify the tensors that travel, in their order."""
    local = local_names(study)
    return tuple(item for item in weight_spec(study.network) if item.name not in local)


def local_spec(study: StudyConfig) -> tuple[TensorSpec, ...]:
    """Specify the tensors that stay at a site, in their order."""
    local = local_names(study)
    return tuple(item for item in weight_spec(study.network) if item.name in local)


def local_names(study: StudyConfig) -> frozenset[str]:
    """Name the parameters that stay at a site."""
    parts = study.personalisation.local
    names: set[str] = set()
    if parts in {"norms", "norms+head"}:
        names |= _norm_names(study.network)
    if parts in {"head", "norms+head"}:
        names |= {i.name for i in weight_spec(study.network) if i.name.startswith(_HEAD)}
    return frozenset(names)


def part_of(weights: Weights, spec: Iterable[TensorSpec]) -> Weights:
    """Take the tensors of a specification out of weights."""
    return {item.name: weights[item.name] for item in spec}


def whole(study: StudyConfig, shared: Weights, local: Weights | None = None) -> Weights:
    """Join shared and local tensors to a network's weights, in the network's order.

    Args:
        study: Its network, seed and `personalisation.local`.
        shared: Exactly those of `shared_spec`.
        local: Exactly those of `local_spec`; None: the study's first weights.
    """
    spec = local_spec(study)
    if not spec:
        return shared
    if local is None:
        local = part_of(initial_weights(study.network, study.seed), spec)
    joined = {**shared, **local}
    return part_of(joined, weight_spec(study.network))


@lru_cache(maxsize=16)
def _norm_names(network: NetworkConfig) -> frozenset[str]:
    with torch.device("meta"):
        module = MTNoGNet(network)
    norms = [(name, part) for name, part in module.named_modules() if isinstance(part, _NORMS)]
    return frozenset(
        f"{name}.{inner}" for name, part in norms for inner, _ in part.named_parameters()
    )
