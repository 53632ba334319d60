"""The command line of `nognet-server`: which run a start goes on with. Nothing is started."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from nognet_server.commands.main import app
from nognet_server.processes import startup, supervisor
from nognet_server.processes.family import ServeOptions
from nognet_server.processes.startup import Coordinator
from nognet_server.runs.checkpoints import RunIdentity, save_checkpoint
from nognet_server.runs.folder import (
    Outcome,
    RunFolder,
    load_run_study,
    new_run_folder,
    write_study,
)
from nognet_server.runs.state import ServerState
from nognet_server.runs.withdrawal import plan_withdrawal, withdraw
from typer.testing import CliRunner, Result

from nognet.config import ServerConfig, StudyConfig, load_study
from nognet.errors import ConfigError
from nognet.fit.weights import weight_spec
from nognet.report.metrics_file import end_run, start_metrics, write_metrics
from nognet.wire.flat import flat_length
from tests.builders.federation import make_study

Served = list[tuple[str, bool]]


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    keys = ("ca", "certificate", "key", "sites")
    server = dict.fromkeys(keys, str(tmp_path / "pki"))
    server |= {"state": str(tmp_path / "state"), "listen": "127.0.0.1:9443"}
    values = make_study(tmp_path, rounds=3).model_dump(mode="json", exclude_none=True)
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(values | {"server": server}), encoding="utf-8")
    return path


@pytest.fixture
def _usual_log() -> Iterator[None]:
    """Undo what a command does to the log."""
    logger = logging.getLogger("nognet")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    for handler in logger.handlers:
        handler.close()
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, _usual_log: None) -> Served:
    """Which run a start would have served, and whether it goes on with it."""
    runs: Served = []

    def check(study: StudyConfig, *, insecure: bool) -> Coordinator:
        assert not insecure
        assert isinstance(study.server, ServerConfig)
        return Coordinator(study.server, ())

    def serve(_: Coordinator, __: StudyConfig, folder: RunFolder, options: ServeOptions) -> Outcome:
        runs.append((folder.path.name, options.resume))
        return Outcome(9, "not started in a test")

    monkeypatch.setattr(startup, "check_coordinator", check)
    monkeypatch.setattr(supervisor, "serve_run", serve)
    return runs


def start(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def begun(study_file: Path) -> RunFolder:
    """Leave what a run has after its first round, in which site_b counted."""
    study = load_study(study_file)
    folder = new_run_folder(study)
    write_study(folder, study)
    identity = RunIdentity("ab" * 16, study.for_sites(), "cd" * 32, "2026-01-01T00:00:00+00:00")
    weights = np.zeros(flat_length(weight_spec(study.network)), np.float32)
    for number in (0, 1):
        lineage = {"site_b": 1} if number else {}
        save_checkpoint(folder, identity, ServerState(number, weights, lineage=lineage))
    return folder


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ((), ("tiny-2", False)),
        (("--warm-start", "fresh"), ("tiny-2", False)),
        (("--warm-start", "auto"), ("tiny", True)),
        (("--warm-start", "require"), ("tiny", True)),
    ],
)
def test_a_start_goes_on_with_the_unfinished_run_as_it_is_told(
    study_file: Path, served: Served, how: tuple[str, ...], expected: tuple[str, bool]
) -> None:
    begun(study_file)
    assert start("--study", study_file, *how).exit_code == 9
    assert served == [expected]


@pytest.mark.parametrize("how", ["--resume", "--warm-start"])
def test_a_completed_run_gets_its_report_and_no_site_is_asked(
    study_file: Path, served: Served, how: str
) -> None:
    folder, study = begun(study_file), load_study(study_file)
    started = "2026-01-01T00:00:00+00:00"
    metrics = start_metrics(study.model_dump(mode="json"), started=started)
    write_metrics(folder.metrics, end_run(metrics, "completed", ended=started, seconds=1.0))
    arguments = ("--resume", folder.path) if how == "--resume" else ("--warm-start", "auto")
    result = start("--study", study_file, *arguments)
    assert (result.exit_code, served) == (0, [])
    assert folder.report.is_file()
    start("--study", study_file, "--warm-start", "auto")
    assert served == [("tiny-2", False)]


def test_without_a_run_auto_begins_one_and_require_refuses(
    study_file: Path, served: Served
) -> None:
    refused = start("--study", study_file, "--warm-start", "require")
    assert isinstance(refused.exception, ConfigError)
    assert refused.exception.code == "no-warm-start"
    start("--study", study_file, "--warm-start", "auto")
    assert served == [("tiny", False)]


def test_after_a_withdrawal_auto_goes_on_without_the_site(study_file: Path, served: Served) -> None:
    folder = begun(study_file)
    withdraw(folder, plan_withdrawal(folder, "site_b"))
    start("--study", study_file, "--warm-start", "auto")
    assert served == [("tiny-without-site_b", True)]
    assert load_run_study(folder).rounds == 3


@pytest.mark.parametrize("how", ["auto", "require"])
def test_a_run_is_named_or_looked_for_not_both(study_file: Path, served: Served, how: str) -> None:
    folder = begun(study_file)
    result = start("--resume", folder.path, "--warm-start", how)
    assert result.exit_code == 2
    assert f"--warm-start {how}" in result.output
    assert served == []
    assert start("--resume", folder.path).exit_code == 9
    assert served == [("tiny", True)]
