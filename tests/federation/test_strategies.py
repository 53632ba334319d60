"""Strategies that ask more of a site than weights, through whole simulations with real training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nognet_client.tasks import Work
from nognet_server.runs.checkpoints import load_checkpoint
from nognet_server.runs.folder import new_run_folder, write_study
from nognet_server.strategies.scaffold import corrections

from nognet.config import STRATEGY_NAMES, StudyConfig
from nognet.errors import FederationError, TrainingError
from nognet.fit.train import train_round
from nognet.fit.weights import weight_spec
from nognet.report.metrics_file import read_metrics
from nognet.wire.flat import flat_length
from tests.builders.federation import (
    make_site,
    make_study,
    run,
    stub_evaluate,
    stub_work,
    weights_after,
)

SITES = ("site_a", "site_b")
PLAIN = sorted(set(STRATEGY_NAMES) - {"scaffold", "qfedavg"})


def length_of(study: StudyConfig) -> int:
    return flat_length(weight_spec(study.network))


def broken_in_round_two(*arguments: Any, **named: Any) -> Any:
    if named["round_number"] == 2:
        raise TrainingError("out of memory")
    return train_round(*arguments, **named)


@pytest.mark.parametrize("name", ["scaffold", pytest.param("qfedavg", marks=pytest.mark.slow)])
def test_a_run_and_a_resumed_one_have_the_same_bits(tmp_path: Path, name: str) -> None:
    study = make_study(tmp_path, rounds=3, strategy=name)
    sites = [make_site(tmp_path, site) for site in SITES]
    work = Work(train=train_round, evaluate=stub_evaluate)
    whole = run(study, sites, work=work)
    broken = new_run_folder(study)
    write_study(broken, study)
    with pytest.raises(FederationError):
        run(study, sites, work=Work(broken_in_round_two, stub_evaluate), folder=broken)
    for site in SITES:  # a site's own state is lost too
        for kept in (tmp_path / site / "state").rglob("*.reply"):
            kept.unlink()
    run(study, sites, work=work, folder=broken)
    for number in (1, 2, 3):
        one, two = weights_after(whole, number, study), weights_after(broken, number, study)
        assert np.array_equal(one, two)
    assert read_metrics(broken.path).status == "completed"


def test_scaffold_departs_from_fedavg_once_there_are_control_variates(tmp_path: Path) -> None:
    ended = {}
    for name in ("scaffold", "fedavg"):
        study = make_study(tmp_path / name, rounds=2, strategy=name)
        sites = [make_site(tmp_path / name, site) for site in SITES]
        ended[name] = run(study, sites, work=Work(train_round, stub_evaluate)), study
    first, second = (
        [weights_after(folder, number, study) for folder, study in ended.values()]
        for number in (1, 2)
    )
    assert np.array_equal(*first)
    assert not np.array_equal(*second)
    folder, study = ended["scaffold"]
    kept = load_checkpoint(folder, 2, length=length_of(study)).strategy
    assert sorted(kept) == [f"{what}.{site}" for what in ("control", "count") for site in SITES]
    assert all(part.any() for part in corrections(kept).values())


def test_a_private_site_is_left_out_by_name_and_the_others_go_on(tmp_path: Path) -> None:
    sites = [make_site(tmp_path, site) for site in SITES]
    privacy = "privacy: {noise_multiplier: 1.0, delta: 0.001}\n"
    sites[0].write_text(sites[0].read_text() + privacy)
    study = make_study(tmp_path, rounds=1, strategy="scaffold")
    folder = run(study, sites, work=Work(train_round, stub_evaluate))
    entry = read_metrics(folder.path).rounds[0].sites
    assert entry["site_a"].reason == "ConfigError:strategy-private"
    assert entry["site_b"].status == "ok"


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAIN)
def test_every_other_strategy_plays_a_whole_run_of_seven_sites(tmp_path: Path, name: str) -> None:
    sites = [make_site(tmp_path, f"site_{letter}") for letter in "abcdefg"]
    study = make_study(tmp_path, strategy=name, federation={"minimum_sites": 7})
    folder = run(study, sites, work=stub_work())
    metrics = read_metrics(folder.path)
    assert metrics.status == "completed"
    weights = [entry.weight for entry in metrics.rounds[-1].sites.values()]
    assert weights == pytest.approx([1 / 7] * 7)
    before, after = (weights_after(folder, number, study) for number in (0, 2))
    assert not np.array_equal(before, after)


def test_a_round_with_too_few_replies_for_the_rule_ends_the_run_and_keeps_it(
    tmp_path: Path,
) -> None:
    sites = [make_site(tmp_path, f"site_{letter}") for letter in "abcde"]
    study = make_study(tmp_path, strategy="krum", federation={"minimum_sites": 5})
    folder = new_run_folder(study)
    write_study(folder, study)

    def train(study: StudyConfig, config: Any, *arguments: Any, **named: Any) -> Any:
        if config.name == "site_c":
            raise TrainingError("out of memory")
        return stub_work().train(study, config, *arguments, **named)

    with pytest.raises(FederationError, match="expected 5"):
        run(study, sites, work=Work(train, stub_evaluate), folder=folder)
    run(study, sites, work=stub_work(), folder=folder)
    assert read_metrics(folder.path).status == "completed"
