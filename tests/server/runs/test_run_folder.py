from __future__ import annotations

from pathlib import Path

import pytest
from nognet_server.runs.flower_config import DEFAULTS, RunSettings
from nognet_server.runs.folder import (
    Outcome,
    RunFolder,
    close_metrics,
    new_run_folder,
    outcome_of,
    read_outcome,
    write_outcome,
    write_study,
)
from nognet_server.runs.successor import existing_run_folder

from nognet.config import load_study
from nognet.errors import ConfigError, FederationError
from nognet.report.metrics_file import read_metrics, start_metrics, write_metrics
from nognet.report.metrics_schema import RunStatus
from tests.builders.federation import make_study


def test_a_second_run_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    names = [new_run_folder(study).path.name for _ in range(3)]
    assert names == ["tiny", "tiny-2", "tiny-3"]


def test_the_study_as_run_can_be_read_again(tmp_path: Path) -> None:
    limits = {"minimum_sites": 1, "max_update_ratio": None}  # None is not its default
    study = make_study(tmp_path, strategy={"name": "fedadam", "tau": 0.01}, federation=limits)
    folder = new_run_folder(study)
    write_study(folder, study)
    assert load_study(folder.study) == study


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"study\.yaml"):
        existing_run_folder(tmp_path)


def test_a_runs_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(ConfigError, match="runs"):
        new_run_folder(make_study(tmp_path))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, Outcome(0, "completed")),
        (FederationError("too few"), Outcome(9, "too few")),
        (KeyboardInterrupt(), Outcome(130, "interrupted")),
        (ValueError("odd"), Outcome(1, "ValueError: odd")),
    ],
)
def test_the_outcome_says_code_and_message(
    tmp_path: Path, error: BaseException | None, expected: Outcome
) -> None:
    folder = RunFolder(tmp_path)
    assert read_outcome(folder) is None
    write_outcome(folder, outcome_of(error, 130))
    assert read_outcome(folder) == expected


def test_settings_survive_flowers_run_config(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    settings = RunSettings(study, tmp_path / "runs/x", resume=True, closed_roster=3, poll_s=0.5)
    back = RunSettings.from_run_config(settings.to_run_config())
    assert back.study.for_sites() == study.for_sites()
    assert (back.run_folder, back.resume, back.closed_roster, back.poll_s) == (
        settings.run_folder,
        True,
        3,
        0.5,
    )


def test_every_key_of_the_run_config_has_a_default_in_the_bundle(tmp_path: Path) -> None:
    settings = RunSettings(make_study(tmp_path), tmp_path)
    assert settings.to_run_config().keys() == DEFAULTS.keys()
    assert {k: type(v) for k, v in settings.to_run_config().items()} == {
        k: type(v) for k, v in DEFAULTS.items()
    }


def test_an_empty_run_config_is_refused() -> None:
    with pytest.raises(ConfigError, match="study-json"):
        RunSettings.from_run_config({})


@pytest.mark.parametrize(("left", "noted"), [("running", "failed"), ("completed", "completed")])
def test_a_run_whose_process_was_killed_is_noted_as_failed(
    tmp_path: Path, left: RunStatus, noted: RunStatus
) -> None:
    folder = RunFolder(tmp_path)
    close_metrics(folder, "failed")  # nothing was written yet
    metrics = start_metrics({}, started="2026-01-01T00:00:00+00:00")
    write_metrics(folder.metrics, metrics.model_copy(update={"status": left}))
    close_metrics(folder, "failed")
    assert read_metrics(folder.metrics).status == noted
