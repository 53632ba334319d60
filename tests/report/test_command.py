import json
from pathlib import Path

from typer.testing import CliRunner

from nognet.commands.main import app
from nognet.errors import WireError
from nognet.report.metrics_file import write_metrics
from tests.builders.run_metrics import build_run


def test_the_report_is_built_and_the_table_printed(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.json", build_run(rounds=1))
    result = CliRunner().invoke(app, ["report", "--run", str(tmp_path)])
    assert result.exit_code == 0
    assert (tmp_path / "report.html").read_text().lstrip().startswith("<!DOCTYPE html>")
    assert "Federated model" in result.stdout
    assert "report written to" in result.stderr


def test_json_is_all_that_goes_to_stdout(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.json", build_run(rounds=1))
    out = tmp_path / "elsewhere" / "page.html"
    arguments = ["report", "--run", str(tmp_path), "--out", str(out), "--json"]
    result = CliRunner().invoke(app, arguments)
    values = json.loads(result.stdout)
    assert values["report"] == str(out)
    assert out.exists()
    assert not (tmp_path / "report.html").exists()
    assert values["verdicts"] == dict.fromkeys(["alpha", "beta", "gamma", "all sites"], "better")
    assert values["final"]["sites"]["alpha"]["test"]["copy"]["dsc"]["n_pairs"] == 24


def test_a_folder_that_is_no_run_is_an_error_of_ours(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", "--run", str(tmp_path)])
    assert isinstance(result.exception, WireError)
