from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from nognet.config import RoiConfig
from nognet.errors import ConfigError, SiteDataError, TrainingError
from nognet.fit.contest.cohort import Cohort, phantom_cohort
from nognet.fit.contest.contestants import ABLATIONS, contestant, network_names
from nognet.fit.contest.run import Outcome, Plan, run_contest
from nognet.fit.contest.table import table
from nognet.fit.contest.train import Budget
from nognet.randomness import torch_generator

TINY = Plan(names=("mtnognet", "warpnet"), seeds=(1,), budget=Budget(steps=2), width=4)


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return phantom_cohort(3, 3, seed=5, roi=RoiConfig(size_vox=32))


@pytest.fixture(scope="module")
def alone(cohort: Cohort) -> Outcome:
    """The contest by one worker."""
    return run_contest(TINY, cohort)


def test_no_patient_is_trained_and_tested_on(cohort: Cohort) -> None:
    assert not {p.patient_id for p in cohort.train} & {p.patient_id for p in cohort.test}
    described = cohort.described()
    assert described["test"]["pairs"] == len(cohort.test) > 0


def test_steps_make_the_outcome_repeatable_also_by_workers(cohort: Cohort, alone: Outcome) -> None:
    side_by_side = run_contest(dataclasses.replace(TINY, workers=2), cohort)
    figures = [{(r.predictor, r.pair_id): r.metrics["psnr"] for r in o.rows}
               for o in (alone, side_by_side)]  # fmt: skip
    assert figures[0] == figures[1]
    assert [e.name for e in alone.entries] == ["mtnognet", "warpnet"]
    assert all(e.training.steps == 2 for e in alone.entries)


def test_every_predictor_is_judged_on_every_pair(cohort: Cohort, alone: Outcome) -> None:
    rows = table(alone)
    assert [row["predictor"] for row in rows] == [
        "copy", "isotropic", "oracle", "mtnognet", "warpnet",
    ]  # fmt: skip
    assert len(alone.rows) == 5 * len(cohort.test)
    for row in rows:
        own = [r.metrics["dsc"] for r in alone.rows if r.predictor == row["predictor"]]
        assert row["columns"]["DSC"]["mean"] == pytest.approx(np.mean(own))
    oracle, copied = rows[2], rows[0]
    assert oracle["columns"]["DSC"]["mean"] >= copied["columns"]["DSC"]["mean"]


@pytest.mark.parametrize("name", [*network_names(), *ABLATIONS])
def test_every_name_builds_a_network_from_its_generator_alone(name: str) -> None:
    before = torch.random.get_rng_state()
    networks = [contestant(name, 8).build(torch_generator(3, "x")) for _ in range(2)]
    assert torch.equal(torch.random.get_rng_state(), before)
    for one, two in zip(*(n.state_dict().values() for n in networks), strict=True):
        assert torch.equal(one, two)


def test_an_unknown_network_is_told_before_anything_is_trained(cohort: Cohort) -> None:
    with pytest.raises(ConfigError, match="no network 'resnet'"):
        run_contest(dataclasses.replace(TINY, names=("mtnognet", "resnet")), cohort)


def test_a_pair_that_is_not_finite_is_named(cohort: Cohort) -> None:
    bad = dataclasses.replace(cohort.train[0], baseline=cohort.train[0].baseline * np.nan)
    broken = dataclasses.replace(cohort, train=(bad,))
    with pytest.raises((TrainingError, SiteDataError), match=bad.pair_id):
        run_contest(TINY, broken)


def test_a_budget_is_seconds_or_steps() -> None:
    with pytest.raises(ValueError, match="one of the two"):
        Budget()
    with pytest.raises(ValueError, match="one of the two"):
        Budget(seconds=1.0, steps=1)
    assert Budget(seconds=10.0).share(5.0, 99) == 0.5
    assert Budget(steps=10).share(5.0, 10) == 1.0
