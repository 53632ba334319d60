from __future__ import annotations

import json
from pathlib import Path

import pytest
from nognet_server.robustness.__main__ import JSON_NAME, app, markdown
from nognet_server.robustness.trial import STRATEGIES, Plan, Trial, study_of
from typer.testing import CliRunner

PLAN = Plan(7, 6, 4, 10, 1, False, tuple(STRATEGIES), ("none", "x100"))


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_each_study_has_as_many_sites_as_its_rule_needs(tmp_path: Path, strategy: str) -> None:
    study = study_of(PLAN, strategy, "x100", tmp_path)
    assert study.strategy.name == strategy
    assert study.federation.minimum_sites >= study.strategy.sites_needed
    assert study.federation.max_update_ratio is None


def test_the_table_says_whether_lengths_were_checked() -> None:
    figures = {"dsc": 0.5, "psnr": None}
    trial = Trial("fedavg", "x100", "completed", 1, 2, figures, figures, figures, 3.0)
    lines = list(markdown(PLAN, [trial]))
    assert "max_update_ratio) off" in lines[0]
    assert lines[-1] == "| x100 | fedavg | 0.500 | - | 0.500 | - | 1 of 4 | completed |"


@pytest.mark.slow
def test_an_attack_wrecks_the_mean_and_not_the_median(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["--out", str(out), "--sites", "3", "--patients", "3", "--rounds", "1"]
    command += ["--steps", "1", "--strategies", "fedavg,fedmedian", "--attacks", "x100,none"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0
    document = json.loads((out / JSON_NAME).read_text(encoding="utf-8"))
    found = {(t["attack"], t["strategy"]): t for t in document["trials"]}
    assert {t["status"] for t in found.values()} == {"completed"}
    psnr = {key: trial["test"]["psnr"] for key, trial in found.items()}
    assert psnr["x100", "fedavg"] < psnr["none", "fedavg"] - 3
    assert psnr["x100", "fedmedian"] > psnr["x100", "fedavg"] + 3
    again = CliRunner().invoke(app, command)
    assert "there is a result already" in str(again.exception)


def test_each_seed_is_played_in_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = {"dsc": 0.5, "psnr": None}
    made: list[tuple[Path, int]] = []

    def hospitals(folder: Path, *, seed: int, **_: int) -> list[Path]:
        made.append((folder, seed))
        return []

    def trial(plan: Plan, strategy: str, attack: str, *_: object) -> Trial:
        return Trial(strategy, attack, "completed", 0, plan.seed, figures, figures, figures, 1.0)

    monkeypatch.setattr("nognet_server.robustness.__main__.write_hospitals", hospitals)
    monkeypatch.setattr("nognet_server.robustness.__main__.run_trial", trial)
    chosen = ["--strategies", "fedavg", "--attacks", "x100"]
    for seeds, found in ((["--seeds", "3, 5"], [3, 5]), ([], [1])):
        out = tmp_path / f"out-{len(found)}"
        result = CliRunner().invoke(app, ["--out", str(out), *chosen, *seeds])
        assert result.exit_code == 0, result.output
        document = json.loads((out / JSON_NAME).read_text(encoding="utf-8"))
        assert [(t["seed"], t["best_round"]) for t in document["trials"]] == [(n, n) for n in found]
        assert all(f"; seed {number};" in result.stdout for number in found)
    assert made == [
        (tmp_path / "out-2" / "seed-3" / "hospitals", 3),
        (tmp_path / "out-2" / "seed-5" / "hospitals", 5),
        (tmp_path / "out-1" / "hospitals", 1),
    ]
    refused = CliRunner().invoke(app, ["--out", str(tmp_path / "x"), "--seeds", "1,two"])
    assert "--seeds: found '1,two'" in str(refused.exception)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    result = CliRunner().invoke(app, ["--out", str(tmp_path), "--force"])
    assert "is no result of this benchmark" in str(result.exception)
    assert (tmp_path / "notes.txt").read_text() == "mine"
