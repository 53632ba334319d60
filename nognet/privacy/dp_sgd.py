"""DP-SGD over patients (Abadi et al. 2016, algorithm 1), with Opacus.

A step: each drawn patient's gradient is made alone by plain autograd (a physical batch of one,
right for every layer), clipped to `clip_norm` and summed; noise is added **once** to the sum; the
sum is divided by the *expected* batch size (the true one is a secret of the sampling). A batch that
came out empty is a step like any other: its noise is part of what the accountant assumes.

`PrivateSteps.noised_gradient` leaves the result in ``.grad``. Whatever is done with that afterwards
(clipping, a proximal term, AdamW) is post-processing and costs no privacy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from nognet.errors import PrivacyError
from nognet.privacy.guards import (
    buffer_state,
    check_buffers,
    check_gradients,
    check_loss,
    check_module,
)
from nognet.privacy.secret import SecretStream

ExampleT = TypeVar("ExampleT")


@dataclass(frozen=True)
class Mechanism:
    """The clipped, noised sum of one step.

    Attributes:
        noise_multiplier: Standard deviation of the noise over the clip norm; 0 only in tests.
        clip_norm: L2 norm to which each patient's gradient is clipped.
        expected_batch_size: Sample rate times the number of patients; what the sum is divided by.

    Raises:
        PrivacyError: a value is outside its range.
    """

    noise_multiplier: float
    clip_norm: float
    expected_batch_size: float

    def __post_init__(self) -> None:
        if not (
            0 <= self.noise_multiplier < math.inf
            and 0 < self.clip_norm < math.inf
            and 0 < self.expected_batch_size < math.inf
        ):
            raise PrivacyError(
                f"{self}: expected noise_multiplier >= 0, clip_norm > 0, expected_batch_size > 0",
                code="bad-mechanism",
            )


@dataclass(frozen=True)
class StepReport:
    """What one step saw. It is *not* noised: it may not leave the site.

    Attributes:
        n_patients: How many patients the Poisson batch held, often another number than expected.
        mean_loss: Mean of their losses; None when the batch was empty.
    """

    n_patients: int
    mean_loss: float | None


class _SecretNoiseOptimizer(DPOptimizer):  # type: ignore[misc]  # Opacus has no types
    """Opacus' optimizer with the noise of a `SecretStream` in place of torch's generator."""

    def __init__(self, optimizer: Optimizer, mechanism: Mechanism, secret: SecretStream) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=mechanism.noise_multiplier,
            max_grad_norm=mechanism.clip_norm,
            expected_batch_size=mechanism.expected_batch_size,
        )
        self._secret = secret

    def add_noise(self) -> None:
        """Add the noise to the sum in float64 and round once, into ``.grad``."""
        std = self.noise_multiplier * self.max_grad_norm
        for parameter in self.params:
            total = parameter.summed_grad
            noise = torch.from_numpy(self._secret.normal(tuple(total.shape)))
            noised = total.cpu().double() + std * noise  # on the CPU: not every device has float64
            parameter.grad = noised.to(parameter).view_as(parameter)


class PrivateSteps:
    """Takes DP-SGD steps on a module with any torch optimizer (SGD, AdamW ...)."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: Optimizer,
        mechanism: Mechanism,
        *,
        secret: SecretStream | None = None,
    ) -> None:
        """Check module and optimizer.

        Args:
            module: The network; its buffers are watched.
            optimizer: Plain torch optimizer over all of the module's trainable parameters.
            mechanism: Noise, clip norm and expected batch size.
            secret: Source of the noise; by default a fresh one that nobody can reproduce. Give
                one only in tests.

        Raises:
            PrivacyError: a layer can't be used, the optimizer is private already, or it does not
                hold exactly the module's trainable parameters.
        """
        check_module(module)
        _check_optimizer(module, optimizer)
        self._module = module
        self._optimizer = optimizer
        self._private = _SecretNoiseOptimizer(optimizer, mechanism, secret or SecretStream.fresh())

    def noised_gradient(
        self, examples: Iterable[ExampleT], loss_of: Callable[[ExampleT], Tensor]
    ) -> StepReport:
        """Put the noised, normalised sum of the patients' clipped gradients into ``.grad``.

        Args:
            examples: One example a drawn patient; may be empty.
            loss_of: Scalar loss of one example alone, computed by the module.

        Raises:
            PrivacyError: a loss is no scalar, or the forward pass wrote to a buffer.
            TrainingError: a loss or a gradient is not finite. No gradient is left behind.
        """
        private = self._private
        buffers = buffer_state(self._module)
        losses: list[float] = []
        self._optimizer.zero_grad(set_to_none=True)  # a failed step leaves none behind
        try:
            for example in examples:
                losses.append(self._accumulate(loss_of(example)))
                check_buffers(self._module, buffers)
            self._set_samples([p.new_zeros((0, *p.shape)) for p in private.params])
            private.pre_step()  # an empty batch at the end: the noise, once, and the division
        finally:  # no sum is ever noised twice or carried into the next step
            for parameter in private.params:
                parameter.grad_sample = None
                parameter.summed_grad = None
        return StepReport(len(losses), math.fsum(losses) / len(losses) if losses else None)

    def step(
        self, examples: Iterable[ExampleT], loss_of: Callable[[ExampleT], Tensor]
    ) -> StepReport:
        """Take one whole step: `noised_gradient`, then the optimizer's own step."""
        report = self.noised_gradient(examples, loss_of)
        self._optimizer.step()
        return report

    def _accumulate(self, loss: Tensor) -> float:
        """Clip one patient's gradient and add it to the sum; give the loss."""
        check_loss(loss)
        parameters = self._private.params
        found = torch.autograd.grad(loss.reshape(()), parameters, allow_unused=True)
        gradients = tuple(
            torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)
        )
        check_gradients(gradients)
        self._set_samples([gradient.unsqueeze(0) for gradient in gradients])
        self._private.clip_and_accumulate()
        return float(loss.detach())

    def _set_samples(self, samples: list[Tensor]) -> None:
        for parameter, sample in zip(self._private.params, samples, strict=True):
            parameter.grad_sample = sample


def _check_optimizer(module: nn.Module, optimizer: Optimizer) -> None:
    if isinstance(optimizer, DPOptimizer):
        raise PrivacyError(
            "the optimizer is an Opacus optimizer already, so noise would be added twice; pass "
            "the plain torch optimizer",
            code="optimizer-private",
        )
    trained = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    expected = {id(parameter) for parameter in module.parameters() if parameter.requires_grad}
    if len(trained) != len(expected) or {id(parameter) for parameter in trained} != expected:
        raise PrivacyError(
            f"the optimizer holds {len(trained)} trainable tensors, the network {len(expected)}; "
            "clipping has to see exactly those of the network",
            code="optimizer-mismatch",
        )
