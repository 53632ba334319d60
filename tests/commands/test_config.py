"""`nognet config` and the umbrella command: schema, check, exit codes, quick help."""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

import nognet
from nognet.commands.main import app, main
from nognet.config import SiteConfig, StudyConfig

HEAVY = ("torch", "flwr", "SimpleITK", "matplotlib", "opacus", "monai", "scipy")


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
    assert capsys.readouterr().out == (
        f"{study}: ok, study 'lungs'\n{site}: ok, site 'hospital_a'\n"
    )


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


def _run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "100"},
        timeout=60,
    )


def _own_subcommands() -> list[list[str]]:
    groups = [group.name for group in app.registered_groups]
    commands = [
        command.name or command.callback.__name__.replace("_", "-")
        for command in app.registered_commands
        if command.callback
    ]
    return [[], *([name] for name in (*groups, *commands) if name)]


@pytest.mark.parametrize("words", _own_subcommands(), ids=" ".join)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys\n"
        "from nognet.commands.main import main\n"
        "sys.argv = ['nognet', *sys.argv[1:]]\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    finished = _run_python(code, *words, "--help")
    assert "Usage" in finished.stdout
    assert finished.stdout.rstrip().endswith("heavy: []")


def test_help_answers_in_under_half_a_second() -> None:
    # Processor seconds and not the clock's: other processes may hold the cores meanwhile.
    code = "import sys; sys.argv = ['nognet', '--help']; import nognet.commands.main as m; m.main()"
    best = math.inf
    for _ in range(5):
        began = _children_seconds()
        _run_python(code)
        best = min(best, _children_seconds() - began)
    assert best < 0.5


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
