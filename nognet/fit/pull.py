"""Pulls to other weights while a site trains: FedProx' to the global ones, Ditto's likewise.

    FedProx  gradient <- gradient + mu (w - w_global)           before clipping and AdamW
    Ditto    v <- (v + eta lambda w_global) / (1 + eta lambda)  after AdamW's step at rate eta

Ditto's is the proximal step of ``lambda / 2 ||v - w_global||^2``. As a part of the gradient AdamW,
whose steps have the size of the rate however large the gradient is, would take the meaning from
lambda (docs/decisions/0011).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from nognet.config import StudyConfig
from nognet.fit.parts import local_names
from nognet.fit.weights import Weights


class Pull(Protocol):
    """What a pull does around each step of an optimiser."""

    def before_step(self) -> None:
        """Change the gradients that the parameters hold."""

    def after_step(self, rate: float) -> None:
        """Change the parameters, after a step at that rate."""


class FedProxPull:
    """The gradient of ``mu / 2 ||w - w_global||^2`` (Li et al. 2020, eq. 2)."""

    def __init__(self, parameters: Sequence[nn.Parameter], mu: float) -> None:
        """Pull to what the parameters are now."""
        self.parameters, self.mu = list(parameters), mu
        self.start = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def before_step(self) -> None:
        """Add the term's gradient."""
        for parameter, anchor in zip(self.parameters, self.start, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(parameter - anchor, alpha=self.mu)

    def after_step(self, rate: float) -> None:
        """Do nothing more."""


class DittoPull:
    """The proximal step to the global weights (Li et al. 2021, algorithm 1)."""

    def __init__(
        self, parameters: Sequence[nn.Parameter], towards: Sequence[Tensor], strength: float
    ) -> None:
        """Pull each parameter to a tensor of its own; `strength` is lambda."""
        self.parameters, self.towards, self.strength = list(parameters), list(towards), strength

    def before_step(self) -> None:
        """Do nothing yet."""

    @torch.no_grad()
    def after_step(self, rate: float) -> None:
        """Move the parameters by the share ``eta lambda / (1 + eta lambda)`` of the way."""
        share = rate * self.strength / (1.0 + rate * self.strength)
        for parameter, anchor in zip(self.parameters, self.towards, strict=True):
            parameter.lerp_(anchor, share)


def pull_of_round(study: StudyConfig, network: nn.Module, towards: Weights | None) -> Pull | None:
    """Make the pull of a round of training; None where there is none.

    Args:
        study: Its strategy may be FedProx, whose pull is of the shared parameters alone.
        network: At the start of the round.
        towards: Weights that Ditto's personal model is pulled to, with `ditto_lambda`; None where
            it isn't a personal model that is trained.
    """
    named = dict(network.named_parameters())
    if towards is not None:
        anchors = [towards[name].to(parameter.device) for name, parameter in named.items()]
        strength = study.personalisation.ditto_lambda or 0.0
        return DittoPull(list(named.values()), anchors, strength)
    mu = getattr(study.strategy, "proximal_mu", 0.0)
    local = local_names(study)
    shared = [parameter for name, parameter in named.items() if name not in local]
    return FedProxPull(shared, mu) if mu > 0 else None
