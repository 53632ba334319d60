"""Train any network for a budget: so many seconds of the processor, or so many steps."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from nognet.config import LossConfig, TrainingConfig
from nognet.errors import TrainingError
from nognet.fit.loading import BatchSource
from nognet.fit.steps import TrainingSteps
from nognet.randomness import torch_generator
from nognet.types import RoiPair

WARMUP_STEPS = 20
_LAST_LOSSES = 20


@dataclass(frozen=True)
class Budget:
    """What a training may take: seconds or steps, one of the two.

    Seconds are the process's CPU seconds, which other work on the machine leaves as they are; on a
    GPU they are those of the clock on the wall.
    """

    seconds: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if (self.seconds is None) == (self.steps is None):
            raise ValueError("a budget is seconds or steps, one of the two")

    def share(self, seconds: float, steps: int) -> float:
        """Give the share of it that is spent; 1 and more is all."""
        if self.steps is not None:
            return steps / self.steps
        return seconds / (self.seconds or math.inf)


@dataclass(frozen=True)
class Training:
    """How a training went.

    Attributes:
        steps: Taken.
        cpu_s: Seconds of the process.
        wall_s: Seconds on the wall.
        counted_s: Those of the two that a budget in seconds counts.
        loss: Mean of the last steps' losses; networks with other losses can't be compared by it.
    """

    steps: int
    cpu_s: float
    wall_s: float
    counted_s: float
    loss: float


def train_network(  # noqa: PLR0913  what is trained, on what, how, for how long
    network: nn.Module,
    pairs: Sequence[RoiPair],
    loss: LossConfig,
    budget: Budget,
    *,
    seed: int,
    name: str = "network",
    device: torch.device | None = None,
    training: TrainingConfig | None = None,
) -> Training:
    """Train a network in place until its budget is spent; one step at least.

    The same seed gives every network the same order of samples and the same augmentation.

    Raises:
        TrainingError: no pairs, or a loss that is not finite.
    """
    where = device or torch.device("cpu")
    settings = training or TrainingConfig()
    order = torch_generator(seed, "contest", "order")
    augmentation = torch_generator(seed, "contest", "augment")
    clock = time.process_time if where.type == "cpu" else time.perf_counter
    losses: list[float] = []
    with BatchSource(pairs, settings, where, order, augmentation) as source:
        steps = TrainingSteps(network.to(where), settings, loss, where)
        batches = iter(source)
        started, started_cpu, started_wall = clock(), time.process_time(), time.perf_counter()
        while (share := budget.share(clock() - started, len(losses))) < 1:
            ids, batch = next(batches)
            rate = rate_at(settings, step=len(losses) + 1, share=share)
            try:
                losses.append(steps.step([batch], rate, ids))
            except TrainingError as err:
                where_it_was = f"{name}, seed {seed}, step {len(losses) + 1}"
                raise TrainingError(f"{where_it_was}: {err}", code=err.code) from err
        took = clock() - started
        took_cpu, took_wall = time.process_time() - started_cpu, time.perf_counter() - started_wall
    last = losses[-_LAST_LOSSES:]
    return Training(
        steps=len(losses),
        cpu_s=took_cpu,
        wall_s=took_wall,
        counted_s=took,
        loss=math.fsum(last) / len(last),
    )


def rate_at(settings: TrainingConfig, *, step: int, share: float) -> float:
    """Give the learning rate: a linear warm-up, then a cosine over the share of the budget.

    >>> settings = TrainingConfig(learning_rate=1.0, final_learning_rate_fraction=0.1)
    >>> [round(rate_at(settings, step=99, share=share), 2) for share in (0.0, 0.5, 1.0)]
    [1.0, 0.55, 0.1]
    """
    last = settings.final_learning_rate_fraction
    cosine = last + (1 - last) * (1 + math.cos(math.pi * min(share, 1.0))) / 2
    return settings.learning_rate * min(1.0, step / WARMUP_STEPS) * cosine
