"""`nognet privacy` from the command line."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from nognet.commands.main import app, main

PLAN = ["privacy", "plan", "--patients", "80", "--batch", "8", "--steps", "300", "--delta", "1e-3"]


def test_the_plan_gives_epsilon_of_the_stated_example() -> None:
    result = CliRunner().invoke(app, [*PLAN, "--noise", "1", "--json"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["epsilon"] == pytest.approx(9.06, abs=0.02)
    assert figures["epsilon"] < figures["epsilon_rdp"]
    assert figures["sample_rate"] == pytest.approx(0.1)
    assert figures["empty_batch_share"] == pytest.approx(0.9**80)


def test_the_noise_planned_for_a_target_stays_below_it() -> None:
    result = CliRunner().invoke(app, [*PLAN, "--target-epsilon", "4", "--json"])
    figures = json.loads(result.stdout)
    assert 3.9 < figures["epsilon"] <= 4
    again = CliRunner().invoke(app, [*PLAN, "--noise", str(figures["noise_multiplier"])])
    assert f"epsilon {figures['epsilon']:.3f}" in again.stdout


@pytest.mark.parametrize("extra", [[], ["--noise", "1", "--target-epsilon", "4"]])
def test_noise_and_target_exclude_each_other(extra: list[str]) -> None:
    result = CliRunner().invoke(app, [*PLAN, *extra])
    assert result.exit_code == 2
    assert "give one of" in result.output


@pytest.mark.parametrize("arguments", [["--delta", "0.1", "--noise", "1"], ["--noise", "0"]])
def test_an_unsound_plan_ends_with_exit_code_10_and_a_message(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["nognet", *PLAN, *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    assert ended.value.code == 10
    assert captured.out == ""
    assert "expected" in captured.err or "must be below" in captured.err


def test_an_epsilon_that_promises_nothing_is_said_so() -> None:
    result = CliRunner().invoke(app, [*PLAN, "--noise", "0.5"])
    assert "hardly anything" in result.stderr
    assert "hardly anything" not in result.stdout
