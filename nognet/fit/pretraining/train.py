"""The training itself: from the first weights to those after `steps` batches of phantoms."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch.optim import Optimizer

from nognet.config import LossConfig, NetworkConfig, PhantomInit, RoiConfig, TrainingConfig
from nognet.errors import TrainingError
from nognet.fit.contest.train import rate_at
from nognet.fit.device import cpu_threads, reproducible
from nognet.fit.pretraining.stream import phantom_batches
from nognet.fit.steps import TrainingSteps
from nognet.fit.tensors import augment, stack_pairs
from nognet.fit.weights import Weights, initial_weights, network_with, weights_of
from nognet.network import MTNoGNet
from nognet.randomness import torch_generator
from nognet.types import RoiPair

Progress = Callable[[int, int, float], None]
"""Called after each step with the step, the number of steps and the loss."""
Moments = dict[str, dict[str, torch.Tensor]]
"""Parameter -> AdamW's ``step``, ``exp_avg`` and ``exp_avg_sq``."""


@dataclass(frozen=True)
class Pretraining:
    """What is pre-trained: with the versions of the software, all that the weights depend on."""

    network: NetworkConfig
    roi: RoiConfig
    loss: LossConfig
    settings: PhantomInit

    def digest(self, software: str) -> str:
        """SHA-256 of it and of what names the software."""
        parts = [p.canonical_json() for p in (self.network, self.roi, self.loss, self.settings)]
        return hashlib.sha256(json.dumps([*parts, software]).encode()).hexdigest()


@dataclass(frozen=True)
class Midway:
    """A pre-training between two steps; going on from it gives the bits of one in a piece.

    Attributes:
        steps: Taken so far.
        weights: After them.
        moments: The optimiser's.
    """

    steps: int
    weights: Weights
    moments: Moments


Keep = Callable[[Callable[[], Midway]], None]
"""Called after each step; asks for the state where it wants to keep it."""


def pretrain(
    what: Pretraining,
    *,
    device: torch.device | None = None,
    begun: Midway | None = None,
    progress: Progress | None = None,
    keep: Keep | None = None,
) -> Weights:
    """Pre-train a network on phantoms.

    Args:
        what: Network, ROI, loss, steps, seed.
        device: By default the CPU; the same arguments give the same bits there.
        begun: To go on from; None: the first weights of the settings' seed.
        progress: Told of every step.
        keep: Given the state after every step.

    Raises:
        TrainingError: a loss is not finite; names the step.
        WireError: `begun` is of another network.
    """
    settings, where = what.settings, device or torch.device("cpu")
    done = 0 if begun is None else begun.steps
    weights = initial_weights(what.network, settings.seed) if begun is None else begun.weights
    with cpu_threads(settings.threads if where.type == "cpu" else None), reproducible():
        network = network_with(what.network, weights, where)
        steps = TrainingSteps(network, _training(settings), what.loss, where)
        if begun is not None:
            _put_moments(steps.optimizer, network, begun.moments)
        batches = phantom_batches(what.roi, settings.batch_size, seed=settings.seed, first=done)
        with contextlib.closing(batches):
            for number in range(done + 1, settings.steps + 1):
                loss = _step(steps, next(batches), settings, number)
                if keep is not None:
                    keep(partial(_midway, number, network, steps.optimizer))
                if progress is not None:
                    progress(number, settings.steps, loss)
        return weights_of(network)


def _training(settings: PhantomInit) -> TrainingConfig:
    return TrainingConfig(learning_rate=settings.learning_rate, batch_size=settings.batch_size)


def _step(
    steps: TrainingSteps, pairs: Sequence[RoiPair], settings: PhantomInit, number: int
) -> float:
    """Take one step; it depends on its number, not on how the training came to it."""
    generator = torch_generator(settings.seed, "pretraining", "augment", number)
    batch = augment(stack_pairs(pairs), generator).to(steps.device)
    rate = rate_at(steps.training, step=number, share=(number - 1) / settings.steps)
    try:
        return steps.step([batch], rate, [pair.pair_id for pair in pairs])
    except TrainingError as err:
        raise TrainingError(
            f"pre-training on phantoms, step {number} of {settings.steps}: {err}; lower "
            "init.learning_rate",
            code=err.code,
        ) from err


def _midway(number: int, network: MTNoGNet, optimizer: Optimizer) -> Midway:
    moments: Moments = {
        name: {key: value.detach().to("cpu", copy=True) for key, value in kept.items()}
        for name, parameter in network.named_parameters()
        if (kept := optimizer.state.get(parameter))
    }
    return Midway(number, weights_of(network), moments)


def _put_moments(optimizer: Optimizer, network: MTNoGNet, moments: Moments) -> None:
    """Give the optimiser back what it knew of each parameter that has had a gradient."""
    names = [name for name, _ in network.named_parameters()]
    state = {i: dict(moments[name]) for i, name in enumerate(names) if name in moments}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
