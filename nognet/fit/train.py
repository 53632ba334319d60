"""One site's training round: weights in, weights out."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nognet.config import PrivacyConfig, SiteConfig, StudyConfig, TrainingConfig
from nognet.data.store import PreparedSite
from nognet.errors import ConfigError, TrainingError
from nognet.fit.checks import check_pairs
from nognet.fit.device import cpu_threads, reproducible, resolve_device
from nognet.fit.loading import BatchSource
from nognet.fit.steps import TrainingSteps
from nognet.fit.tensors import augment, stack_pairs
from nognet.fit.weights import Weights, network_with, weights_of
from nognet.network import Batch, MTNoGNet
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
    differential privacy, on the site's record of what was spent). So does the moving average of the
    weights, where `training.ema_decay` is on: it is what the round gives, and what a site sends.

    Args:
        study: What the coordinator decided.
        site: What the site decided; its seed orders the samples.
        prepared: The site's pairs.
        weights: Global weights at the start of the round; not changed.
        round_number: From 1.
        progress: Called after each step with the step, the number of steps and the loss.

    Raises:
        TrainingError: the site has no training pairs, a pair can't be learnt from (it is named), or
            a loss is not finite.
        ConfigError: the device or privacy can't do the study's precision or accumulation.
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
    if privacy is not None:
        _check_private(study.training)
    with cpu_threads(site.threads), reproducible():
        network = network_with(study.network, weights, device)
        loop = _Round(study, site, network, device, round_number, progress)
        spent: PrivateRound | None = None
        mean_loss: float | None = None
        if privacy is None:
            mean_loss = loop.train(pairs)
        else:
            spent = loop.train_with(privacy, pairs)
    return RoundOutcome(
        weights=loop.weights(),
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
    0.002
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
        self.steps = TrainingSteps(
            network,
            study.training,
            study.loss,
            device,
            proximal_mu=getattr(study.strategy, "proximal_mu", 0.0),
        )
        names = ("train", study.seed, site.name, round_number)
        self.order_generator = torch_generator(site.seed, *names, "order")
        self.augment_generator = torch_generator(site.seed, *names, "augment")

    def train(self, pairs: Sequence[RoiPair]) -> float:
        """Take the round's steps; give the mean loss."""
        training = self.study.training
        losses = []
        with BatchSource(
            pairs,
            training,
            self.device,
            self.order_generator,
            self.augment_generator,
            roi=self.study.roi,
            mask_required=_mask_required(self.study),
        ) as source:
            stream = iter(source)
            for step in range(training.steps_per_round):
                taken = list(islice(stream, training.accumulate))
                ids = [pair_id for named, _ in taken for pair_id in named]
                with self._told_where(step):
                    value = self.steps.step([batch for _, batch in taken], self._rate(step), ids)
                losses.append(value)
                self._report(step, value)
        return math.fsum(losses) / len(losses)

    def train_with(self, privacy: PrivacyConfig, pairs: Sequence[RoiPair]) -> PrivateRound:
        """Take the round's steps under DP-SGD."""
        from nognet.fit.private import train_privately  # late: Opacus takes 2 s to import

        check_pairs(pairs, self.study.roi, mask_required=_mask_required(self.study))
        everything = stack_pairs(pairs)

        def loss_of(index: int) -> Tensor:
            return self.steps.losses(self._prepared(everything.select([index])))[0]

        def update(step: int) -> None:
            with self._told_where(step):
                self.steps.apply(self._rate(step))
            self._report(step, math.nan)

        return train_privately(
            privacy,
            self.site,
            self.study.training,
            [pair.patient_id for pair in pairs],
            (self.network, self.steps.optimizer),
            loss_of=loss_of,
            update=update,
        )

    def weights(self) -> Weights:
        """Copy the weights after the steps taken: their moving average where it is on."""
        with self.steps.averaged():
            return weights_of(self.network)

    def _prepared(self, batch: Batch) -> Batch:
        augmented = augment(batch, self.augment_generator) if self.study.training.augment else batch
        return augmented.to(self.device)

    def _rate(self, step: int) -> float:
        return learning_rate(
            self.study.training,
            step=step,
            round_number=self.round_number,
            rounds=self.study.rounds,
        )

    def _report(self, step: int, loss: float) -> None:
        if self.progress is not None:
            self.progress(step + 1, self.study.training.steps_per_round, loss)

    @contextlib.contextmanager
    def _told_where(self, step: int) -> Iterator[None]:
        """Add site, round and step to what a step complains of."""
        try:
            yield
        except TrainingError as err:
            where = f"site {self.site.name}, round {self.round_number}, step {step + 1}"
            raise TrainingError(f"{where}: {err}", code=err.code) from err


def _mask_required(study: StudyConfig) -> bool:
    """Whether an empty baseline mask is a fault, or means that the site has none."""
    return study.network.missing_mask == "refused"


def _check_private(training: TrainingConfig) -> None:
    """Refuse what DP-SGD, which takes one sample at a time, can't do."""
    if training.precision == "fp16":
        raise ConfigError(
            "training.precision: fp16 scales the loss, which privacy's clipping can't allow for; "
            "set precision: bf16 or fp32",
            code="precision-private",
        )
    if training.accumulate > 1:
        raise ConfigError(
            f"training.accumulate: {training.accumulate} is not possible under privacy, which "
            "takes one sample at a time already; raise training.batch_size and set accumulate: 1",
            code="accumulate-private",
        )
