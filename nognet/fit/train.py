"""One site's training round: weights in, weights out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nognet.config import PrivacyConfig, SiteConfig, StudyConfig, TrainingConfig
from nognet.data.store import PreparedSite
from nognet.errors import TrainingError
from nognet.fit.device import autocast, cpu_threads, resolve_device
from nognet.fit.tensors import augment, sample_order, stack_pairs
from nognet.fit.weights import Weights, network_with, weights_of
from nognet.network import Batch, MTNoGNet, total_loss
from nognet.privacy.policy import stricter
from nognet.randomness import torch_generator
from nognet.types import RoiPair

if TYPE_CHECKING:
    from nognet.fit.private import PrivateRound

Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class RoundOutcome:
    """What a training round gave.

    Attributes:
        weights: The site's weights after the round.
        n_pairs: Training pairs at the site.
        n_patients: Training patients at the site.
        steps: Optimiser steps taken.
        mean_loss: Mean training loss; None under differential privacy, where it may not leave.
        seconds: Wall time of the round.
        epsilon: Spent so far at this site, all rounds and studies; None without privacy.
        delta: At which `epsilon` holds.
    """

    weights: Weights
    n_pairs: int
    n_patients: int
    steps: int
    mean_loss: float | None
    seconds: float
    epsilon: float | None = None
    delta: float | None = None


def train_round(
    study: StudyConfig,
    site: SiteConfig,
    prepared: PreparedSite,
    weights: Weights,
    *,
    round_number: int,
    progress: Progress | None = None,
) -> RoundOutcome:
    """Train the network for one round on a site's training pairs.

    The optimiser starts anew, so a round depends on nothing but its arguments (and, under
    differential privacy, on the site's record of what was spent).

    Args:
        study: What the coordinator decided.
        site: What the site decided; its seed orders the samples.
        prepared: The site's pairs.
        weights: Global weights at the start of the round; not changed.
        round_number: From 1.
        progress: Called after each step with the step, the number of steps and the loss.

    Raises:
        TrainingError: the site has no training pairs, or a loss is not finite.
        WireError: the weights don't fit the study's network.
        PrivacyError, PrivacyBudgetError: the round may not be spent.
    """
    started = time.perf_counter()
    pairs = prepared.pairs("train")
    if not pairs:
        raise TrainingError(
            f"site {site.name}: no training pairs; expected at least one; see `nognet check` for "
            "why pairs were refused",
            code="no-pairs",
        )
    privacy = stricter(study.privacy, site.privacy)
    device = resolve_device(site.device)
    with cpu_threads(site.threads):
        network = network_with(study.network, weights, device)
        loop = _Round(study, site, network, device, round_number, progress)
        spent: PrivateRound | None = None
        mean_loss: float | None = None
        if privacy is None:
            mean_loss = loop.train(pairs)
        else:
            spent = loop.train_with(privacy, pairs)
    return RoundOutcome(
        weights=weights_of(network),
        n_pairs=len(pairs),
        n_patients=len({pair.patient_id for pair in pairs}),
        steps=study.training.steps_per_round,
        mean_loss=mean_loss,
        seconds=time.perf_counter() - started,
        epsilon=spent.epsilon if spent else None,
        delta=spent.delta if spent else None,
    )


def learning_rate(training: TrainingConfig, *, step: int, round_number: int, rounds: int) -> float:
    """Give the learning rate of a step: cosine over the rounds, linear warm-up within each.

    Args:
        training: Peak rate, final fraction, warm-up.
        step: From 0, within the round.
        round_number: From 1.
        rounds: In the run.

    >>> learning_rate(TrainingConfig(warmup_steps=0), step=0, round_number=1, rounds=10)
    0.001
    """
    share_done = (round_number - 1) / max(1, rounds - 1)
    low = training.final_learning_rate_fraction
    cosine = low + (1.0 - low) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, share_done)))
    warm = min(1.0, (step + 1) / training.warmup_steps) if training.warmup_steps else 1.0
    return training.learning_rate * cosine * warm


class _Round:
    """The steps of one round on one network."""

    def __init__(
        self,
        study: StudyConfig,
        site: SiteConfig,
        network: MTNoGNet,
        device: torch.device,
        round_number: int,
        progress: Progress | None,
    ) -> None:
        self.study, self.site, self.network, self.device = study, site, network, device
        self.round_number, self.progress = round_number, progress
        self.optimizer = torch.optim.AdamW(
            network.parameters(),
            lr=study.training.learning_rate,
            weight_decay=study.training.weight_decay,
        )
        self.start = [parameter.detach().clone() for parameter in network.parameters()]
        names = ("train", study.seed, site.name, round_number)
        self.order_generator = torch_generator(site.seed, *names, "order")
        self.augment_generator = torch_generator(site.seed, *names, "augment")
        self.proximal_mu = getattr(study.strategy, "proximal_mu", 0.0)
        network.train()

    def train(self, pairs: Sequence[RoiPair]) -> float:
        """Take the round's steps; give the mean loss."""
        training = self.study.training
        everything = stack_pairs(pairs)
        order = sample_order(len(pairs), training.batch_size, self.order_generator)
        losses = []
        for step in range(training.steps_per_round):
            chosen = next(order)
            batch = self._prepared(everything.select(chosen))
            loss = self._losses(batch).mean()
            value = float(loss.detach())
            if not math.isfinite(value):
                raise self._not_finite(step, [pairs[i].pair_id for i in chosen])
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own is untyped
            self._update(step)
            losses.append(value)
            self._report(step, value)
        return math.fsum(losses) / len(losses)

    def train_with(self, privacy: PrivacyConfig, pairs: Sequence[RoiPair]) -> PrivateRound:
        """Take the round's steps under DP-SGD."""
        from nognet.fit.private import train_privately  # late: Opacus takes 2 s to import

        everything = stack_pairs(pairs)

        def loss_of(index: int) -> Tensor:
            return self._losses(self._prepared(everything.select([index])))[0]

        def update(step: int) -> None:
            self._update(step)
            self._report(step, math.nan)

        return train_privately(
            privacy,
            self.site,
            self.study.training,
            [pair.patient_id for pair in pairs],
            (self.network, self.optimizer),
            loss_of=loss_of,
            update=update,
        )

    def _prepared(self, batch: Batch) -> Batch:
        augmented = augment(batch, self.augment_generator) if self.study.training.augment else batch
        return augmented.to(self.device)

    def _losses(self, batch: Batch) -> Tensor:
        """Loss of each sample, ``(B,)``."""
        with autocast(self.device, self.study.training.precision):
            prediction = self.network(
                batch.image, batch.mask, batch.interval_days, batch.prior
            )
        return total_loss(prediction, batch, self.study.loss)

    def _update(self, step: int) -> None:
        """Apply the gradient: proximal term, clipping, AdamW at this step's rate."""
        training = self.study.training
        parameters = list(self.network.parameters())
        if self.proximal_mu > 0:
            _add_proximal_gradient(parameters, self.start, self.proximal_mu)
        torch.nn.utils.clip_grad_norm_(parameters, training.gradient_clip_norm)
        rate = learning_rate(
            training, step=step, round_number=self.round_number, rounds=self.study.rounds
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()

    def _report(self, step: int, loss: float) -> None:
        if self.progress is not None:
            self.progress(step + 1, self.study.training.steps_per_round, loss)

    def _not_finite(self, step: int, pair_ids: list[str]) -> TrainingError:
        return TrainingError(
            f"site {self.site.name}, round {self.round_number}, step {step + 1}: the loss is not "
            f"finite for pairs {', '.join(pair_ids)}; lower training.learning_rate, or look at "
            "these pairs with `nognet check`",
            code="loss-not-finite",
        )


def _add_proximal_gradient(
    parameters: Sequence[torch.nn.Parameter], start: Sequence[Tensor], mu: float
) -> None:
    """Add the gradient of FedProx' term ``mu / 2 ||w - w_global||^2`` (Li et al. 2020, eq. 2)."""
    with torch.no_grad():
        for parameter, anchor in zip(parameters, start, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(parameter - anchor, alpha=mu)
