"""Rounds when sites are late, poison what they send, or withdraw; in one process."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nognet_client.tasks import Work
from nognet_server.runs.checkpoints import (
    latest_round,
    load_checkpoint,
    load_identity,
    save_checkpoint,
)
from nognet_server.runs.folder import (
    RunFolder,
    new_run_folder,
    write_study,
)
from nognet_server.runs.successor import existing_run_folder
from nognet_server.runs.withdrawal import delete_traces, plan_withdrawal, withdraw

from nognet.errors import ConfigError, FederationError
from nognet.fit.model_file import load_model
from nognet.fit.weights import initial_weights, weight_spec
from nognet.report.metrics_file import read_metrics
from nognet.wire.flat import flat_length, pack
from tests.builders.federation import (
    at_site,
    make_site,
    make_study,
    run,
    stub_evaluate,
    stub_work,
    weights_after,
)

NAMES = ("site_a", "site_b", "site_c")


def read_token(folder: RunFolder, round_number: int) -> str:
    return load_identity(folder, round_number).run_token


def in_rounds(numbers: set[int], *, instead: Callable[..., Any]) -> Callable[..., Any]:
    def train(*arguments: Any, **named: Any) -> Any:
        function = instead if named["round_number"] in numbers else stub_work().train
        return function(*arguments, **named)

    return train


def refuses(*_: Any, **__: Any) -> Any:
    raise MemoryError


def poisons(asked: list[int]) -> Callable[..., Any]:
    def train(*arguments: Any, **named: Any) -> Any:
        asked.append(named["round_number"])
        outcome = stub_work().train(*arguments, **named)
        return dataclasses.replace(
            outcome, weights={n: w + 500.0 for n, w in outcome.weights.items()}
        )

    return train


def sites_one_hostile(folder: Path) -> list[Path]:
    """Make sites, of which site_d has no gate that would stop a long update."""
    hostile = make_site(folder, "site_d", max_update_norm=1e9)
    return [*(make_site(folder, name) for name in NAMES), hostile]


def work_with(**instead: Callable[..., Any]) -> Work:
    train: Callable[..., Any] = stub_work().train
    for site, function in instead.items():
        train = at_site(site, train, instead=function)
    return Work(train=train, evaluate=stub_evaluate)


def test_a_late_update_counts_in_the_round_in_which_it_arrives(tmp_path: Path) -> None:
    limits = {"minimum_sites": 1, "round_timeout_s": 2.5, "stragglers": "next_round"}
    study = make_study(tmp_path, rounds=2, federation=limits)
    asked: list[int] = []
    goes_on = threading.Event()

    def slow(*arguments: Any, **named: Any) -> Any:
        asked.append(named["round_number"])
        goes_on.wait(20.0)
        outcome = stub_work().train(*arguments, **named)
        return dataclasses.replace(
            outcome, weights={n: w + 1.0 for n, w in outcome.weights.items()}
        )

    def waits(*arguments: Any, **named: Any) -> Any:
        if named["round_number"] == 2:
            goes_on.set()
        return stub_work().train(*arguments, **named)

    sites = [make_site(tmp_path, name) for name in ("site_a", "site_b")]
    folder = run(study, sites, work=work_with(site_a=waits, site_b=slow))
    first, second = read_metrics(folder.path).rounds
    assert (first.sites["site_b"].status, first.sites["site_b"].reason) == ("left-out", "timeout")
    assert first.sites["site_b"].validation == {}
    assert second.sites["site_b"].status == "ok"
    assert asked == [1]
    start = pack(initial_weights(study.network, study.seed), weight_spec(study.network))
    assert np.allclose(weights_after(folder, 1, study), start + 0.125, atol=1e-6)
    expected = start + 0.125 + (0.125 + 1.125) / 2
    assert np.allclose(weights_after(folder, 2, study), expected, atol=1e-6)


def test_a_late_update_is_left_out_by_default(tmp_path: Path) -> None:
    limits = {"minimum_sites": 1, "round_timeout_s": 2.5}
    study = make_study(tmp_path, rounds=1, federation=limits)
    goes_on = threading.Event()

    def slow(*arguments: Any, **named: Any) -> Any:
        goes_on.wait(6.0)
        return stub_work().train(*arguments, **named)

    evaluated: list[tuple[str, str]] = []

    def noted(study: Any, site: Any, *arguments: Any, **named: Any) -> Any:
        evaluated.append((site.name, named["split"]))
        return stub_evaluate(study, site, *arguments, **named)

    sites = [make_site(tmp_path, name) for name in ("site_a", "site_b")]
    work = dataclasses.replace(work_with(site_b=slow), evaluate=noted)
    folder = run(study, sites, work=work)
    goes_on.set()
    metrics = read_metrics(folder.path)
    assert metrics.rounds[0].sites["site_b"].reason == "timeout"
    assert ("site_b", "validation") not in evaluated  # the round would wait for its training
    assert ("site_a", "validation") in evaluated
    assert metrics.status == "completed"


def test_a_site_that_poisons_three_rounds_is_quarantined(tmp_path: Path) -> None:
    study = make_study(tmp_path, rounds=5)
    asked: list[int] = []
    sites = sites_one_hostile(tmp_path)
    folder = run(study, sites, work=work_with(site_d=poisons(asked)))
    metrics = read_metrics(folder.path)
    reasons = [entry.sites["site_d"].reason for entry in metrics.rounds if "site_d" in entry.sites]
    assert reasons == ["update-norm"] * 3
    assert asked == [1, 2, 3]
    assert metrics.barred == {"site_d": "quarantined"}
    assert metrics.final is not None
    assert sorted(metrics.final.sites) == list(NAMES)
    start = pack(initial_weights(study.network, study.seed), weight_spec(study.network))
    assert np.allclose(weights_after(folder, 5, study), start + 5 * 0.125, atol=1e-5)


def test_a_quarantine_holds_after_a_resume(tmp_path: Path) -> None:
    limits = {"minimum_sites": 3, "quarantine_after": 1}
    study = make_study(tmp_path, rounds=3, federation=limits)
    asked: list[int] = []
    sites = sites_one_hostile(tmp_path)
    fails = in_rounds({2}, instead=refuses)
    folder = new_run_folder(study)
    write_study(folder, study)
    with pytest.raises(FederationError, match="expected 3"):
        run(study, sites, work=work_with(site_d=poisons(asked), site_b=fails), folder=folder)
    run(study, sites, work=work_with(site_d=poisons(asked)), folder=folder)
    metrics = read_metrics(folder.path)
    assert metrics.status == "completed"
    assert asked == [1]
    assert metrics.barred == {"site_d": "quarantined"}
    assert metrics.refused == {"site_d": "is quarantined in this run and is asked no more"}


def test_a_site_that_breaks_the_quorum_each_time_is_quarantined(tmp_path: Path) -> None:
    limits = {"minimum_sites": 3, "quorum": 1.0, "quarantine_after": 2}
    study = make_study(tmp_path, rounds=2, federation=limits)
    asked: list[int] = []
    sites = sites_one_hostile(tmp_path)
    work = work_with(site_d=in_rounds({2}, instead=poisons(asked)))
    folder = new_run_folder(study)
    write_study(folder, study)
    length = flat_length(weight_spec(study.network))
    for strikes in (1, 2):
        with pytest.raises(FederationError, match="round 2: 3 usable replies of 4") as failed:
            run(study, sites, work=work, folder=folder)
        assert failed.value.exit_code == 9
        state = load_checkpoint(folder, 1, length=length)
        assert (latest_round(folder), state.strikes["site_d"]) == (1, strikes)
        assert (state.round_number, len(state.history)) == (1, 1)
        if strikes == 1:
            first = state.weights.copy()
        assert np.array_equal(state.weights, first)
    assert read_metrics(folder.path).barred == {"site_d": "quarantined"}
    run(study, sites, work=work, folder=folder)
    assert read_metrics(folder.path).status == "completed"
    assert asked == [2]  # a repeated task is answered from the kept reply


def test_a_strike_that_can_not_be_kept_hides_not_why_the_round_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    study = make_study(tmp_path, rounds=1, federation={"minimum_sites": 4})

    def full(folder: RunFolder, *_: Any) -> Path:
        raise FederationError(f"{folder.path}: no space", code="checkpoint-not-written")

    monkeypatch.setattr("nognet_server.federation.save_checkpoint", full)
    work = work_with(site_d=poisons([]))
    with pytest.raises(FederationError, match="round 1: 3 usable replies of 4"):
        run(study, sites_one_hostile(tmp_path), work=work)
    assert "who was at fault is not kept" in caplog.text


def test_a_resumed_run_says_that_late_updates_are_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    limits = {"minimum_sites": 1, "stragglers": "next_round"}
    study = make_study(tmp_path, rounds=1, federation=limits)
    sites = [make_site(tmp_path, name) for name in NAMES]
    folder = run(study, sites, work=stub_work())
    assert "still awaited when the run ended" not in caplog.text
    run(study, sites, work=stub_work(), folder=folder)
    assert "updates that were still awaited when the run ended do not count" in caplog.text


def test_a_run_goes_on_without_a_site_that_withdraws(tmp_path: Path) -> None:
    study = make_study(tmp_path, rounds=4)
    sites = [make_site(tmp_path, name) for name in NAMES]
    late = in_rounds({1, 2}, instead=refuses)
    folder = run(study, sites, work=work_with(site_c=late))
    plan = plan_withdrawal(folder, "site_c")
    assert (list(plan.rounds), plan.keep_round, plan.rounds_lost) == ([3, 4], 2, 2)
    assert plan.value_kept is not None
    assert plan.value_before is not None
    assert plan.value_kept < plan.value_before
    assert "to be trained again: 2 rounds" in " ".join(plan.lines())

    target = withdraw(folder, plan)
    assert read_token(target, 2) != read_token(folder, 2)
    with pytest.raises(ConfigError, match=f"site_c has withdrawn .* --resume {target.path}"):
        existing_run_folder(folder.path)
    assert load_model(folder.model).provenance["sites"] == [*NAMES]
    run(study, sites, work=stub_work(), folder=target)
    assert load_model(target.model).provenance["sites"] == ["site_a", "site_b"]
    metrics = read_metrics(target.path)
    assert metrics.status == "completed"
    assert metrics.barred == {"site_c": "withdrawn"}
    assert [sorted(entry.sites) for entry in metrics.rounds[2:]] == [["site_a", "site_b"]] * 2
    never = tmp_path / "never"
    alone = run(
        make_study(never, rounds=4),
        [make_site(never, name) for name in ("site_a", "site_b")],
        work=stub_work(),
    )
    for number in (3, 4):
        assert np.array_equal(
            weights_after(target, number, study), weights_after(alone, number, study)
        )


def test_a_model_names_those_who_shaped_it_not_those_who_joined(tmp_path: Path) -> None:
    lenient = {"minimum_sites": 1, "quorum": 0.1}
    study = make_study(tmp_path, rounds=3, federation=lenient)
    sites = [make_site(tmp_path, name) for name in NAMES]
    silent = in_rounds({1, 2, 3}, instead=refuses)
    early = in_rounds({2, 3}, instead=refuses)
    folder = run(study, sites, work=work_with(site_b=early, site_c=silent))
    metrics = read_metrics(folder.path)
    assert sorted(metrics.sites) == [*NAMES]
    weights = [{name: part.weight for name, part in r.sites.items()} for r in metrics.rounds]
    assert weights[0] == pytest.approx({"site_a": 0.5, "site_b": 0.5, "site_c": 0.0})
    assert weights[2] == {"site_a": 1.0, "site_b": 0.0, "site_c": 0.0}
    provenance = load_model(folder.model).provenance
    # round 1's update of site_b is in the weights of every later round
    assert (provenance["round"], provenance["sites"]) == (3, ["site_a", "site_b"])


def test_a_withdrawal_finds_the_first_trace_where_its_checkpoint_is_gone(tmp_path: Path) -> None:
    study = make_study(tmp_path, rounds=3)
    sites = [make_site(tmp_path, name) for name in NAMES]
    folder = run(study, sites, work=stub_work())
    folder.checkpoint(1).unlink()
    plan = plan_withdrawal(folder, "site_c")
    assert list(plan.rounds) == [2, 3]  # round 1's entry went with its checkpoint
    assert plan.keep_round == 0
    assert "to be trained again: 3 rounds" in " ".join(plan.lines())
    with_parent = dataclasses.replace(
        load_checkpoint(folder, 3, length=flat_length(weight_spec(study.network))),
        lineage={"site_c": 0},
    )
    save_checkpoint(folder, load_identity(folder, 3), with_parent)
    with pytest.raises(FederationError, match="site_c shaped the weights that this run began from"):
        plan_withdrawal(folder, "site_c")


def test_the_weights_that_a_withdrawn_site_shaped_can_be_deleted(tmp_path: Path) -> None:
    study = make_study(tmp_path, rounds=3)
    sites = [make_site(tmp_path, name) for name in NAMES]
    folder = run(study, sites, work=work_with(site_c=in_rounds({1}, instead=refuses)))
    plan = plan_withdrawal(folder, "site_c")
    withdraw(folder, plan)
    gone = delete_traces(folder, plan)
    assert sorted(path.name for path in gone) == [
        "model.nognet",
        "round_0002.nognet",
        "round_0003.nognet",
    ]
    assert [p.name for p in sorted(folder.checkpoints.iterdir())] == [
        "round_0000.nognet",
        "round_0001.nognet",
    ]
    with pytest.raises(ConfigError, match="exists already"):
        withdraw(folder, plan)


def test_a_site_that_counted_in_no_round_withdraws_at_no_cost(tmp_path: Path) -> None:
    study = make_study(tmp_path, rounds=2)
    sites = [make_site(tmp_path, name) for name in NAMES]
    folder = run(study, sites, work=work_with(site_c=refuses))
    plan = plan_withdrawal(folder, "site_c")
    assert (plan.rounds, plan.rounds_lost) == ({}, 0)
    assert delete_traces(folder, plan) == []


def test_only_a_site_of_the_run_can_withdraw_and_only_once(tmp_path: Path) -> None:
    study = make_study(tmp_path, rounds=1)
    folder = run(study, [make_site(tmp_path, name) for name in NAMES], work=stub_work())
    with pytest.raises(ConfigError, match="no site 'site_x' took part; the run knows site_a"):
        plan_withdrawal(folder, "site_x")
    target = withdraw(folder, plan_withdrawal(folder, "site_b"))
    with pytest.raises(ConfigError, match="has withdrawn"):
        plan_withdrawal(target, "site_b")
