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
from nognet.fit.tensors import augment, sample_order, stack_pairs
from nognet.network import total_loss
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
        loss: Mean of the last steps' losses; networks with other losses can't be compared by it.
    """

    steps: int
    cpu_s: float
    wall_s: float
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
    everything = stack_pairs(pairs)
    order = sample_order(len(pairs), settings.batch_size, torch_generator(seed, "contest", "order"))
    augmentation = torch_generator(seed, "contest", "augment")
    network.to(where).train()
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    clock = time.process_time if where.type == "cpu" else time.perf_counter
    losses: list[float] = []
    started, started_cpu, started_wall = clock(), time.process_time(), time.perf_counter()
    while (share := budget.share(clock() - started, len(losses))) < 1:
        chosen = next(order)
        batch = everything.select(chosen)
        batch = (augment(batch, augmentation) if settings.augment else batch).to(where)
        prediction = network(batch.image, batch.mask, batch.interval_days, batch.prior)
        value = total_loss(prediction, batch, loss).mean()
        losses.append(float(value.detach()))
        if not math.isfinite(losses[-1]):
            raise _not_finite(name, seed, len(losses), [pairs[i].pair_id for i in chosen])
        optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]  # torch's own is untyped
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(settings, step=len(losses), share=share)
        optimizer.step()
    last = losses[-_LAST_LOSSES:]
    return Training(
        steps=len(losses),
        cpu_s=time.process_time() - started_cpu,
        wall_s=time.perf_counter() - started_wall,
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


def _not_finite(name: str, seed: int, step: int, pair_ids: Sequence[str]) -> TrainingError:
    return TrainingError(
        f"{name}, seed {seed}, step {step}: the loss is not finite for pairs "
        f"{', '.join(pair_ids)}; look at these pairs with `nognet check`, or leave this network "
        "out with --networks",
        code="loss-not-finite",
    )
