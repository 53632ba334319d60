"""Whole federations in one process, with the apps of a deployed one."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nognet_client.tasks import Work
from nognet_server.runs.checkpoints import latest_round, load_weights
from nognet_server.runs.folder import RunFolder, new_run_folder, read_outcome, write_study

from nognet.errors import ConfigError, FederationError, TrainingError
from nognet.fit.evaluate import evaluate_split
from nognet.fit.model_file import load_model
from nognet.fit.train import train_round
from nognet.fit.weights import initial_weights, weight_spec
from nognet.metrics.statistics import merge_all
from nognet.report.metrics_file import read_metrics
from nognet.wire.flat import flat_length, pack
from tests.builders.federation import (
    at_site,
    make_site,
    make_study,
    opened,
    run,
    stub_evaluate,
    stub_work,
)

PATIENT_TEXT = "Miller_Anna_1950-03-01"
FEDADAM = {"name": "fedadam", "server_learning_rate": 0.01}


def final_weights(folder: RunFolder, round_number: int, study: Any) -> np.ndarray:
    length = flat_length(weight_spec(study.network))
    return load_weights(folder, round_number, length=length)


def with_train(train: Callable[..., Any]) -> Work:
    return Work(train=train, evaluate=stub_evaluate)


def altered(**changes: Any) -> Callable[..., Any]:
    """Make training whose outcome is the stub's with some fields changed."""

    def train(*arguments: Any, **named: Any) -> Any:
        outcome = stub_work().train(*arguments, **named)
        return dataclasses.replace(outcome, **changes)

    return train


def poisoned(value: float) -> Callable[..., Any]:
    """Make training whose weights hold one bad number."""

    def train(*arguments: Any, **named: Any) -> Any:
        outcome = stub_work().train(*arguments, **named)
        weights = {name: tensor.clone() for name, tensor in outcome.weights.items()}
        next(iter(weights.values())).view(-1)[0] = value
        return dataclasses.replace(outcome, weights=weights)

    return train


def raising(error: Exception) -> Callable[..., Any]:
    def fails(*_: Any, **__: Any) -> Any:
        raise error

    return fails


def test_a_one_site_federation_equals_plain_training_bit_for_bit(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), make_site(tmp_path, "site_a")
    config, prepared = opened(site)
    plain = initial_weights(study.network, study.seed)
    for number in (1, 2):
        plain = train_round(study, config, prepared, plain, round_number=number).weights
    folder = run(study, [site])
    assert np.array_equal(final_weights(folder, 2, study), pack(plain, weight_spec(study.network)))


def test_sites_train_apart_and_their_figures_are_pooled_in_whatever_order(tmp_path: Path) -> None:
    study = make_study(tmp_path, rounds=1)
    sites = [make_site(tmp_path, name) for name in ("site_b", "site_a")]
    folder = run(study, sites)
    start = initial_weights(study.network, study.seed)
    trained = [train_round(study, *opened(s), start, round_number=1) for s in sites]
    spec = weight_spec(study.network)
    mean = np.mean([pack(t.weights, spec).astype(np.float64) for t in trained], axis=0)
    weights = final_weights(folder, 1, study)
    assert np.allclose(weights, mean, rtol=0, atol=1e-6)

    model = load_model(folder.model)
    assert np.array_equal(pack(model.weights, spec), weights)
    assert model.provenance["round"] == 1
    tests = [evaluate_split(study, *opened(s), model.weights, split="test") for s in sites]
    metrics = read_metrics(folder.path)
    assert metrics.status == "completed"
    assert metrics.final is not None
    assert metrics.final.pooled is not None
    pooled = merge_all(tests).figures()["federated"]["dsc"]["mean"]
    assert metrics.final.pooled.test["federated"]["dsc"].mean == pytest.approx(pooled, rel=1e-9)
    assert set(metrics.final.sites["site_a"].test) == {"federated", "copy", "isotropic"}

    other = run(study, sites[::-1], workers=1)
    assert np.array_equal(final_weights(other, 1, study), weights)


@pytest.mark.parametrize(
    "strategy", [FEDADAM, pytest.param({"name": "fedavg"}, marks=pytest.mark.slow)]
)
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(
    tmp_path: Path, strategy: dict[str, Any]
) -> None:
    study = make_study(tmp_path, rounds=3, strategy=strategy)
    sites = [make_site(tmp_path, name) for name in ("site_a", "site_b")]
    whole = run(study, sites, work=stub_work(step=0.3))

    def train(*arguments: Any, **named: Any) -> Any:
        if named["round_number"] == 2:
            raise TrainingError("out of memory")
        return stub_work(step=0.3).train(*arguments, **named)

    broken = new_run_folder(study)
    write_study(broken, study)
    with pytest.raises(FederationError):
        run(study, sites, work=with_train(train), folder=broken)
    assert latest_round(broken) == 1
    assert read_metrics(broken.path).status == "failed"

    run(study, sites, work=stub_work(step=0.3), folder=broken)
    for number in (1, 2, 3):
        assert np.array_equal(
            final_weights(whole, number, study), final_weights(broken, number, study)
        )
    one, two = read_metrics(whole.path), read_metrics(broken.path)
    assert [entry.round for entry in two.rounds] == [1, 2, 3]
    assert one.final == two.final
    assert [e.selection for e in one.rounds] == [e.selection for e in two.rounds]


def test_a_run_is_not_resumed_with_another_architecture(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), make_site(tmp_path, "site_a")
    folder = run(study, [site], work=stub_work())
    wider = make_study(tmp_path, network={**study.network.model_dump(), "width": 8})
    with pytest.raises(ConfigError, match=r"network\.width: 4 in the run, 8 now"):
        run(wider, [site], work=stub_work(), folder=folder)
    assert read_metrics(folder.path).status == "completed"


BAD_SITES: dict[str, tuple[Callable[..., Any], str]] = {
    "site_b": (poisoned(float("nan")), "WireError:non-finite"),
    "site_c": (altered(n_pairs=0, n_patients=0), "EgressError:numbers"),
    "site_d": (raising(ValueError(PATIENT_TEXT)), "ValueError:unexpected"),
    "site_e": (raising(TrainingError(PATIENT_TEXT, code="no-pairs")), "TrainingError:no-pairs"),
}


def test_bad_sites_are_left_out_by_name_and_the_run_goes_on(tmp_path: Path) -> None:
    study = make_study(tmp_path, federation={"minimum_sites": 1, "quorum": 0.3})
    sites = [make_site(tmp_path, name) for name in ("site_a", *BAD_SITES, "site_f")]
    train = stub_work().train
    for name, (bad, _) in BAD_SITES.items():
        train = at_site(name, train, instead=bad)
    folder = run(study, sites, work=with_train(train))
    metrics = read_metrics(folder.path)
    assert metrics.status == "completed"
    for entry in metrics.rounds:
        left_out = {n: e.reason for n, e in entry.sites.items() if e.status == "left-out"}
        assert left_out == {name: reason for name, (_, reason) in BAD_SITES.items()}
        weights = {name: e.weight for name, e in entry.sites.items() if e.weight}
        assert weights == {"site_a": 0.5, "site_f": 0.5}
    written = b"".join(path.read_bytes() for path in folder.path.rglob("*") if path.is_file())
    assert PATIENT_TEXT.encode() not in written
    start = pack(initial_weights(study.network, study.seed), weight_spec(study.network))
    assert np.allclose(final_weights(folder, 2, study), start + 2 * 0.125, atol=1e-6)


def test_a_site_that_fails_once_is_back_in_the_next_round(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    sites = [make_site(tmp_path, name) for name in ("site_a", "site_b")]

    def once(*arguments: Any, **named: Any) -> Any:
        if named["round_number"] == 1:
            raise MemoryError
        return stub_work().train(*arguments, **named)

    work = with_train(at_site("site_b", stub_work().train, instead=once))
    rounds = read_metrics(run(study, sites, work=work).path).rounds
    assert [entry.sites["site_b"].status for entry in rounds] == ["left-out", "ok"]
    assert rounds[0].sites["site_b"].reason == "MemoryError:unexpected"


def test_too_few_usable_replies_end_the_run_and_keep_its_state(tmp_path: Path) -> None:
    study = make_study(tmp_path, federation={"minimum_sites": 2})
    sites = [make_site(tmp_path, name) for name in ("site_a", "site_b")]
    folder = new_run_folder(study)
    write_study(folder, study)
    work = with_train(at_site("site_b", stub_work().train, instead=raising(MemoryError())))
    with pytest.raises(FederationError, match=r"site_b \(MemoryError:unexpected\)"):
        run(study, sites, work=work, folder=folder)
    outcome = read_outcome(folder)
    assert outcome is not None
    assert outcome.exit_code == FederationError.exit_code
    assert "--resume" in outcome.message
    assert latest_round(folder) == 0
    assert read_metrics(folder.path).status == "failed"


def test_zero_usable_evaluations_end_the_run_and_keep_its_state(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), make_site(tmp_path, "site_a")
    folder = new_run_folder(study)
    write_study(folder, study)
    work = Work(train=stub_work().train, evaluate=raising(ValueError(PATIENT_TEXT)))
    with pytest.raises(FederationError, match="no site gave usable validation"):
        run(study, [site], work=work, folder=folder)
    assert latest_round(folder) == 0


def test_figures_on_disk_are_whole_after_every_round(tmp_path: Path) -> None:
    study = make_study(tmp_path, rounds=3)
    site = make_site(tmp_path, "site_a")
    folder = new_run_folder(study)
    write_study(folder, study)
    seen: list[tuple[int, str, int]] = []

    def watching(*arguments: Any, **named: Any) -> Any:
        metrics = read_metrics(folder.path)  # checks the schema
        newest = latest_round(folder)
        seen.append((len(metrics.rounds), metrics.status, -1 if newest is None else newest))
        return stub_work().train(*arguments, **named)

    run(study, [site], work=with_train(watching), folder=folder)
    assert seen == [(0, "running", 0), (1, "running", 1), (2, "running", 2)]


def test_a_resume_in_the_middle_of_a_round_does_not_train_twice(tmp_path: Path) -> None:
    study = make_study(tmp_path, rounds=2)
    site = make_site(tmp_path, "site_a")
    trained: list[int] = []

    def counting(*arguments: Any, **named: Any) -> Any:
        trained.append(named["round_number"])
        return stub_work().train(*arguments, **named)

    def failing(study: Any, config: Any, prepared: Any, weights: Any, *, split: Any) -> Any:
        if len(trained) == 2:
            raise TrainingError("the coordinator's machine went down")
        return stub_evaluate(study, config, prepared, weights, split=split)

    folder = new_run_folder(study)
    write_study(folder, study)
    with pytest.raises(FederationError):
        run(study, [site], work=Work(train=counting, evaluate=failing), folder=folder)
    run(study, [site], work=with_train(counting), folder=folder)
    assert trained == [1, 2]
    assert read_metrics(folder.path).status == "completed"


def test_a_site_sees_its_own_copy_of_the_weights(tmp_path: Path) -> None:
    study = make_study(tmp_path, rounds=1)
    sites = [make_site(tmp_path, name) for name in ("site_a", "site_b")]
    start = initial_weights(study.network, study.seed)
    lock, equal = threading.Lock(), []

    def spoiling(study: Any, config: Any, prepared: Any, weights: Any, **named: Any) -> Any:
        with lock:
            equal.append(all(torch.equal(weights[name], start[name]) for name in start))
            outcome = stub_work().train(study, config, prepared, weights, **named)
            for tensor in weights.values():
                tensor.fill_(7.0)
        return outcome

    run(study, sites, work=with_train(spoiling))
    assert equal == [True, True]


def test_bytes_and_seconds_of_every_site_are_measured(tmp_path: Path) -> None:
    study, site = make_study(tmp_path, rounds=1), make_site(tmp_path, "site_a")
    folder = run(study, [site], work=stub_work())
    train = read_metrics(folder.path).rounds[0].sites["site_a"].train
    assert train is not None
    payload = 4 * flat_length(weight_spec(study.network))
    assert train.bytes_down is not None
    assert train.bytes_up is not None
    assert payload < train.bytes_down < payload + 5000
    assert payload < train.bytes_up < payload + 1000
    assert train.round_trip_seconds is not None
    assert train.round_trip_seconds > 0
