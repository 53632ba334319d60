"""Run a contest: train every network with every seed, judge all of them on the same pairs."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import torch

from nognet.errors import TrainingError
from nognet.fit.contest.cohort import Cohort
from nognet.fit.contest.contestants import COPY, ISOTROPIC, ORACLE, contestant, oracle
from nognet.fit.contest.judge import Judged, judge
from nognet.fit.contest.train import Budget, Training, train_network
from nognet.fit.device import cpu_threads
from nognet.fit.predictors import (
    Predictor,
    copy_baseline,
    isotropic_growth,
    median_growth,
    network_predictor,
)
from nognet.randomness import torch_generator

THREADS_A_TRAINING = 1

Told = Callable[[str, int, Training], None]
"""Called after each training with name, seed and how it went."""


@dataclass(frozen=True)
class Plan:
    """What competes and how.

    Attributes:
        names: Networks and ablations.
        seeds: Of first weights and of the order of samples.
        budget: Of each training.
        width: Of every network; None is each one's own.
        device: As torch names it.
        workers: Trainings side by side, one thread each.
    """

    names: tuple[str, ...]
    seeds: tuple[int, ...]
    budget: Budget
    width: int | None = None
    device: str = "cpu"
    workers: int = 1


@dataclass(frozen=True)
class Entry:
    """One network trained with one seed."""

    name: str
    seed: int
    parameters: int
    training: Training


@dataclass(frozen=True)
class Outcome:
    """All entries, and every predictor's figures on every test pair."""

    entries: tuple[Entry, ...]
    rows: tuple[Judged, ...]


def run_contest(plan: Plan, cohort: Cohort, told: Told | None = None) -> Outcome:
    """Train and judge; the outcome's order does not depend on which training ends first.

    Raises:
        ConfigError: a network's name is not known.
        TrainingError: a loss is not finite.
    """
    jobs = [(name, seed) for seed in plan.seeds for name in plan.names]
    for name in plan.names:
        contestant(name, plan.width)  # a wrong name is told before anything is trained
    rows = [*_untrained(cohort)]
    entries = []
    for entry, judged in _trained(jobs, plan, cohort, told):
        entries.append(entry)
        rows.extend(judged)
    return Outcome(tuple(entries), tuple(rows))


def _untrained(cohort: Cohort) -> Iterator[Judged]:
    predictors: dict[str, Predictor] = {
        COPY: copy_baseline,
        ISOTROPIC: isotropic_growth(median_growth(cohort.train)),
        ORACLE: oracle,
    }
    for name, predict in predictors.items():
        yield from judge(name, None, predict, cohort.test)


def _trained(
    jobs: Sequence[tuple[str, int]], plan: Plan, cohort: Cohort, told: Told | None
) -> Iterator[tuple[Entry, tuple[Judged, ...]]]:
    """Yield entries in the order of the jobs."""
    if plan.workers == 1:
        for job in jobs:
            found = _compete(job, plan, cohort)
            _tell(told, found[0])
            yield found
        return
    context = multiprocessing.get_context("spawn")  # a forked child can't use CUDA
    count = min(plan.workers, len(jobs))
    with ProcessPoolExecutor(count, context, initializer=_hold, initargs=(plan, cohort)) as pool:
        futures = {pool.submit(_compete_here, job): job for job in jobs}
        done = {}
        for future in as_completed(futures):
            done[futures[future]] = _result(future)
            _tell(told, done[futures[future]][0])
    for job in jobs:
        yield done[job]


def _result(future: Future[tuple[Entry, tuple[Judged, ...]]]) -> tuple[Entry, tuple[Judged, ...]]:
    try:
        return future.result()
    except BrokenProcessPool as err:
        raise TrainingError(
            "a training's process was ended from outside, perhaps for want of memory; nothing was "
            "written; run again with fewer --workers",
            code="worker-died",
        ) from err


_held: list[tuple[Plan, Cohort]] = []  # in a worker: what it was started for


def _hold(plan: Plan, cohort: Cohort) -> None:
    _held.append((plan, cohort))


def _compete_here(job: tuple[str, int]) -> tuple[Entry, tuple[Judged, ...]]:
    return _compete(job, *_held[0])


def _compete(job: tuple[str, int], plan: Plan, cohort: Cohort) -> tuple[Entry, tuple[Judged, ...]]:
    name, seed = job
    entrant = contestant(name, plan.width)
    device = torch.device(plan.device)
    with cpu_threads(THREADS_A_TRAINING):
        network = entrant.build(torch_generator(seed, "contest", "first-weights"))
        training = train_network(
            network, cohort.train, entrant.loss, plan.budget, seed=seed, name=name, device=device
        )
        judged = tuple(judge(name, seed, network_predictor(network, device), cohort.test))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Entry(name, seed, parameters, training), judged


def _tell(told: Told | None, entry: Entry) -> None:
    if told is not None:
        told(entry.name, entry.seed, entry.training)
