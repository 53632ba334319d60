"""SCAFFOLD's part of a site's steps (Karimireddy et al. 2020, algorithm 1).

    g(y) + (c - c_i)             what the optimiser is given
    c_i+ = 1 / K sum_k g(y_k)    what the site sends: the mean of its own gradients

With plain SGD that mean is the paper's option II to the letter; with AdamW, whose steps are no
multiples of gradients, it is what option II means (docs/decisions/0010).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nognet.errors import TrainingError


class ControlVariate:
    """Corrects the gradients of parameters, and keeps the mean of those before correction."""

    def __init__(
        self, parameters: Sequence[nn.Parameter], correction: Sequence[Tensor] | None = None
    ) -> None:
        """Start with no gradient.

        Args:
            parameters: Whose gradients are corrected.
            correction: ``c - c_i``, one tensor a parameter; None for none.
        """
        self.parameters = list(parameters)
        self.correction = None if correction is None else list(correction)
        self.steps = 0
        self._sums = [torch.zeros_like(parameter) for parameter in self.parameters]

    @torch.no_grad()
    def take(self) -> None:
        """Note the gradients that the parameters hold, then correct them.

        Before clipping, which so bounds what the optimiser is given and leaves what is sent alone.
        """
        self.steps += 1
        for total, parameter in zip(self._sums, self.parameters, strict=True):
            if parameter.grad is not None:
                total.add_(parameter.grad)
        if self.correction is None:
            return
        for parameter, part in zip(self.parameters, self.correction, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(part)
            elif bool(part.any()):  # this site doesn't train it, others do
                parameter.grad = part.clone()

    def mean(self) -> list[Tensor]:
        """Give the mean of the gradients before correction, one tensor a parameter.

        Raises:
            TrainingError: there was no step with a finite gradient.
        """
        if self.steps == 0:
            raise TrainingError(
                "no step had a finite gradient, so there is no control variate; set "
                "training.precision: fp32 or bf16",
                code="no-control",
            )
        return [total / self.steps for total in self._sums]
