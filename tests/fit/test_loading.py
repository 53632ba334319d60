from __future__ import annotations

import dataclasses
import threading
from itertools import islice

import numpy as np
import pytest
import torch

from nognet.config import TrainingConfig
from nognet.errors import ConfigError, TrainingError
from nognet.fit.loading import BatchSource, worker_count
from nognet.fit.tensors import augment, sample_order, stack_pairs
from nognet.network import Batch
from nognet.types import RoiPair
from tests.builders.federation import roi_pair

CPU = torch.device("cpu")
TRAINING = TrainingConfig(batch_size=3)


@pytest.fixture(scope="module")
def pairs() -> list[RoiPair]:
    return [roi_pair(number, np.random.default_rng(number)) for number in range(5)]


def _source(
    pairs: list[RoiPair], workers: int | None = None, training: TrainingConfig = TRAINING
) -> BatchSource:
    order, turns = (torch.Generator().manual_seed(seed) for seed in (1, 2))
    return BatchSource(pairs, training, CPU, order, turns, workers)


def _taken(source: BatchSource, count: int = 7) -> list[tuple[list[str], Batch]]:
    with source:
        return list(islice(source, count))


def _threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("batches")]


@pytest.mark.parametrize("workers", [1, 3])
def test_the_bits_do_not_depend_on_the_workers(pairs: list[RoiPair], workers: int) -> None:
    plain, ahead = _taken(_source(pairs, 0)), _taken(_source(pairs, workers))
    for (ids, batch), (other_ids, other) in zip(plain, ahead, strict=True):
        assert ids == other_ids
        for name in ("image", "mask", "target_image", "target_mask", "interval_days", "log_growth"):
            assert torch.equal(getattr(batch, name), getattr(other, name)), name


def test_it_draws_as_order_and_augmentation_one_after_the_other_do(pairs: list[RoiPair]) -> None:
    everything = stack_pairs(pairs)
    order = sample_order(5, 3, torch.Generator().manual_seed(1))
    turns = torch.Generator().manual_seed(2)
    for ids, batch in _taken(_source(pairs)):
        chosen = next(order)
        assert ids == [pairs[i].pair_id for i in chosen]
        assert torch.equal(batch.image, augment(everything.select(chosen), turns).image)


def test_without_augmentation_pairs_come_as_they_are(pairs: list[RoiPair]) -> None:
    by_id = {pair.pair_id: pair for pair in pairs}
    training = TrainingConfig(batch_size=2, augment=False)
    for ids, batch in _taken(_source(pairs, 0, training)):
        for pair_id, image in zip(ids, batch.image[:, 0], strict=True):
            np.testing.assert_array_equal(image.numpy(), by_id[pair_id].baseline)


def test_the_workers_end_with_the_block(pairs: list[RoiPair]) -> None:
    with _source(pairs, 2) as source:
        stream = iter(source)
        next(stream)
        assert _threads()
    assert not _threads()


@pytest.mark.parametrize("error", [KeyboardInterrupt, TrainingError])
def test_the_workers_end_on_errors_and_on_ctrl_c(
    pairs: list[RoiPair], error: type[BaseException]
) -> None:
    with pytest.raises(error), _source(pairs, 2) as source:  # noqa: PT012  the block is the point
        for _ in source:
            raise error("stop")
    assert not _threads()


def test_the_workers_end_when_the_iteration_is_closed(pairs: list[RoiPair]) -> None:
    stream = iter(_source(pairs, 1))
    next(stream)
    stream.close()
    assert not _threads()


def test_what_fails_in_a_worker_is_raised_to_whom_it_concerns(
    pairs: list[RoiPair], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Batch:
        raise MemoryError("no room")

    monkeypatch.setattr("nognet.fit.loading.augmented", fail)
    with pytest.raises(MemoryError, match="no room"), _source(pairs, 2) as source:
        next(iter(source))
    assert not _threads()


def test_a_bad_pair_is_refused_before_the_first_batch(pairs: list[RoiPair]) -> None:
    empty = dataclasses.replace(pairs[1], baseline_mask=np.zeros((32, 32, 32), np.uint8))
    with pytest.raises(TrainingError, match=f"pair {pairs[1].pair_id}: the mask is empty"):
        _source([pairs[0], empty])
    generators = torch.Generator(), torch.Generator()
    lenient = BatchSource([empty], TRAINING, CPU, *generators, mask_required=False)
    assert _taken(lenient, 1)[0][0] == [empty.pair_id]


def test_no_pairs_and_negative_workers_are_refused(pairs: list[RoiPair]) -> None:
    with pytest.raises(TrainingError, match="no pairs"):
        _source([])
    with pytest.raises(ConfigError, match="found -1, expected 0 or more"):
        _source(pairs, -1)


def test_a_gpu_gets_workers_from_the_cores_and_the_cpu_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert worker_count(CPU) == 0
    for cores, workers in ((1, 1), (2, 1), (4, 3), (16, 4)):
        there = set(range(cores))
        monkeypatch.setattr("os.sched_getaffinity", lambda _, there=there: there, raising=False)
        assert worker_count(torch.device("cuda")) == workers


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_the_prepared_batches_have_the_bits_of_the_cpu(pairs: list[RoiPair]) -> None:
    plain = _taken(_source(pairs, 0), 20)
    order, turns = (torch.Generator().manual_seed(seed) for seed in (1, 2))
    source = BatchSource(pairs, TRAINING, torch.device("cuda"), order, turns)
    for (ids, batch), (other_ids, other) in zip(plain, _taken(source, 20), strict=True):
        assert ids == other_ids
        assert other.image.is_cuda
        assert torch.equal(batch.image, other.image.cpu())
        assert torch.equal(batch.target_mask, other.target_mask.cpu())
    assert not _threads()
