"""Pairs to batches: stacking, order of the samples, augmentation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nognet.errors import TrainingError
from nognet.fit.checks import check_pairs
from nognet.network import Batch, Prior
from nognet.types import RoiPair

_INTENSITY_SHIFT = 0.01  # 14 HU of the window -1024..400
_AXES = (2, 3, 4)


def stack_pairs(pairs: Sequence[RoiPair]) -> Batch:
    """Stack pairs into one batch on the CPU.

    A baseline mask may be empty: evaluation shows what a network makes of a missing one.

    Raises:
        TrainingError: no pairs, or a pair that `check_pairs` refuses (named by its id).
    """
    if not pairs:
        raise TrainingError("no pairs to stack into a batch", code="no-pairs")
    check_pairs(pairs, mask_required=False)

    def stack(name: str) -> Tensor:
        arrays = np.stack([getattr(pair, name) for pair in pairs]).astype(np.float32)
        return torch.from_numpy(arrays)[:, None]

    ratios = [pair.follow_up_volume_mm3 / pair.baseline_volume_mm3 for pair in pairs]
    return Batch(
        image=stack("baseline"),
        mask=stack("baseline_mask"),
        target_image=stack("follow_up"),
        target_mask=stack("follow_up_mask"),
        interval_days=torch.tensor([float(pair.interval_days) for pair in pairs]),
        log_growth=torch.tensor([math.log(ratio) for ratio in ratios]),
        prior=_stack_priors(pairs),
    )


def _stack_priors(pairs: Sequence[RoiPair]) -> Prior | None:
    """Stack the scans before the baselines; a pair without one has its baseline again, at 0 days.

    None where no pair has one.
    """
    if all(pair.prior is None for pair in pairs):
        return None

    def stack(arrays: list[NDArray[Any]]) -> Tensor:
        return torch.from_numpy(np.stack(arrays).astype(np.float32))[:, None]

    return Prior(
        image=stack([p.prior.image if p.prior else p.baseline for p in pairs]),
        mask=stack([p.prior.mask if p.prior else p.baseline_mask for p in pairs]),
        days_before=torch.tensor([float(p.prior.days_before) if p.prior else 0.0 for p in pairs]),
    )


def sample_order(count: int, batch_size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Yield batches of indices for ever: each pass over the data is shuffled anew.

    A batch never holds the same index twice unless there are fewer pairs than its size.
    """
    waiting: list[int] = []
    size = min(batch_size, count)
    while True:
        batch, waiting = waiting[:size], waiting[size:]
        if len(batch) < size:
            shuffled = torch.randperm(count, generator=generator).tolist()
            taken = set(batch)
            fresh = [index for index in shuffled if index not in taken]
            late = [index for index in shuffled if index in taken]
            batch, waiting = batch + fresh[: size - len(batch)], fresh[size - len(batch) :] + late
        yield batch


@dataclass(frozen=True)
class Augmentation:
    """What was drawn for a batch of B samples.

    Attributes:
        flips: Whether each axis is flipped, ``(B, 3)`` bool.
        orders: New order of the axes, one permutation of 0, 1, 2 a sample.
        shifts: Added to the intensities, ``(B, 1, 1, 1, 1)``.
    """

    flips: Tensor
    orders: tuple[tuple[int, ...], ...]
    shifts: Tensor


def augment(batch: Batch, generator: torch.Generator) -> Batch:
    """Flip and rotate (by 90 degrees) whole pairs at random and shift their intensities slightly.

    All random numbers are drawn first, one set a sample; the input is left as it is.
    """
    return augmented(batch, draw_augmentation(len(batch), generator))


def draw_augmentation(count: int, generator: torch.Generator) -> Augmentation:
    """Draw the augmentation of `count` samples."""
    flips = torch.rand((count, 3), generator=generator) < 0.5
    orders = tuple(tuple(torch.randperm(3, generator=generator).tolist()) for _ in range(count))
    shifts = (torch.rand((count, 1, 1, 1, 1), generator=generator) * 2 - 1) * _INTENSITY_SHIFT
    return Augmentation(flips, orders, shifts)


def draw_apart(generators: Sequence[torch.Generator]) -> Augmentation:
    """Draw the augmentation of each sample from a generator of its own."""
    drawn = [draw_augmentation(1, generator) for generator in generators]
    return Augmentation(
        flips=torch.cat([one.flips for one in drawn]),
        orders=tuple(one.orders[0] for one in drawn),
        shifts=torch.cat([one.shifts for one in drawn]),
    )


def augmented(batch: Batch, drawn: Augmentation) -> Batch:
    """Apply what was drawn; no randomness, the input is left as it is."""
    shifts = drawn.shifts

    def turn(values: Tensor) -> Tensor:
        turned = []
        for sample, (axes, flips) in enumerate(zip(drawn.orders, drawn.flips, strict=True)):
            order = [0, 1, *(2 + axis for axis in axes)]
            flipped = [axis for axis, is_flipped in zip(_AXES, flips, strict=True) if is_flipped]
            turned.append(values[sample : sample + 1].permute(order).flip(flipped))
        return torch.cat(turned)

    turned = batch.with_volumes(turn)
    prior = turned.prior
    if prior is not None:
        prior = replace(prior, image=(prior.image + shifts).clamp(0.0, 1.0))
    return replace(
        turned,
        image=(turned.image + shifts).clamp(0.0, 1.0),
        target_image=(turned.target_image + shifts).clamp(0.0, 1.0),
        prior=prior,
    )
