import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from nognet.errors import WireError
from nognet.metrics.definitions import METRIC_NAMES
from nognet.report.metrics_file import (
    METRICS_FILE_NAME,
    append_round,
    end_run,
    read_metrics,
    start_metrics,
    write_metrics,
)
from nognet.report.metrics_schema import Figure, RunMetrics
from nognet.types import STRATA
from tests.builders.run_metrics import build_round, build_run


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    metrics = build_run(epsilon=True)
    write_metrics(tmp_path / METRICS_FILE_NAME, metrics)
    assert read_metrics(tmp_path) == metrics
    assert read_metrics(tmp_path / METRICS_FILE_NAME) == metrics


def test_programs_find_the_agreed_structure(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.json", build_run(epsilon=True))
    values = json.loads((tmp_path / "metrics.json").read_text())
    assert list(values) == [
        "schema_version",
        "nognet_version",
        "study",
        "run",
        "contract_hash",
        "began_with",
        "status",
        "started",
        "ended",
        "seconds",
        "definitions",
        "sites",
        "refused",
        "barred",
        "rounds",
        "final",
        "central_privacy",
    ]
    assert values["schema_version"] == 1
    assert tuple(values["definitions"]) == METRIC_NAMES
    assert set(values["sites"]["alpha"]) == {"counts", "joined", "min_patients"}
    assert values["sites"]["alpha"]["counts"]["test"] == {
        "patients": 12,
        "pairs": 24,
        "strata": {"growing": 10, "stable": 12, "shrinking": 2},
    }
    first, second = values["rounds"][0], values["rounds"][1]
    assert set(first) == {"round", "seconds", "sites", "validation", "selection", "secure_sum"}
    assert set(first["selection"]) == {"metric", "value", "is_best"}
    part = first["sites"]["alpha"]
    assert set(part) == {
        *("status", "reason", "weight", "train", "validation"),
        *("evaluate_seconds", "evaluate_bytes_down", "evaluate_bytes_up"),
    }
    assert set(part["train"]) == {
        *("loss", "seconds", "round_trip_seconds", "steps", "n_pairs", "n_patients"),
        *("epsilon", "delta", "bytes_down", "bytes_up", "update_norm"),
    }
    left_out = second["sites"]["gamma"]
    assert (left_out["status"], left_out["reason"]) == ("left-out", "TrainingError:not-finite")
    assert left_out["train"] is None
    assert set(values["final"]) == {
        *("round", "sites", "left_out", "pooled"),
        *("cross_site", "cross_site_absent"),
    }
    figure = values["final"]["sites"]["alpha"]["test"]["federated"]["dsc"]
    assert set(figure) == {"mean", "sd", "n_patients", "n_pairs", "withheld", "strata"}
    assert list(figure["strata"]) == list(STRATA)
    assert set(figure["strata"]["growing"]) == {"mean", "n_pairs", "withheld"}
    assert set(values["final"]["pooled"]["test"]) == {"federated", "copy", "isotropic"}


def test_a_value_that_is_not_finite_cannot_enter() -> None:
    with pytest.raises(ValidationError):
        Figure(mean=float("nan"), sd=None, n_patients=1, n_pairs=1)


def test_a_study_with_nan_is_not_written_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_metrics(path, build_run(rounds=1, finished=False))
    before = path.read_text()
    broken = start_metrics({"name": "x", "seed": float("nan")}, started="2026-01-01T00:00:00Z")
    with pytest.raises(ValueError, match="JSON"):
        write_metrics(path, broken)
    assert path.read_text() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.json"]


def test_appending_gives_a_new_value_and_rounds_only_go_up() -> None:
    empty = build_run(rounds=0, finished=False)
    one = append_round(empty, build_round(1))
    assert (len(empty.rounds), len(one.rounds)) == (0, 1)
    with pytest.raises(ValueError, match="can't follow round 1"):
        append_round(one, build_round(1))


def test_an_interrupted_run_says_so() -> None:
    ended = end_run(build_run(finished=False), "interrupted", ended="2026", seconds=3.0)
    assert (ended.status, ended.seconds, ended.final) == ("interrupted", 3.0, None)


def _with(values: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    *parents, last = path.split(".")
    target: Any = values
    for key in parents:
        target = target[int(key) if key.isdigit() else key]
    target[last] = value
    return values


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema_version", 2, "schema_version is 2, expected 1"),
        ("status", "splendid", "status"),
        ("surprise", 1, "surprise"),
        ("rounds.0.seconds", "long", "rounds.0.seconds"),
        ("sites.alpha.counts.test.pairs", -1, "sites.alpha.counts.test.pairs"),
    ],
)
def test_a_file_that_does_not_fit_names_the_entry(
    tmp_path: Path, path: str, value: object, message: str
) -> None:
    values = _with(build_run(rounds=1).model_dump(mode="json"), path, value)
    (tmp_path / "metrics.json").write_text(json.dumps(values))
    with pytest.raises(WireError, match=message):
        read_metrics(tmp_path)


def test_missing_and_damaged_files_are_errors_with_a_message(tmp_path: Path) -> None:
    with pytest.raises(WireError, match="no such file"):
        read_metrics(tmp_path)
    (tmp_path / "metrics.json").write_text('{"schema_version": 1, "rounds": [')
    with pytest.raises(WireError, match="can't be read as JSON"):
        read_metrics(tmp_path)
    (tmp_path / "metrics.json").write_text("[1]")
    with pytest.raises(WireError, match="schema_version is None"):
        read_metrics(tmp_path)


def test_records_are_frozen() -> None:
    metrics: RunMetrics = build_run(rounds=1)
    with pytest.raises(ValidationError):
        metrics.status = "failed"
