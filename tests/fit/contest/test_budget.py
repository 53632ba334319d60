"""Is the contest fair: seconds of training count alone, and nobody gets more of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from nognet.config import RoiConfig
from nognet.fit.contest import run, train
from nognet.fit.contest.cohort import Cohort, phantom_cohort
from nognet.fit.contest.run import Outcome, Plan, run_contest
from nognet.fit.contest.train import Budget
from nognet.fit.steps import TrainingSteps

BUDGET_S = 10.0
MOST = 1.1


class Clock:
    """Both of the module's clocks; it moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0  # a process is older than its training

    def process_time(self) -> float:
        return self.now

    perf_counter = process_time


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return phantom_cohort(3, 3, seed=5, roi=RoiConfig(size_vox=32))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock on which judging takes a hundred budgets, and the W-net is slow."""
    clock = Clock()
    usual_judge = run.judge

    def slow_judge(*arguments: Any) -> Iterator[Any]:
        clock.now += 100 * BUDGET_S
        yield from usual_judge(*arguments)

    def step(steps: TrainingSteps, *_: Any) -> float:
        clock.now += 0.75 if "WNet" in type(steps.network).__name__ else 0.5
        return 1.0

    monkeypatch.setattr(train, "time", clock)
    monkeypatch.setattr(run, "judge", slow_judge)
    monkeypatch.setattr(TrainingSteps, "step", step)
    return clock


def contest(cohort: Cohort, budget: Budget, names: tuple[str, ...]) -> Outcome:
    return run_contest(Plan(names=names, seeds=(1, 2), budget=budget, width=4), cohort)


def test_judging_and_what_came_before_cost_no_training_time(cohort: Cohort, clock: Clock) -> None:
    outcome = contest(cohort, Budget(seconds=BUDGET_S), ("unet", "mtnognet"))
    assert clock.now > 1000.0 + 400 * BUDGET_S
    assert [entry.training.steps for entry in outcome.entries] == [20] * 4
    assert all(entry.training.counted_s == BUDGET_S for entry in outcome.entries)


@pytest.mark.usefixtures("clock")
def test_a_slow_network_takes_fewer_steps_in_the_same_time(cohort: Cohort) -> None:
    outcome = contest(cohort, Budget(seconds=BUDGET_S), ("wnet", "mtnognet"))
    steps = {entry.name: entry.training.steps for entry in outcome.entries}
    assert steps == {"wnet": 14, "mtnognet": 20}
    for entry in outcome.entries:
        assert BUDGET_S <= entry.training.counted_s <= MOST * BUDGET_S


@pytest.mark.slow
def test_on_this_machine_nobody_gets_more_than_a_tenth_above_the_budget(cohort: Cohort) -> None:
    outcome = contest(cohort, Budget(seconds=3.0), ("warpnet", "mtnognet"))
    for entry in outcome.entries:
        assert 3.0 <= entry.training.cpu_s <= MOST * 3.0, entry
        assert entry.training.steps > 10
