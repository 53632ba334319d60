"""`nognet config` and the umbrella command: schema, check, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

import nognet
from nognet.commands.main import app, main
from nognet.config import SiteConfig, StudyConfig


def _run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["nognet", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(("kind", "model"), [("study", StudyConfig), ("site", SiteConfig)])
def test_the_schema_is_json_schema_of_every_key(kind: str, model: type[BaseModel]) -> None:
    result = CliRunner().invoke(app, ["config", "schema", kind])
    assert result.exit_code == 0
    schema = json.loads(result.stdout)
    assert set(schema["properties"]) == set(model.model_fields)
    assert schema["additionalProperties"] is False


def test_the_schema_of_the_study_is_the_default_and_carries_ranges_and_descriptions() -> None:
    result = CliRunner().invoke(app, ["config", "schema"])
    training = json.loads(result.stdout)["$defs"]["TrainingConfig"]["properties"]
    assert training["batch_size"]["minimum"] == 1
    assert "warm-up" in training["warmup_steps"]["description"]


def test_a_good_file_passes_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study, site = tmp_path / "study.yaml", tmp_path / "site.yaml"
    study.write_text("name: lungs\n", encoding="utf-8")
    site.write_text("name: hospital_a\nstudies: studies.csv\n", encoding="utf-8")
    assert _run_main(monkeypatch, "config", "check", str(study)) == 0
    assert _run_main(monkeypatch, "config", "check", str(site), "--kind", "site") == 0
    assert _run_main(monkeypatch, "config", "check", str(site)) == 0
    assert capsys.readouterr().out == (
        f"{study}: ok, study 'lungs'\n{site}: ok, site 'hospital_a'\n"
        f"{site}: ok, site 'hospital_a'\n"
    )


def test_a_faulty_site_file_is_told_the_faults_of_a_site_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("name: hospital_a\nstudies: a.csv\ncash: /cache\n", encoding="utf-8")
    assert _run_main(monkeypatch, "config", "check", str(path)) == 3
    assert "cash: unknown key; did you mean 'cache'?" in capsys.readouterr().err


def test_a_faulty_file_ends_with_exit_code_3_all_faults_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("name: lungs\nronds: 3\ntraining: {batch_size: 0}\n", encoding="utf-8")
    assert _run_main(monkeypatch, "config", "check", str(path)) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "2 faults" in captured.err
    assert "did you mean 'rounds'?" in captured.err
    assert "training.batch_size" in captured.err
    assert "Traceback" not in captured.err


def test_a_missing_file_ends_with_exit_code_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run_main(monkeypatch, "config", "check", str(tmp_path / "none.yaml")) == 3
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--nonsense"], ["config", "schema", "neither"]])
def test_a_wrong_command_line_ends_with_exit_code_2(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _run_main(monkeypatch, *arguments) == 2


def test_the_version_is_printed_to_stdout() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"{nognet.__version__}\n")
