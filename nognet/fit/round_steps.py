"""The steps of one training round on one network, plain or under differential privacy."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nognet.config import SiteConfig, StudyConfig
from nognet.errors import TrainingError
from nognet.fit.budget import PrivatePlan, ledger_of
from nognet.fit.checks import check_pairs
from nognet.fit.control import ControlVariate
from nognet.fit.loading import BatchSource
from nognet.fit.pull import Pull
from nognet.fit.schedule import learning_rate
from nognet.fit.start_loss import mean_start_loss
from nognet.fit.steps import TrainingSteps
from nognet.fit.tensors import augmented, draw_apart, stack_pairs
from nognet.fit.weights import Weights, weights_of
from nognet.network import Batch, MTNoGNet
from nognet.privacy.ledger_entries import Purpose
from nognet.randomness import torch_generator
from nognet.types import RoiPair

if TYPE_CHECKING:
    from nognet.fit.private import PrivateRound

Progress = Callable[[int, int, float], None]


class RoundSteps:
    """The steps of one round on one network."""

    def __init__(  # noqa: PLR0913  what a round depends on, each once
        self,
        study: StudyConfig,
        site: SiteConfig,
        network: MTNoGNet,
        round_number: int,
        progress: Progress | None,
        *,
        pull: Pull | None,
        correction: Weights | None,
    ) -> None:
        self.study, self.site, self.network = study, site, network
        self.device = next(network.parameters()).device
        self.round_number, self.progress = round_number, progress
        self.steps = TrainingSteps(
            network,
            study.training,
            study.loss,
            self.device,
            pull=pull,
            control=self._control_variate(correction) if study.strategy.sends_control else None,
        )
        self.names = ("train", study.seed, site.name, round_number)
        self.order_generator = torch_generator(site.seed, *self.names, "order")
        self.augment_generator = torch_generator(site.seed, *self.names, "augment")

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

    def train_with(
        self, plan: PrivatePlan, purpose: Purpose, pairs: Sequence[RoiPair]
    ) -> PrivateRound:
        """Take the round's steps under DP-SGD."""
        from nognet.fit import private  # late: Opacus takes 2 s to import

        check_pairs(pairs, self.study.roi, mask_required=_mask_required(self.study))
        everything = stack_pairs(pairs)

        def losses_of(step: int, indices: Sequence[int]) -> Tensor:
            ids = [pairs[index].pair_id for index in indices]
            return self.steps.losses(self._apart(everything.select(indices), ids, step))

        def plain_losses_of(indices: Sequence[int]) -> Tensor:
            return self.steps.losses(everything.select(indices).to(self.device))

        def update(step: int) -> None:
            with self._told_where(step):
                self.steps.apply(self._rate(step))
            self._report(step, math.nan)

        size = self.study.training.batch_size
        return private.train_privately(
            plan,
            ledger_of(self.site),
            purpose,
            [pair.patient_id for pair in pairs],
            (self.network, self.steps.optimizer),
            losses_of=losses_of,
            update=update,
            at_once=private.pairs_at_once(size, self.network, len(pairs), plain_losses_of),
        )

    def start_loss(self, pairs: Sequence[RoiPair]) -> float | None:
        """Measure the loss before the first step, where the strategy asks for it."""
        if not self.study.strategy.sends_start_loss:
            return None
        with self._told_where(0):
            return mean_start_loss(self.steps, self.study, pairs)

    def control(self) -> Weights | None:
        """Give the mean gradient of the steps taken, where the strategy asks for it."""
        if self.steps.control is None:
            return None
        names = [name for name, _ in self.network.named_parameters()]
        mean = dict(zip(names, self.steps.control.mean(), strict=True))
        return {name: mean[name].to("cpu", torch.float32) for name in self.network.state_dict()}

    def _control_variate(self, correction: Weights | None) -> ControlVariate:
        parameters = dict(self.network.named_parameters())
        if correction is None:
            return ControlVariate(list(parameters.values()))
        parts = [correction[name].to(self.device) for name in parameters]
        return ControlVariate(list(parameters.values()), parts)

    def weights(self) -> Weights:
        """Copy the weights after the steps taken: their moving average where it is on."""
        with self.steps.averaged():
            return weights_of(self.network)

    def _apart(self, batch: Batch, pair_ids: Sequence[str], step: int) -> Batch:
        """Augment each pair by its name and step alone, for a step under privacy.

        From one generator in turn, as without privacy, a patient more would turn all others another
        way: the seed is no secret, so that their gradients' change would be the patient's as well.
        """
        if not self.study.training.augment:
            return batch.to(self.device)
        seed, names = self.site.seed, (*self.names, "augment", step)
        generators = [torch_generator(seed, *names, pair_id) for pair_id in pair_ids]
        return augmented(batch, draw_apart(generators)).to(self.device)

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
