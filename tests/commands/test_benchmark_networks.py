from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from nognet.commands.main import app

TINY = (
    "--steps", "1", "--patients", "3", "--test-patients", "3", "--roi", "32", "--width", "4",
    "--seeds", "1,2", "--networks", "mtnognet,unet",
)  # fmt: skip


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["benchmark", "networks", *arguments])


def test_it_writes_json_csv_and_a_picture_that_agree(tmp_path: Path) -> None:
    out = tmp_path / "networks"
    result = run(*TINY, "--out", str(out))
    assert result.exit_code == 0, result.output
    assert "MT-NoGNet" in result.stdout
    document = json.loads((out / "networks.json").read_text())
    assert document["plan"]["budget"] == {"seconds": None, "steps": 1}
    assert len(document["trainings"]) == 4
    assert "width 4" in document["networks"]["mtnognet"]
    with (out / "networks.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["predictor"]: row for row in csv.DictReader(file)}
    for row in document["table"]:
        assert float(rows[row["predictor"]]["DSC"]) == row["columns"]["DSC"]["mean"]
    assert {d["against"] for d in document["differences"]} == {
        "copy", "isotropic", "oracle", "unet",
    }  # fmt: skip
    assert (out / "networks.png").read_bytes().startswith(b"\x89PNG")

    again = run(*TINY, "--out", str(out))
    assert again.exit_code != 0
    assert "--force" in str(again.exception)


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
