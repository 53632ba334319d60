from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from nognet.config import StudyConfig
from nognet.errors import ConfigError, TrainingError
from nognet.fit.alone import LOCAL, LocalRound, evaluate_local, train_alone
from nognet.fit.evaluate import evaluate_split
from nognet.fit.train import train_round
from nognet.fit.weights import Weights, initial_weights
from tests.builders.federation import make_site, make_study, opened


def rounds_of(study: StudyConfig, site: Path, **named: Any) -> list[LocalRound]:
    return list(train_alone(study, *opened(site), **named))


def equal(first: Weights, second: Weights) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_it_is_the_rounds_of_the_study_one_after_the_other(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), make_site(tmp_path, "site_a")
    plain = initial_weights(study.network, study.seed)
    for done in rounds_of(study, site):
        plain = train_round(study, *opened(site), plain, round_number=done.number).weights
        assert equal(done.outcome.weights, plain)


def test_it_has_no_pull_to_weights_it_does_not_share(tmp_path: Path) -> None:
    site = make_site(tmp_path, "site_a")
    pulled = make_study(tmp_path, strategy={"name": "fedprox", "proximal_mu": 100.0})
    plain = make_study(tmp_path)
    proximal = train_round(
        pulled, *opened(site), initial_weights(plain.network, plain.seed), round_number=1
    )
    alone = rounds_of(pulled, site)
    assert equal(alone[-1].outcome.weights, rounds_of(plain, site)[-1].outcome.weights)
    assert not equal(alone[0].outcome.weights, proximal.weights)


@pytest.mark.parametrize(("metric", "wanted"), [("dsc", max), ("volume_error", min)])
def test_the_best_round_is_the_best_by_the_selection_metric(
    tmp_path: Path, metric: str, wanted: Any
) -> None:
    study = make_study(tmp_path, rounds=4, selection={"metric": metric})
    site = make_site(tmp_path, "site_a")
    rounds = rounds_of(study, site)
    best_value = wanted(done.value for done in rounds)
    first = next(done for done in rounds if done.value == best_value)
    last = rounds[-1].best
    assert (last.number, last.value) == (first.number, best_value)
    assert equal(last.weights, first.outcome.weights)
    found = evaluate_split(study, *opened(site), last.weights, split="validation").figures()
    assert found["federated"][metric]["mean"] == best_value


def test_without_validation_pairs_the_last_round_is_kept(tmp_path: Path) -> None:
    site = make_site(tmp_path, "site_a", pairs=3)
    rounds = rounds_of(make_study(tmp_path), site)
    assert [done.value for done in rounds] == [None, None]
    assert [done.is_best for done in rounds] == [False, False]
    assert rounds[-1].best.number == 2
    assert equal(rounds[-1].best.weights, rounds[-1].outcome.weights)


def test_the_model_is_called_local_and_baselines_keep_their_names(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), make_site(tmp_path, "site_a")
    weights = initial_weights(study.network, study.seed)
    found = evaluate_local(study, *opened(site), weights, split="test").predictors
    usual = evaluate_split(study, *opened(site), weights, split="test").predictors
    assert set(found) == {LOCAL, "copy", "isotropic"}
    assert found[LOCAL] == usual["federated"]
    assert found["copy"] == usual["copy"]


def test_progress_counts_rounds_and_steps(tmp_path: Path) -> None:
    seen: list[tuple[int, int, int]] = []
    study, site = make_study(tmp_path), make_site(tmp_path, "site_a")
    rounds_of(study, site, progress=lambda *told: seen.append(told[:3]))
    assert seen == [(1, 1, 2), (1, 2, 2), (2, 1, 2), (2, 2, 2)]


def test_pairs_of_another_roi_are_refused(tmp_path: Path) -> None:
    study = make_study(tmp_path, roi={"size_vox": 48})
    with pytest.raises(ConfigError, match="the study has roi") as caught:
        rounds_of(study, make_site(tmp_path, "site_a"))
    assert caught.value.code == "roi-differs"


def test_a_site_without_training_pairs_is_refused(tmp_path: Path) -> None:
    site = make_site(tmp_path, "site_a", pairs=0)
    with pytest.raises(TrainingError, match="no training pairs"):
        rounds_of(make_study(tmp_path), site)


def _judged_by(monkeypatch: pytest.MonkeyPatch, values: list[float | None]) -> None:
    """Let the rounds have these selection values instead of measured ones."""

    class Given:
        def __init__(self, value: float | None) -> None:
            self.value = value

        def figures(self) -> dict[str, Any]:
            return {LOCAL: {"dsc": {"mean": self.value}}}

    left = iter(values)
    monkeypatch.setattr("nognet.fit.alone.evaluate_local", lambda *_, **__: Given(next(left)))


def _patient(tmp_path: Path, rounds: int, patience: int | None) -> StudyConfig:
    training = {"steps_per_round": 1, "batch_size": 2, "warmup_steps": 0}
    if patience is not None:
        training["early_stop_rounds"] = patience
    return make_study(tmp_path, rounds=rounds, training=training)


@pytest.mark.parametrize(
    ("values", "patience", "rounds", "best"),
    [
        ([0.5, 0.6, 0.6, 0.5, 0.9], 2, 4, 2),
        ([0.5, 0.4, 0.6, 0.5, 0.9], 2, 5, 5),
        ([0.5, 0.4, 0.3, 0.2, 0.1], 1, 2, 1),
        ([0.5, 0.4, 0.3, 0.2, 0.1], None, 5, 1),
        ([None, None, None, None, None], 1, 5, 5),
    ],
)
def test_it_stops_when_so_many_rounds_brought_nothing_better(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    values: list[float | None],
    patience: int | None,
    rounds: int,
    best: int,
) -> None:
    _judged_by(monkeypatch, values)
    done = rounds_of(_patient(tmp_path, 5, patience), make_site(tmp_path, "site_a"))
    assert len(done) == rounds
    assert done[-1].best.number == best


def test_a_metric_that_does_not_exist_is_refused_with_the_study(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"selection\.metric"):
        make_study(tmp_path, selection={"metric": "dice"})


def test_the_average_is_what_is_evaluated_and_kept(tmp_path: Path) -> None:
    training = {"steps_per_round": 2, "batch_size": 2, "warmup_steps": 0, "ema_decay": 0.5}
    study, site = make_study(tmp_path, training=training), make_site(tmp_path, "site_a")
    for done in rounds_of(study, site):
        found = evaluate_local(study, *opened(site), done.outcome.weights, split="validation")
        assert found == done.validation
