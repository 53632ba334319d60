"""`nognet privacy plan-central` from the command line."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from nognet.commands.main import app

PLAN = ["privacy", "plan-central", "--sites", "3", "--rounds", "10", "--delta", "1e-3"]


def test_the_plan_says_what_a_site_is_promised_and_what_it_costs() -> None:
    result = CliRunner().invoke(app, [*PLAN, "--noise", "1", "--numbers", "152203"])
    assert result.exit_code == 0, result.output
    assert "epsilon 14.1 at delta 0.001 for any one site after 10 rounds" in result.stdout
    assert "with 3 sites the noise of a round is 130 times as long" in result.stdout
    assert "An epsilon above 10 promises a site hardly anything." in result.stderr


def test_a_target_gives_the_noise_and_the_default_network_the_numbers() -> None:
    result = CliRunner().invoke(app, [*PLAN, "--target-epsilon", "8", "--json"])
    figures = json.loads(result.stdout)
    assert 7.98 < figures["epsilon"] <= 8
    assert figures["noise_multiplier"] == pytest.approx(1.52, abs=0.01)
    ratio = figures["noise_multiplier"] * figures["numbers"] ** 0.5 / 3
    assert figures["noise_ratio"] == pytest.approx(ratio)
    assert figures["numbers"] > 100_000


def test_noise_of_the_sites_is_planned_by_how_many_stay() -> None:
    shared = ["--noise-from", "sites", "--surviving", "3"]
    result = CliRunner().invoke(app, [*PLAN, "--target-epsilon", "8", *shared, "--json"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert (figures["noise_from"], figures["honest_sites"]) == ("sites", 2)
    assert 7.98 < figures["epsilon"] <= 8
    assert figures["epsilon_prv"] is None
    said = CliRunner().invoke(app, [*PLAN, "--noise", "1", *shared, "--colluding", "0"]).stdout
    assert "the sites make it in shares for 3: with all 3 it is 1 times that" in said


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ([], "give one of"),
        (["--noise", "1", "--target-epsilon", "4"], "give one of"),
        (["--noise", "1", "--delta", "0.2"], "below 0.167"),
        (["--noise", "1", "--noise-from", "sites"], "--surviving"),
        (["--noise", "1", "--surviving", "3"], "--surviving"),
        (["--noise", "1", "--noise-from", "sites", "--surviving", "4"], "above --sites"),
    ],
)
def test_a_plan_that_makes_no_sense_is_a_wrong_command_line(extra: list[str], said: str) -> None:
    result = CliRunner().invoke(app, [*PLAN, *extra])
    assert result.exit_code == 2
    assert said in result.output
