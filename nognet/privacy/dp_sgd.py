"""DP-SGD over patients (Abadi et al. 2016, algorithm 1), with Opacus.

A step: each drawn patient's gradient (the mean over the patient's samples, where there are several)
is clipped to `clip_norm` and summed; noise is added **once** to the sum; the sum is divided by the
*expected* batch size (the true one is a secret of the sampling). A batch that came out empty is a
step like any other: its noise is part of what the accountant assumes. How the gradients of several
samples are made in one pass is `nognet.privacy.patient_gradients`' business.

`PrivateSteps.noised_gradient` leaves the result in ``.grad``. Whatever is done with that afterwards
(clipping, a proximal term, AdamW) is post-processing and costs no privacy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from nognet.errors import PrivacyError
from nognet.privacy.guards import (
    buffer_state,
    check_buffers,
    check_gradients,
    check_module,
)
from nognet.privacy.patient_gradients import (
    LossesOf,
    SampleT,
    gradients_one_by_one,
    gradients_together,
)
from nognet.privacy.secret import SecretStream


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
        at_once: int = 1,
        secret: SecretStream | None = None,
    ) -> None:
        """Check module and optimizer.

        Args:
            module: The network; its buffers are watched.
            optimizer: Plain torch optimizer over all of the module's trainable parameters.
            mechanism: Noise, clip norm and expected batch size.
            at_once: Samples in one forward and backward pass; more than one only where
                `why_not_together` found nothing against it.
            secret: Source of the noise; by default a fresh one that nobody can reproduce. Give
                one only in tests.

        Raises:
            PrivacyError: a value is out of range, a layer can't be used, the optimizer is private
                already, or it does not hold exactly the module's trainable parameters.
        """
        if at_once < 1:
            raise PrivacyError(f"at_once is {at_once}, expected 1 or more", code="bad-mechanism")
        check_module(module)
        _check_optimizer(module, optimizer)
        self._module = module
        self._optimizer = optimizer
        self._at_once = at_once
        self._private = _SecretNoiseOptimizer(optimizer, mechanism, secret or SecretStream.fresh())

    def noised_gradient(
        self, patients: Iterable[Sequence[SampleT]], losses_of: LossesOf[SampleT]
    ) -> StepReport:
        """Put the noised, normalised sum of the patients' clipped gradients into ``.grad``.

        Args:
            patients: The samples of each drawn patient, one or more; there may be no patient.
            losses_of: Loss of each of some samples, ``(B,)``, computed by the module; no loss may
                depend on the other samples.

        Raises:
            PrivacyError: losses are not one number a sample, the forward pass wrote to a buffer, or
                the samples' gradients can't be told apart.
            TrainingError: a loss or a gradient is not finite. No gradient is left behind.
        """
        private = self._private
        buffers = buffer_state(self._module)
        losses: list[float] = []
        self._optimizer.zero_grad(set_to_none=True)  # a failed step leaves none behind
        try:
            for group in _packed(list(patients), self._at_once):
                gradients, of_patients = self._mean_gradients(group, losses_of)
                check_buffers(self._module, buffers)
                check_gradients(gradients)
                self._set_samples(gradients)
                private.clip_and_accumulate()
                losses += of_patients.tolist()
            self._set_samples([p.new_zeros((0, *p.shape)) for p in private.params])
            private.pre_step()  # an empty batch at the end: the noise, once, and the division
        finally:  # no sum is ever noised twice or carried into the next step
            for parameter in private.params:
                parameter.grad_sample = None
                parameter.summed_grad = None
        return StepReport(len(losses), math.fsum(losses) / len(losses) if losses else None)

    def step(
        self, patients: Iterable[Sequence[SampleT]], losses_of: LossesOf[SampleT]
    ) -> StepReport:
        """Take one whole step: `noised_gradient`, then the optimizer's own step."""
        report = self.noised_gradient(patients, losses_of)
        self._optimizer.step()
        return report

    def _mean_gradients(
        self, patients: Sequence[Sequence[SampleT]], losses_of: LossesOf[SampleT]
    ) -> tuple[list[Tensor], Tensor]:
        """Average each patient's gradients ``(patients, *shape)`` and losses ``(patients,)``."""
        parameters = self._private.params
        find = gradients_together if self._at_once > 1 else gradients_one_by_one
        rows = [(owner, sample) for owner, samples in enumerate(patients) for sample in samples]
        sums = [p.new_zeros((len(patients), *p.shape)) for p in parameters]
        totals = torch.zeros(len(patients), dtype=torch.float64)
        for start in range(0, len(rows), self._at_once):
            part = rows[start : start + self._at_once]
            gradients, losses = find(parameters, [sample for _, sample in part], losses_of)
            owners = torch.tensor([owner for owner, _ in part])
            for total, gradient in zip(sums, gradients, strict=True):
                total.index_add_(0, owners.to(total.device), gradient)
            totals.index_add_(0, owners, losses.cpu().double())
        counts = torch.tensor([len(samples) for samples in patients])
        for total in sums:
            total.div_(counts.to(total).view(-1, *(1,) * (total.dim() - 1)))
        return sums, totals / counts

    def _set_samples(self, samples: list[Tensor]) -> None:
        for parameter, sample in zip(self._private.params, samples, strict=True):
            parameter.grad_sample = sample


def _packed(
    patients: Sequence[Sequence[SampleT]], at_once: int
) -> Iterator[list[Sequence[SampleT]]]:
    """Put patients together whose samples fit into one pass, in passes of about one size.

    A patient with more samples than that comes alone.
    """
    if not all(patients):
        raise PrivacyError("a patient without samples can't take part in a step", code="no-pairs")
    rows = sum(map(len, patients))
    size = math.ceil(rows / math.ceil(rows / at_once)) if rows else at_once
    group: list[Sequence[SampleT]] = []
    for samples in patients:
        if group and sum(map(len, group)) + len(samples) > size:
            yield group
            group = []
        group.append(samples)
    if group:
        yield group


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
