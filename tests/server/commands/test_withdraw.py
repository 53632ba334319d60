"""`nognet-server withdraw | release` beside a server, and without one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from nognet_server.commands.main import app
from nognet_server.processes.status import StatusFiles
from nognet_server.runs.checkpoints import RunIdentity, load_checkpoint, save_checkpoint
from nognet_server.runs.folder import RunFolder, new_run_folder, write_study
from nognet_server.runs.state import ServerState
from typer.testing import CliRunner, Result

from nognet.errors import ConfigError
from nognet.fit.weights import weight_spec
from nognet.supervision.lock import exclusive
from nognet.wire.flat import flat_length
from tests.builders.federation import make_study


def begun(tmp_path: Path) -> tuple[RunFolder, Path]:
    """Leave a run in which site_b counted and is in quarantine; with its server's state folder."""
    state = tmp_path / "state"
    server = dict.fromkeys(("ca", "certificate", "key", "sites"), str(tmp_path / "pki"))
    server |= {"state": str(state), "listen": "127.0.0.1:9443"}
    study = make_study(tmp_path, rounds=3, server=server)
    folder = new_run_folder(study)
    write_study(folder, study)
    identity = RunIdentity("ab" * 16, study.for_sites(), "cd" * 32, "2026-01-01T00:00:00+00:00")
    weights = np.zeros(flat_length(weight_spec(study.network)), np.float32)
    for number in (0, 1):
        lineage, strikes = ({"site_b": 1}, {"site_b": 3}) if number else ({}, {})
        save_checkpoint(
            folder, identity, ServerState(number, weights, lineage=lineage, strikes=strikes)
        )
    return folder, state


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def strikes(folder: RunFolder) -> dict[str, int]:
    length = flat_length(weight_spec(make_study(folder.path).network))
    return dict(load_checkpoint(folder, 1, length=length).strikes)


@pytest.mark.parametrize("command", [("withdraw", "--delete"), ("withdraw",), ("release",)])
@pytest.mark.parametrize("told", [True, False])
def test_a_run_that_a_server_is_at_is_not_changed(
    tmp_path: Path, command: tuple[str, ...], *, told: bool
) -> None:
    folder, state = begun(tmp_path)
    with exclusive(state, "nognet-server"):
        if told:
            StatusFiles((state,), folder.path, 3)  # else it has just started
        before = contents(tmp_path)
        result = run(command[0], "site_b", "--run", folder.path, *command[1:])
        assert isinstance(result.exception, ConfigError)
        assert result.exception.code == "run-in-use"
        assert f"nognet-server stop --run {folder.path}" in str(result.exception)
        assert contents(tmp_path) == before
        assert run("withdraw", "site_b", "--run", folder.path, "--dry-run").exit_code == 0
        assert contents(tmp_path) == before


def nobody(_: RunFolder, __: Path) -> None:
    """No server runs, and none ever did."""


def stopped(folder: RunFolder, state: Path) -> None:
    """A server was at the run and has ended."""
    with exclusive(state, "nognet-server"):
        StatusFiles((state,), folder.path, 3)


@pytest.mark.parametrize("before", [nobody, stopped])
def test_without_a_server_a_site_leaves_or_comes_back(
    tmp_path: Path, before: Callable[[RunFolder, Path], None]
) -> None:
    folder, state = begun(tmp_path)
    before(folder, state)
    assert run("release", "site_b", "--run", folder.path).exit_code == 0
    assert strikes(folder) == {}
    assert run("withdraw", "site_b", "--run", folder.path, "--delete").exit_code == 0
    assert not folder.checkpoint(1).exists()
    note = json.loads(folder.superseded.read_text(encoding="utf-8"))
    assert note == {"withdrawn": "site_b", "goes_on_in": "tiny-without-site_b"}


def test_a_server_at_another_run_does_not_matter(tmp_path: Path) -> None:
    folder, state = begun(tmp_path)
    with exclusive(state, "nognet-server"):
        StatusFiles((state,), tmp_path / "runs" / "tiny-2", 3)
        assert run("release", "site_b", "--run", folder.path).exit_code == 0
    assert strikes(folder) == {}
