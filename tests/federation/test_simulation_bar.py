"""`nognet-sim` on a terminal: a bar of all sites, and below it what is left when it is done."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from tests.builders.federation import make_site, make_study
from tests.builders.terminal import Shown, on_terminal

COMMAND = "from nognet_server.simulation.commands import main; main()"


def sim(folder: Path, *more: str) -> Shown:
    study = folder / "study.yaml"
    study.write_text(yaml.safe_dump(make_study(folder).model_dump(mode="json", exclude_none=True)))
    sites = [str(make_site(folder, name)) for name in ("site_a", "site_b")]
    command = [sys.executable, "-c", COMMAND, "--study", str(study), "--json", *more]
    return on_terminal([*command, "--sites", *sites])


def test_it_draws_every_site_and_leaves_the_log_alone(tmp_path: Path) -> None:
    shown = sim(tmp_path)
    assert shown.exit_code == 0, shown.plain
    assert shown.stdout.startswith("{")
    for words in ("site_a", "site_b", "step 2 of 2, loss ", "elapsed, "):
        assert words in shown.plain
    assert not any("elapsed" in line for line in shown.lines)
    told = [line for line in shown.lines if "round 2 of 2: validation" in line]
    assert len(told) == 1
    assert told[0].endswith("the last round")
    log = (tmp_path / "runs" / "tiny" / "logs" / "simulation.log").read_text()
    assert "round 2 of 2: validation" in log
    assert "step 2 of 2" not in log


@pytest.mark.parametrize(
    "options",
    [("--log-format", "json"), pytest.param(("--verbose",), marks=pytest.mark.slow)],
)
def test_json_lines_and_flowers_own_log_are_not_mixed_with_a_bar(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    shown = sim(tmp_path, *options)
    assert shown.exit_code == 0, shown.plain
    assert "elapsed" not in shown.plain
    assert "\x1b[2K" not in shown.raw
