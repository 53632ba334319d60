"""The optimiser's steps: autocast, accumulation, clipping, AdamW, moving average of the weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from nognet.config import LossConfig, TrainingConfig
from nognet.errors import TrainingError
from nognet.fit.control import ControlVariate
from nognet.fit.device import autocast, check_precision
from nognet.fit.pull import Pull
from nognet.network import Batch, total_loss


class TrainingSteps:
    """Takes steps on one network, which is changed in place.

    Any network will do that is called as `nognet.network.MTNoGNet` is. With `pull` FedProx' or
    Ditto's pull to other weights is added, with `control` SCAFFOLD's correction.
    """

    def __init__(
        self,
        network: nn.Module,
        training: TrainingConfig,
        loss: LossConfig,
        device: torch.device,
        *,
        pull: Pull | None = None,
        control: ControlVariate | None = None,
    ) -> None:
        """Make the optimiser and set the network to training.

        Args:
            network: To be trained.
            training: Optimiser, clipping, precision, average.
            loss: Weights of the terms.
            device: Where the network is.
            pull: Of the network's parameters to other weights.
            control: SCAFFOLD's, of the network's parameters.

        Raises:
            ConfigError: the device can't do `training.precision`.
        """
        check_precision(device, training.precision)
        self.network, self.training, self.loss, self.device = network, training, loss, device
        self.parameters = list(network.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=training.learning_rate, weight_decay=training.weight_decay
        )
        self.pull, self.control = pull, control
        on = training.ema_decay > 0
        self.average = [p.detach().clone() for p in self.parameters] if on else None
        self.scaler = torch.amp.GradScaler(device.type, enabled=training.precision == "fp16")
        self._checked_sizes: set[int] = set()
        network.train()

    def step(self, batches: Sequence[Batch], rate: float, pair_ids: Sequence[str] = ()) -> float:
        """Take one step on the mean loss over all samples of the batches.

        Args:
            batches: One, or several whose gradients are accumulated.
            rate: Learning rate of this step.
            pair_ids: Of all samples, in the order of the batches.

        Returns:
            The mean loss.

        Raises:
            TrainingError: a loss or the gradient is not finite; the weights stay as they were.
            ConfigError: bf16 would give a garbage gradient at this size.
        """
        if not batches:
            raise TrainingError("no batch to take a step on; expected one or more", code="no-pairs")
        self.optimizer.zero_grad(set_to_none=True)
        samples = sum(len(batch) for batch in batches)
        found, means = [], []
        for batch in batches:
            losses = self.losses(batch)
            mean = losses.mean()
            if len(batches) > 1:
                mean = mean * (len(batch) / samples)
            self.scaler.scale(mean).backward()  # type: ignore[no-untyped-call]  # torch's own is untyped
            found.append(losses.detach())
            means.append(mean.detach())
        value = math.fsum(torch.stack(means).tolist())
        if not math.isfinite(value):
            raise self._loss_not_finite(torch.cat(found), pair_ids)
        self.apply(rate, pair_ids)
        return value

    def losses(self, batch: Batch) -> Tensor:
        """Loss of each sample, ``(B,)``."""
        self._check_size(batch.image.shape[2])
        with autocast(self.device, self.training.precision):
            prediction = self.network(batch.image, batch.mask, batch.interval_days, batch.prior)
        return total_loss(prediction, batch, self.loss)

    def apply(self, rate: float, pair_ids: Sequence[str] = ()) -> None:
        """Apply the gradient that the parameters hold: corrections, clipping, AdamW, average.

        Raises:
            TrainingError: the gradient is not finite; the weights stay as they were. With fp16 such
                a step is skipped and the scale of the loss halved instead.
        """
        self.scaler.unscale_(self.optimizer)
        if self.control is not None and not self._is_skipped():
            self.control.take()
        if self.pull is not None:
            self.pull.before_step()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.training.gradient_clip_norm)
        if not self.scaler.is_enabled() and not math.isfinite(float(norm)):
            self.optimizer.zero_grad(set_to_none=True)
            raise TrainingError(
                f"the gradient is not finite, though the loss is{_of(pair_ids)}; lower "
                "training.learning_rate, or set training.precision: fp32",
                code="gradient-not-finite",
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.pull is not None:
            self.pull.after_step(rate)
        self._move_average()

    def _is_skipped(self) -> bool:
        """Whether fp16's scaler will skip this step, as its gradient is not finite."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        return self.scaler.is_enabled() and not all(bool(g.isfinite().all()) for g in gradients)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """Lend the network with the averaged weights; without an average, as it is."""
        if self.average is None:
            yield self.network
            return
        self._swap(self.average)
        try:
            yield self.network
        finally:
            self._swap(self.average)

    @torch.no_grad()
    def _move_average(self) -> None:
        """``average <- d average + (1 - d) weights``."""
        if self.average is not None:
            for mean, parameter in zip(self.average, self.parameters, strict=True):
                mean.lerp_(parameter, 1.0 - self.training.ema_decay)

    @torch.no_grad()
    def _swap(self, others: list[Tensor]) -> None:
        for other, parameter in zip(others, self.parameters, strict=True):
            kept = parameter.clone()
            parameter.copy_(other)
            other.copy_(kept)

    def _check_size(self, size_vox: int) -> None:
        if size_vox not in self._checked_sizes:
            check_precision(self.device, self.training.precision, self.network, size_vox)
            self._checked_sizes.add(size_vox)

    def _loss_not_finite(self, losses: Tensor, pair_ids: Sequence[str]) -> TrainingError:
        self.optimizer.zero_grad(set_to_none=True)
        bad = [not ok for ok in torch.isfinite(losses).tolist()]
        named = [pair_id for pair_id, is_bad in zip(pair_ids, bad, strict=False) if is_bad]
        return TrainingError(
            f"the loss is not finite{_of(named or pair_ids)}; lower training.learning_rate, or "
            "look at these pairs with `nognet check`",
            code="loss-not-finite",
        )


def _of(pair_ids: Sequence[str]) -> str:
    return f" for pairs {', '.join(pair_ids)}" if pair_ids else ""
