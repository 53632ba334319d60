from __future__ import annotations

import csv
import json
import re
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

import nognet
from nognet.commands.benchmark_networks import _tell
from nognet.commands.machine import checkout_commit, processor_name
from nognet.commands.main import app
from nognet.fit.contest.train import Budget, Training

TINY = (
    "--steps", "1", "--patients", "3", "--test-patients", "3", "--roi", "32", "--width", "4",
    "--seeds", "1,2", "--networks", "mtnognet,unet",
)  # fmt: skip


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["benchmark", "networks", *arguments])


def test_it_writes_json_csv_and_a_picture_that_agree(tmp_path: Path) -> None:
    out = tmp_path / "networks"
    result = run(*TINY, "--json", "--out", str(out))
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document == json.loads((out / "networks.json").read_text())
    assert document["plan"]["budget"] == {"seconds": None, "steps": 1}
    assert len(document["trainings"]) == 4
    assert "width 4" in document["networks"]["mtnognet"]
    with (out / "networks.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["predictor"]: row for row in csv.DictReader(file)}
    trainings = {(t["name"], t["seed"]): t["training"] for t in document["trainings"]}
    for row in document["table"]:
        written = rows[row["predictor"]]
        if row["predictor"] in {"mtnognet", "unet"}:
            each = [trainings[row["predictor"], seed] for seed in (1, 2)]
            assert float(written["median CPU seconds"]) == pytest.approx(
                sum(training["cpu_s"] for training in each) / 2
            )
            assert float(written["CPU seconds, seed 2"]) == each[1]["cpu_s"]
            assert written["steps, seed 1"] == "1"
        else:
            assert (written["median steps"], written["steps, seed 1"]) == ("", "")
        assert float(rows[row["predictor"]]["DSC"]) == row["columns"]["DSC"]["mean"]
    assert {d["against"] for d in document["differences"]} == {
        "copy", "isotropic", "oracle", "unet",
    }  # fmt: skip
    assert {d["stratum"] for d in document["differences"] if d["metric"] == "ssim"} == {
        None, "growing", "stable", "shrinking",
    }  # fmt: skip
    assert all(set(d["of_seeds"]) == {"1", "2"} for d in document["differences"])
    assert (out / "networks.png").read_bytes().startswith(b"\x89PNG")

    again = run(*TINY, "--out", str(out))
    assert again.exit_code != 0
    assert "--force" in str(again.exception)


def test_the_record_says_what_ran_when_on_what(tmp_path: Path) -> None:
    out = tmp_path / "networks"
    result = run(*TINY, "--seeds", "1", "--out", str(out))
    assert result.exit_code == 0, result.output
    document = json.loads((out / "networks.json").read_text())
    versions, machine = document["versions"], document["machine"]
    assert versions["nognet"] == nognet.__version__
    assert versions["torch"] == torch.__version__
    commit = checkout_commit()
    assert versions["commit"] == (commit and asdict(commit))
    assert machine["processor"] == processor_name()
    assert machine["threads_a_training"] == 1
    started, ended = (datetime.fromisoformat(document[key]) for key in ("started", "ended"))
    assert started.tzinfo is not None
    assert started <= ended


def test_the_table_gives_median_steps_and_seconds(tmp_path: Path) -> None:
    result = run(*TINY, "--seeds", "1", "--out", str(tmp_path / "networks"))
    heads, *lines = result.stdout.splitlines()
    assert heads.split()[:4] == ["predictor", "steps", "CPU", "s"]
    row = next(line for line in lines if line.startswith("MT-NoGNet "))
    assert re.match(r"MT-NoGNet +1 +\d+\.\d ", row)
    copied = next(line for line in lines if line.startswith("copy the baseline"))
    assert re.match(r"copy the baseline +- +- ", copied)
    assert "medians over seeds" in result.stdout


def test_steps_too_long_for_the_budget_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    fair = Training(steps=9, cpu_s=10.9, wall_s=99.0, counted_s=10.9, loss=1.0)
    _tell(Budget(seconds=10.0), "unet", 1, fair)
    assert "longer --budget" not in capsys.readouterr().err
    _tell(Budget(seconds=10.0), "unet", 1, replace(fair, cpu_s=12.0, counted_s=12.0))
    assert "12.0 s of 10.0 s" in capsys.readouterr().err
    _tell(Budget(steps=9), "unet", 1, replace(fair, cpu_s=1e6, counted_s=1e6))
    assert "longer --budget" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--budget", "soon"), "expected a time"),
        (("--seeds", "1,x"), "expected numbers"),
        (("--roi", "33"), "--roi"),
        (("--width", "5"), "--width"),
        (("--networks", ","), "expected names"),
        (("--networks", "unet", "--ablations"), "leave out --ablations"),
        (("--networks", "resnet", "--patients", "3", "--test-patients", "3"), "no network"),
        (("--background", "nowhere.mha"), "no such file"),
        (("--pairs", "nowhere"), "no such file"),
    ],
)
def test_what_cannot_be_run_is_said(arguments: tuple[str, ...], told: str, tmp_path: Path) -> None:
    result = run(*arguments, "--out", str(tmp_path / "out"))
    assert result.exit_code != 0
    words = " ".join((result.output + str(result.exception)).replace("\u2502", " ").split())
    assert told in words
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_the_folder_is_told_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    out.write_text("kept")
    result = run(*TINY, "--out", str(out))
    assert "is a file" in str(result.exception)
    assert out.read_text() == "kept"
