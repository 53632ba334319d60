"""`nognet-server withdraw | release` beside a server, and without one."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from nognet_server.commands.main import app
from nognet_server.processes.status import StatusFiles
from nognet_server.runs import withdrawal
from nognet_server.runs.checkpoints import (
    RunIdentity,
    load_checkpoint,
    load_identity,
    save_checkpoint,
)
from nognet_server.runs.folder import RunFolder, load_run_study, new_run_folder, write_study
from nognet_server.runs.state import ServerState
from nognet_server.runs.warm_start import WarmStart, unfinished_run
from typer.testing import CliRunner, Result

from nognet.errors import ConfigError, FederationError
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


def successor_of(folder: RunFolder) -> RunFolder:
    return RunFolder(folder.path.with_name(f"{folder.path.name}-without-site_b"))


def assert_withdrawn(folder: RunFolder) -> None:
    """The second call made all of it: the run without the site, the note, the deletion."""
    assert sorted(path.name for path in folder.path.parent.iterdir()) == [
        "tiny",
        "tiny-without-site_b",
    ]
    length = flat_length(weight_spec(load_run_study(folder).network))
    assert load_checkpoint(successor_of(folder), 0, length=length).withdrawn == ("site_b",)
    assert unfinished_run(load_run_study(folder), WarmStart.auto) == successor_of(folder)
    assert not folder.checkpoint(1).exists()


@pytest.mark.parametrize("writer", [(safetensors.numpy, "save_file"), (shutil, "copy2")])
def test_a_withdrawal_that_met_a_full_disk_is_not_made_and_is_by_a_second_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: tuple[Any, str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder, _ = begun(tmp_path)
    before = contents(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(*writer, full)
        failed = run("withdraw", "site_b", "--run", folder.path, "--delete").exception
    assert isinstance(failed, FederationError)
    assert failed.code == "withdrawal-not-made"
    assert "No space left on device); site_b has not withdrawn yet" in str(failed)
    assert contents(folder.path.parent) == before
    assert run("withdraw", "site_b", "--run", folder.path, "--delete").exit_code == 0
    assert_withdrawn(folder)


def test_a_withdrawal_killed_while_it_copies_is_no_run_and_is_cleared(tmp_path: Path) -> None:
    folder, _ = begun(tmp_path)
    left = RunFolder(folder.path.with_name(".tiny-without-site_b.tmp"))
    shutil.copytree(folder.path, left.path)  # more than the withdrawal keeps
    assert unfinished_run(load_run_study(folder), WarmStart.auto) == folder
    assert run("withdraw", "site_b", "--run", folder.path, "--delete").exit_code == 0
    assert not successor_of(folder).checkpoint(1).exists()
    assert_withdrawn(folder)


def killed_before_the_note(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(withdrawal, "supersede", killed)
        with pytest.raises(KeyboardInterrupt):
            withdrawal.withdraw(folder, withdrawal.plan_withdrawal(folder, "site_b"))
    assert not folder.superseded.exists()


def test_a_withdrawal_killed_before_its_note_is_noted_by_a_second_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = begun(tmp_path)
    killed_before_the_note(folder, monkeypatch)
    token = load_identity(successor_of(folder), 0).run_token
    assert run("withdraw", "site_b", "--run", folder.path, "--delete").exit_code == 0
    assert_withdrawn(folder)
    assert load_identity(successor_of(folder), 0).run_token == token


@pytest.mark.parametrize("trained", [True, False])
def test_what_was_released_before_the_second_call_stays_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, trained: bool
) -> None:
    folder, _ = begun(tmp_path)
    folder.charges.write_text("one release", encoding="utf-8")
    killed_before_the_note(folder, monkeypatch)
    target = successor_of(folder)
    folder.charges.write_text("two releases", encoding="utf-8")
    if trained:
        target.metrics.write_text("{}", encoding="utf-8")
    result = run("withdraw", "site_b", "--run", folder.path)
    if trained:  # it has releases of its own: neither file has them all
        assert isinstance(result.exception, ConfigError)
        assert not folder.superseded.exists()
    else:
        assert result.exit_code == 0
        assert target.charges.read_text(encoding="utf-8") == "two releases"


def test_another_folder_in_its_place_is_not_taken_for_the_withdrawal(tmp_path: Path) -> None:
    folder, _ = begun(tmp_path)
    shutil.copytree(folder.path, successor_of(folder).path)  # holds the site's traces
    before = contents(tmp_path)
    failed = run("withdraw", "site_b", "--run", folder.path, "--delete").exception
    assert isinstance(failed, ConfigError)
    assert failed.code == "exists"
    assert "nobody has withdrawn" in str(failed)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("already", [(), ("model.nognet",), ("model.nognet", "round_0001.nognet")])
def test_what_the_first_call_did_not_delete_a_second_one_does(
    tmp_path: Path, already: tuple[str, ...]
) -> None:
    folder, _ = begun(tmp_path)
    length = flat_length(weight_spec(load_run_study(folder).network))
    last = replace(load_checkpoint(folder, 1, length=length), round_number=2)
    save_checkpoint(folder, load_identity(folder, 1), last)
    folder.model.write_bytes(b"weights")
    assert run("withdraw", "site_b", "--run", folder.path).exit_code == 0
    for name in already:  # killed while it deleted
        next(folder.path.rglob(name)).unlink()
    again = ("withdraw", "site_b", "--run", folder.path, "--delete")
    assert isinstance(run(*again, "--dry-run").exception, ConfigError)
    other = ("withdraw", "site_a", "--run", folder.path, "--delete")
    assert isinstance(run(*other).exception, ConfigError)
    assert folder.checkpoint(2).exists()
    assert run(*again).exit_code == 0
    assert [path.name for path in folder.path.rglob("*.nognet")] == ["round_0000.nognet"]
    done = run(*again).exception
    assert isinstance(done, ConfigError)
    assert done.code == "withdrawn"
