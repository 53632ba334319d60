"""Batches that are ready when the device is: cached pairs, seeded augmentation, pinned memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import torch

from nognet.config import RoiConfig, TrainingConfig
from nognet.errors import ConfigError
from nognet.fit.checks import check_pairs
from nognet.fit.tensors import Augmentation, augmented, draw_augmentation, sample_order, stack_pairs
from nognet.network import Batch
from nognet.types import RoiPair

_MAX_WORKERS = 4
_AHEAD = 2  # batches in work for each worker

Drawn = tuple[list[int], Augmentation | None]


def worker_count(device: torch.device) -> int:
    """How many threads prepare batches: none on the CPU, where they would take the network's cores.

    On a GPU one core is left to the thread that feeds it.
    """
    if device.type == "cpu":
        return 0
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone; it knows the job's own cores
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(_MAX_WORKERS, cores - 1))


class BatchSource:
    """Endless augmented batches of a site's pairs on the device, with the ids of their pairs.

    The pairs are stacked once. All random numbers are drawn, in the order of the batches, by the
    thread that iterates; workers only apply them. So the bits don't depend on the workers.

    Use it in a `with` block, which ends the workers on errors and on Ctrl-C too.
    """

    def __init__(  # noqa: PLR0913  what a batch depends on, each once
        self,
        pairs: Sequence[RoiPair],
        training: TrainingConfig,
        device: torch.device,
        order_generator: torch.Generator,
        augment_generator: torch.Generator,
        workers: int | None = None,
        *,
        roi: RoiConfig | None = None,
        mask_required: bool = True,
    ) -> None:
        """Stack the pairs.

        Args:
            pairs: Of the site.
            training: Batch size, and whether to augment.
            device: Where batches go.
            order_generator: Shuffles the pairs.
            augment_generator: Draws flips, turns and shifts.
            workers: Threads that prepare ahead; 0 prepares when asked, None takes `worker_count`.
            roi: Its size holds for all pairs; None takes the first pair's.
            mask_required: Whether an empty baseline mask is refused.

        Raises:
            TrainingError: no pairs, or a pair that can't be learnt from.
            ConfigError: a negative number of workers.
        """
        if workers is not None and workers < 0:
            raise ConfigError(f"workers: found {workers}, expected 0 or more", code="workers")
        check_pairs(pairs, roi, mask_required=mask_required)
        self.everything = stack_pairs(pairs)
        self.pair_ids = [pair.pair_id for pair in pairs]
        self.training, self.device = training, device
        self.augment_generator = augment_generator
        self.order = sample_order(len(pairs), training.batch_size, order_generator)
        self.workers = worker_count(device) if workers is None else workers
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; batches that nobody took are dropped."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[tuple[list[str], Batch]]:
        """Yield ids and batch for ever."""
        prepared = self._when_asked() if self.workers == 0 else self._ahead()
        for chosen, batch in prepared:
            moved = batch.to(self.device, non_blocking=self.device.type == "cuda")
            yield [self.pair_ids[i] for i in chosen], moved

    def _when_asked(self) -> Iterator[tuple[list[int], Batch]]:
        while True:
            drawn = self._draw()
            yield drawn[0], self._prepare(drawn)

    def _ahead(self) -> Iterator[tuple[list[int], Batch]]:
        self.close()  # of an iteration before
        pool = self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="batches")
        waiting: deque[tuple[list[int], Future[Batch]]] = deque()
        try:
            while True:
                while len(waiting) < _AHEAD * self.workers:
                    drawn = self._draw()
                    waiting.append((drawn[0], pool.submit(self._prepare, drawn)))
                chosen, ready = waiting.popleft()
                yield chosen, ready.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _draw(self) -> Drawn:
        chosen = next(self.order)
        if not self.training.augment:
            return chosen, None
        return chosen, draw_augmentation(len(chosen), self.augment_generator)

    def _prepare(self, drawn: Drawn) -> Batch:
        """Make a batch on the CPU, in page-locked memory where the device is a CUDA GPU."""
        chosen, augmentation = drawn
        batch = self.everything.select(chosen)
        if augmentation is not None:
            batch = augmented(batch, augmentation)
        if self.device.type == "cuda":
            batch = batch.mapped(lambda tensor: tensor.pin_memory())
        return batch
