"""Personal models in closed form: no steps, no pull, an infinite pull."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nognet.config import StudyConfig
from nognet.fit.alone import train_alone
from nognet.fit.parts import local_names
from nognet.fit.personal import ditto_round, fine_tuned
from nognet.fit.pull import DittoPull, FedProxPull, pull_of_round
from nognet.fit.weights import Weights, initial_weights, network_with
from tests.builders.federation import make_site, make_study, opened

PRIVACY = {"noise_multiplier": 50.0, "delta": 1e-3}


def same(one: Weights, two: Weights) -> bool:
    return all(torch.equal(one[name], two[name]) for name in two)


def gap(one: Weights, two: Weights) -> float:
    return max(float((one[name] - two[name]).abs().max()) for name in two)


def first(study: StudyConfig, shift: float = 0.0) -> Weights:
    weights = initial_weights(study.network, study.seed)
    return {name: tensor + shift for name, tensor in weights.items()}


def ditto_rounds(folder: Path, rounds: int, strength: float, **changes: Any) -> Weights:
    study = make_study(folder, personalisation={"ditto_lambda": strength}, **changes)
    config, prepared = opened(make_site(folder, "site_a"))
    personal = first(study)
    for number in range(1, rounds + 1):
        towards = first(study, 0.01 * number)
        personal = ditto_round(
            study, config, prepared, personal, towards=towards, round_number=number
        )
    return personal


def test_ditto_without_a_pull_is_training_alone(tmp_path: Path) -> None:
    personal = ditto_rounds(tmp_path / "ditto", 2, 0.0, strategy="scaffold")
    study = make_study(tmp_path)
    config, prepared = opened(make_site(tmp_path, "site_a"))
    *_, last = train_alone(study, config, prepared)
    assert same(personal, last.outcome.weights)


def test_ditto_with_a_large_pull_is_the_global_model(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    gaps = {
        strength: gap(ditto_rounds(tmp_path / f"{strength:g}", 1, strength), first(study, 0.01))
        for strength in (0.0, 500.0, 1e6)
    }
    assert gaps[1e6] < 1e-5 < gaps[500.0] < gaps[0.0]


def test_fine_tuning_by_no_step_is_the_model_itself(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    config, prepared = opened(make_site(tmp_path, "site_a"))
    assert same(fine_tuned(study, config, prepared, first(study)), first(study))


def test_fine_tuning_takes_its_steps_the_same_each_time_and_knows_no_noise(tmp_path: Path) -> None:
    config, prepared = opened(make_site(tmp_path, "site_a"))
    told: list[int] = []
    tuned = []
    for privacy in (None, PRIVACY):
        study = make_study(tmp_path, personalisation={"fine_tune_steps": 3}, privacy=privacy)
        found = fine_tuned(
            study, config, prepared, first(study), progress=lambda step, *_: told.append(step)
        )
        tuned.append(found)
    assert told == [1, 2, 3] * 2
    assert same(*tuned)
    assert gap(tuned[0], first(study)) > 0
    assert not (config.state / "privacy").exists()


def test_fedprox_pulls_only_what_is_shared(tmp_path: Path) -> None:
    strategy = {"name": "fedprox", "proximal_mu": 0.5}
    study = make_study(tmp_path, strategy=strategy, personalisation={"local": "norms+head"})
    network = network_with(study.network, first(study), torch.device("cpu"))
    pull = pull_of_round(study, network, None)
    assert isinstance(pull, FedProxPull)
    named, local = dict(network.named_parameters()), local_names(study)
    pulled = {id(parameter) for parameter in pull.parameters}
    assert pulled == {id(parameter) for name, parameter in named.items() if name not in local}


@pytest.mark.parametrize(("strength", "left"), [(0.0, 1.0), (4.0, 0.5), (1e9, 0.0)])
def test_dittos_pull_is_the_proximal_step(strength: float, left: float) -> None:
    weight = nn.Parameter(torch.full((3,), 2.0))
    pull = DittoPull([weight], [torch.ones(3)], strength)
    pull.before_step()
    pull.after_step(0.25)
    torch.testing.assert_close(weight.detach(), torch.full((3,), 1.0 + left))


def test_fedprox_leaves_parameters_without_a_gradient_alone() -> None:
    weight, frozen = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    pull = FedProxPull([weight, frozen], 0.5)
    with torch.no_grad():
        weight.add_(1.0)
    weight.grad = torch.ones(2)
    pull.before_step()
    assert frozen.grad is None
    assert math.isclose(float(weight.grad[0]), 1.5)
