from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner, Result

from nognet.commands.main import app
from nognet.data.site.prepare import prepare_site
from nognet.errors import NognetError, PrivacyBudgetError
from nognet.fit.alone import evaluate_local, train_alone
from nognet.fit.model_file import load_model
from nognet.fit.predictors import network_predictor
from nognet.fit.tensors import stack_pairs
from nognet.fit.weights import network_with
from nognet.report.metrics_file import read_metrics
from tests.builders.federation import make_site, make_study, opened
from tests.builders.site_files import write_growing_site


def write_study(folder: Path, **changes: Any) -> Path:
    path = folder / "study.yaml"
    values = json.loads(make_study(folder, **changes).for_sites())
    path.write_text(yaml.safe_dump(values))
    return path


def train(site: Path, study: Path, out: Path, *more: str) -> Result:
    arguments = ["train", "--site", str(site), "--study", str(study), "--out", str(out), *more]
    return CliRunner().invoke(app, arguments)


def test_it_writes_the_best_model_the_last_and_their_figures(tmp_path: Path) -> None:
    site, study = make_site(tmp_path, "site_a"), write_study(tmp_path, rounds=3)
    result = train(site, study, tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    metrics = read_metrics(tmp_path / "out")
    assert json.loads(result.stdout) == metrics.model_dump(mode="json")
    assert (metrics.status, len(metrics.rounds)) == ("completed", 3)

    config = make_study(tmp_path, rounds=3)
    rounds = list(train_alone(config, *opened(site)))
    best = load_model(tmp_path / "out" / "model.nognet")
    last = load_model(tmp_path / "out" / "last.nognet")
    for saved, weights in ((best, rounds[-1].best.weights), (last, rounds[-1].outcome.weights)):
        assert all(torch.equal(saved.weights[name], weights[name]) for name in weights)
    assert best.provenance["round"] == rounds[-1].best.number
    assert metrics.final is not None
    assert metrics.final.round == rounds[-1].best.number
    test = evaluate_local(config, *opened(site), best.weights, split="test").figures()
    found = metrics.final.sites["site_a"].test
    assert set(found) == {"local", "copy", "isotropic"}
    assert found["local"]["dsc"].mean == test["local"]["dsc"]["mean"]


def test_it_prints_the_test_figures_beside_the_baselines(tmp_path: Path) -> None:
    site, study = make_site(tmp_path, "site_a"), write_study(tmp_path)
    result = train(site, study, tmp_path / "out")
    for words in ("Local model", "Copy of the baseline", "Isotropic growth", "2 patients", "DSC"):
        assert words in result.stdout
    assert "round 2 of 2, mean loss" in result.stderr
    assert "not a medical device" in result.stdout


def test_a_model_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    site, study, out = make_site(tmp_path, "site_a"), write_study(tmp_path), tmp_path / "out"
    assert train(site, study, out).exit_code == 0
    before = (out / "model.nognet").read_bytes()
    refused = train(site, study, out)
    assert isinstance(refused.exception, NognetError)
    assert "--force" in str(refused.exception)
    assert (out / "model.nognet").read_bytes() == before
    assert train(site, study, out, "--force").exit_code == 0


def test_ctrl_c_keeps_the_rounds_that_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nognet.fit import alone

    usual = alone.train_round

    def stopped_in_round_three(*arguments: Any, **named: Any) -> Any:
        if named["round_number"] == 3:
            raise KeyboardInterrupt
        return usual(*arguments, **named)

    site, study = make_site(tmp_path, "site_a"), write_study(tmp_path, rounds=5)
    whole = list(train_alone(make_study(tmp_path, rounds=5), *opened(site)))
    monkeypatch.setattr(alone, "train_round", stopped_in_round_three)
    result = train(site, study, tmp_path / "out")
    assert result.exit_code == 130
    assert "interrupted after 2 of 5 rounds" in result.stderr
    metrics = read_metrics(tmp_path / "out")
    assert (metrics.status, len(metrics.rounds), metrics.final) == ("interrupted", 2, None)
    last = load_model(tmp_path / "out" / "last.nognet")
    assert last.provenance["round"] == 2
    weights = whole[1].outcome.weights
    assert all(torch.equal(last.weights[name], weights[name]) for name in weights)
    assert (tmp_path / "out" / "model.nognet").is_file()


def test_a_study_with_prior_scans_trains_on_what_prepare_has_filled(tmp_path: Path) -> None:
    visits = (("2019-03-01", 4.0), ("2020-01-01", 4.6), ("2021-01-01", 5.2))
    prepared = prepare_site(write_growing_site(tmp_path, ("a", "b", "c"), visits=visits))
    days = [r.prior_days_before for r in prepared.index.records]
    assert sorted(days, key=str) == [306.0] * 3 + [None] * 6
    preparation = {"workers": 1, "registration": {"region_margin_mm": 20.0}}
    values = {"name": "here", "studies": "studies.csv", "device": "cpu", "threads": 1}
    site = tmp_path / "site.yaml"
    site.write_text(yaml.safe_dump({**values, "roi": {"size_vox": 32}, "preparation": preparation}))
    network = {"width": 4, "time_features": 2, "embedding_width": 8, "prior_scan": True}
    result = train(site, write_study(tmp_path, network=network), tmp_path / "out")
    assert result.exit_code == 0, result.output
    model = load_model(tmp_path / "out" / "model.nognet")
    cpu = torch.device("cpu")
    predictor = network_predictor(network_with(model.network, model.weights, cpu), cpu)
    [pair] = [p for p in prepared.pairs("test") if p.prior is not None]
    seen, unseen = (predictor(stack_pairs([p])) for p in (pair, replace(pair, prior=None)))
    assert not torch.equal(seen.mask, unseen.mask)


def test_under_privacy_no_loss_is_told_and_a_spent_budget_ends_it(tmp_path: Path) -> None:
    site = make_site(tmp_path, "site_a", pairs=14)
    privacy = {"noise_multiplier": 4.0, "delta": 0.01}
    private = write_study(tmp_path, rounds=1, privacy=privacy)
    result = train(site, private, tmp_path / "one")
    assert result.exit_code == 0, result.output
    assert "epsilon" in result.stderr
    assert "loss " not in result.stderr
    entry = read_metrics(tmp_path / "one").rounds[0].sites["site_a"].train
    assert entry is not None
    assert entry.loss is None
    assert entry.epsilon is not None

    limit = {**privacy, "max_epsilon": entry.epsilon * 1.2}
    result = train(site, write_study(tmp_path, rounds=50, privacy=limit), tmp_path / "many")
    assert isinstance(result.exception, PrivacyBudgetError)
    assert read_metrics(tmp_path / "many").status == "failed"
