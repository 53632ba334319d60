from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nognet_server.runs.checkpoints import (
    RunIdentity,
    latest_round,
    load_checkpoint,
    load_identity,
    save_checkpoint,
)
from nognet_server.runs.folder import RunFolder, load_run_study, new_run_folder, write_study
from nognet_server.runs.state import ServerState
from nognet_server.runs.warm_start import WarmStart, lacks_only_its_report, release, unfinished_run
from nognet_server.runs.withdrawal import plan_withdrawal, withdraw

from nognet.config import StudyConfig
from nognet.errors import ConfigError
from nognet.fit.weights import weight_spec
from nognet.report.metrics_file import end_run, start_metrics, write_metrics
from nognet.report.metrics_schema import RunStatus
from nognet.wire.flat import flat_length
from tests.builders.federation import make_study


def begun(study: StudyConfig, rounds: int, *, finished: bool = False) -> RunFolder:
    folder = new_run_folder(study)
    write_study(folder, study)
    identity = RunIdentity("ab" * 16, study.for_sites(), "cd" * 32, "2026-01-01T00:00:00+00:00")
    weights = np.zeros(flat_length(weight_spec(study.network)), np.float32)
    save_checkpoint(folder, identity, ServerState(rounds, weights, strikes={"site_b": 3}))
    if finished:
        end_as(folder, study, "completed")
    return folder


def end_as(folder: RunFolder, study: StudyConfig, status: RunStatus) -> None:
    started = "2026-01-01T00:00:00+00:00"
    metrics = start_metrics(study.model_dump(mode="json"), started=started)
    write_metrics(folder.metrics, end_run(metrics, status, ended=started, seconds=1.0))
    if status == "completed":
        folder.report.write_text("of the whole run")


def goes_on_without(folder: RunFolder, site: str) -> RunFolder:
    """Withdraw a site that counted from the last round on, as its lineage says."""
    length = flat_length(weight_spec(load_run_study(folder).network))
    last = latest_round(folder)
    assert last is not None
    state = load_checkpoint(folder, last, length=length)
    save_checkpoint(folder, load_identity(folder, last), replace(state, lineage={site: last + 1}))
    return withdraw(folder, plan_withdrawal(folder, site))


def test_the_last_unfinished_run_of_the_study_is_gone_on_with(tmp_path: Path) -> None:
    study = make_study(tmp_path, rounds=3)
    begun(study, 1)
    last = begun(study, 2)
    assert unfinished_run(study, WarmStart.auto) == last
    assert unfinished_run(study, WarmStart.require) == last
    assert unfinished_run(study, WarmStart.fresh) is None


def test_the_tenth_run_comes_after_the_ninth(tmp_path: Path) -> None:
    study = make_study(tmp_path, rounds=3)
    folders = [begun(study, 1) for _ in range(10)]
    assert folders[-1].path.name == "tiny-10"
    assert unfinished_run(study, WarmStart.auto) == folders[-1]


@pytest.mark.parametrize(
    ("rounds", "finished", "changes", "why"),
    [
        (3, True, {}, "is finished"),
        (1, False, {"seed": 6}, "seed: 5 in the run, 6 now"),
        (1, False, {"name": "other"}, "holds no run of study 'other'"),
    ],
)
def test_another_or_a_finished_run_is_not_gone_on_with(
    tmp_path: Path, rounds: int, finished: bool, changes: dict[str, object], why: str
) -> None:
    begun(make_study(tmp_path, rounds=3), rounds, finished=finished)
    study = make_study(tmp_path, **{"rounds": 3, **changes})
    assert unfinished_run(study, WarmStart.auto) is None
    with pytest.raises(ConfigError, match=why) as raised:
        unfinished_run(study, WarmStart.require)
    assert "--warm-start fresh" in str(raised.value)


def test_a_run_that_a_limit_on_privacy_ended_before_its_last_round_is_finished(
    tmp_path: Path,
) -> None:
    study = make_study(tmp_path, rounds=3)
    begun(study, 1, finished=True)
    assert unfinished_run(study, WarmStart.auto) is None


@pytest.mark.parametrize("left", ["none", "of the rounds before"])
def test_a_finished_run_whose_report_was_not_written_is_gone_on_with(
    tmp_path: Path, left: str
) -> None:
    study = make_study(tmp_path, rounds=3)
    folder = begun(study, 3, finished=True)
    assert not lacks_only_its_report(folder, study)
    if left == "none":
        folder.report.unlink()
    else:
        os.utime(folder.report, ns=(0, 0))
    assert unfinished_run(study, WarmStart.auto) == folder
    assert lacks_only_its_report(folder, study)
    with pytest.raises(ConfigError, match="seed: 5 in the run, 6 now"):
        lacks_only_its_report(folder, make_study(tmp_path, rounds=3, seed=6))


@pytest.mark.parametrize("status", ["failed", "interrupted", "running"])
def test_a_run_with_all_rounds_that_was_not_tested_is_gone_on_with(
    tmp_path: Path, status: RunStatus
) -> None:
    study = make_study(tmp_path, rounds=3)
    folder = begun(study, 3)
    folder.report.write_text("of the rounds so far")
    end_as(folder, study, status)
    assert unfinished_run(study, WarmStart.auto) == folder


@pytest.mark.parametrize("how", [WarmStart.auto, WarmStart.require])
def test_after_withdrawals_the_run_without_the_sites_is_gone_on_with(
    tmp_path: Path, how: WarmStart
) -> None:
    study = make_study(tmp_path, rounds=3)
    first = begun(study, 1, finished=True)
    second = goes_on_without(first, "site_b")
    assert second.path.name == "tiny-without-site_b"
    assert unfinished_run(study, how) == second
    third = goes_on_without(second, "site_a")
    assert unfinished_run(study, how) == third
    assert unfinished_run(study, WarmStart.fresh) is None


def test_no_new_run_is_begun_by_itself_after_a_withdrawal(tmp_path: Path) -> None:
    study = make_study(tmp_path, rounds=3)
    successor = goes_on_without(begun(study, 1), "site_b")
    changed = make_study(tmp_path, rounds=3, seed=6)
    again = "ask site_b again, which has withdrawn: remove its key"
    with pytest.raises(ConfigError, match=again):
        unfinished_run(changed, WarmStart.auto)
    end_as(successor, study, "completed")
    with pytest.raises(ConfigError, match=f"is finished; a new run would {again}"):
        unfinished_run(study, WarmStart.auto)
    newer = begun(study, 1)  # somebody said `fresh`
    assert unfinished_run(study, WarmStart.auto) == newer


@pytest.mark.parametrize("note", [None, "{", "[]", '{"withdrawn": "site_b"}'])
def test_a_successor_that_is_not_found_begins_no_new_run(tmp_path: Path, note: str | None) -> None:
    study = make_study(tmp_path, rounds=3)
    folder = begun(study, 1)
    if note is None:
        shutil.rmtree(goes_on_without(folder, "site_b").path)
    else:
        folder.superseded.write_text(note, encoding="utf-8")
    with pytest.raises(ConfigError, match="withdrawn from") as refused:
        unfinished_run(study, WarmStart.auto)
    assert refused.value.code == "withdrawn"


def test_a_released_site_has_nothing_held_against_it(tmp_path: Path) -> None:
    study = make_study(tmp_path, rounds=3)
    folder = begun(study, 1)
    with pytest.raises(ConfigError, match="nothing is held against 'site_a'; it is against site_b"):
        release(folder, "site_a")
    release(folder, "site_b")
    length = flat_length(weight_spec(study.network))
    assert load_checkpoint(folder, 1, length=length).strikes == {}
