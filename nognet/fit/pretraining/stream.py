"""Phantom pairs without end, each seen once: a batch is known by its number alone.

Patients are drawn in blocks from three hospitals (one of each kind of scanner), hospitals of as
many patients as `nognet phantom` makes by default, so that all kinds of nodules have their share;
the pairs of a block are shuffled. Where in its block a batch begins follows from the patients'
plans, so that a training that is gone on with draws the blocks that it needs and none before.
"""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count

import torch

from nognet.config import RoiConfig
from nognet.phantom.patient import PatientPlan, draw_patient, plan_patients
from nognet.phantom.roi import pairs_of_patient
from nognet.phantom.scanner import scanner_of_site
from nognet.randomness import derived_seed, torch_generator
from nognet.types import RoiPair

_HOSPITALS = 3
_PATIENTS = 24
"""Of each hospital; then three others follow."""
_TAKEN = 3
"""Patients of each hospital in a block."""
_BLOCKS = _PATIENTS // _TAKEN
_DRAWN_BELOW = 16
"""Pairs left of a block when the next is begun."""


def phantom_batches(
    roi: RoiConfig, batch_size: int, *, seed: int, first: int = 0
) -> Generator[tuple[RoiPair, ...]]:
    """Yield batches of fresh pairs for ever; the next block is drawn while one is used up.

    Args:
        roi: Size and window of the ROI.
        batch_size: Pairs a batch.
        seed: Equal seeds give equal batches.
        first: Number of the first batch that is wanted, from 0.
    """
    block, skipped = _block_of_pair(first * batch_size, seed)
    waiting: list[RoiPair] = []
    with ThreadPoolExecutor(1, thread_name_prefix="phantoms") as pool:
        ahead: Future[list[RoiPair]] | None = None
        while True:
            if ahead is None and len(waiting) < max(batch_size, _DRAWN_BELOW):
                ahead, block = pool.submit(_block, block, roi, seed), block + 1
            if ahead is not None and len(waiting) < batch_size:
                waiting += ahead.result()[skipped:]
                ahead, skipped = None, 0
                continue
            yield tuple(waiting[:batch_size])
            waiting = waiting[batch_size:]


def patients_seen(pairs: int, seed: int) -> int:
    """Count the phantom patients of whom some of the first so many pairs are (by whole blocks)."""
    if pairs < 1:
        return 0
    return (_block_of_pair(pairs - 1, seed)[0] + 1) * _HOSPITALS * _TAKEN


def _block_of_pair(pair: int, seed: int) -> tuple[int, int]:
    """Find the block of a pair, and the pair's place in it."""
    for block in count():
        size = sum(plan.pairs_a_nodule * len(plan.kinds) for plan in _plans(block, seed))
        if pair < size:
            return block, pair
        pair -= size
    raise AssertionError  # `count` has no end


def _plans(block: int, seed: int) -> list[PatientPlan]:
    trio, part = divmod(block, _BLOCKS)
    return [
        plan
        for hospital in range(_HOSPITALS * trio, _HOSPITALS * (trio + 1))
        for plan in plan_patients(hospital, _PATIENTS, _phantom_seed(seed))[
            part * _TAKEN : (part + 1) * _TAKEN
        ]
    ]


def _block(block: int, roi: RoiConfig, seed: int) -> list[RoiPair]:
    phantoms = _phantom_seed(seed)
    pairs = [
        pair
        for plan in _plans(block, seed)
        for pair in pairs_of_patient(
            draw_patient(plan, phantoms),
            scanner_of_site(plan.site, phantoms),
            roi=roi,
            seed=phantoms,
        )
    ]
    order = torch.randperm(len(pairs), generator=torch_generator(seed, "pretraining", block))
    return [pairs[index] for index in order.tolist()]


def _phantom_seed(seed: int) -> int:
    """Keep apart from `nognet phantom`: a cohort of the same seed holds none of these patients."""
    return derived_seed(seed, "pretraining", "phantoms")
