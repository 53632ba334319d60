"""Central privacy in a run: the charge comes first, limits hold, warnings are plain."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nognet_server.central_dp import rounds
from nognet_server.central_dp.charges import CentralState, read_charges, write_charges
from nognet_server.central_dp.rounds import (
    begun,
    gone_on_with,
    may_go_on,
    noised,
    spent_entry,
    spent_text,
)
from nognet_server.runs.checkpoints import RunIdentity, load_checkpoint, save_checkpoint
from nognet_server.runs.flower_config import RunSettings
from nognet_server.runs.folder import RunFolder
from nognet_server.runs.opening import open_run
from nognet_server.runs.state import ServerState
from nognet_server.strategies import shares_of

from nognet.errors import PrivacyBudgetError
from nognet.fit.site_privacy import plan_for
from nognet.privacy.accounting import NoisedSteps, PrivacyHistory
from tests.builders.central import begun_state, central_study, replies_of
from tests.builders.fake_grid import FakeGrid
from tests.builders.federation import make_study
from tests.builders.strategy_rounds import LENGTH

NOTHING = PrivacyHistory()


def updates(count: int) -> list[Any]:
    return list(np.random.default_rng(0).normal(size=(count, LENGTH)))


def test_without_central_privacy_nothing_is_changed_or_written(tmp_path: Path) -> None:
    study, state = make_study(tmp_path), ServerState(0, begun_state().weights)
    plan, replies = plan_for(study), replies_of(updates(2))
    assert plan is None
    assert begun(plan, LENGTH) is None
    assert noised(study, plan, state, replies, folder=RunFolder(tmp_path)) == (state, replies)
    assert may_go_on(plan, state)
    assert (spent_text(plan, state), spent_entry(plan, state)) == ("", None)
    assert not list(tmp_path.iterdir())


def test_the_charge_is_on_disk_before_there_is_anything_to_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, folder = central_study(tmp_path), RunFolder(tmp_path)

    def dies(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(rounds, "release", dies)
    with pytest.raises(KeyboardInterrupt):
        noised(study, plan_for(study), begun_state(), replies_of(updates(3)), folder=folder)
    assert read_charges(folder, at_least=NOTHING).steps == 1


def test_two_runs_of_one_seed_have_other_noise(tmp_path: Path) -> None:
    study, folder = central_study(tmp_path), RunFolder(tmp_path)
    replies = replies_of(updates(3))
    made = [
        noised(study, plan_for(study), begun_state(), replies, folder=folder)[1][0].weights
        for _ in range(2)
    ]
    assert not np.array_equal(made[0], made[1])


def test_the_account_and_the_clip_norm_survive_a_checkpoint(tmp_path: Path) -> None:
    study, folder = central_study(tmp_path, privacy={"clipping": "adaptive"}), RunFolder(tmp_path)
    state, _ = noised(study, plan_for(study), begun_state(), replies_of(updates(3)), folder=folder)
    assert state.central is not None
    assert state.central.clip_norm != 0.5
    save_checkpoint(folder, RunIdentity("ab", "{}", "cd", "then"), state)
    assert load_checkpoint(folder, 0, length=LENGTH).central == state.central


def test_a_release_that_the_checkpoint_missed_stays_charged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = RunFolder(tmp_path)
    write_charges(folder, PrivacyHistory((NoisedSteps(1.0, 1.0, 3),)))
    known = CentralState(0.5, PrivacyHistory((NoisedSteps(1.0, 1.0, 2),)))
    state = gone_on_with(ServerState(2, begun_state().weights, central=known), folder)
    assert state.central is not None
    assert state.central.history.steps == 3
    assert "1 rounds were released and not finished" in caplog.text


def test_a_folder_that_lost_its_checkpoints_has_lost_none_of_its_releases(tmp_path: Path) -> None:
    study = central_study(tmp_path)
    settings = RunSettings(study, tmp_path / "run", resume=True)
    folder = RunFolder(settings.run_folder)
    folder.checkpoints.mkdir(parents=True)
    _, state = open_run(FakeGrid({}), settings)
    assert state.central == CentralState(0.5)
    write_charges(folder, PrivacyHistory((NoisedSteps(1.0, 1.0, 2),)))
    folder.checkpoint(0).unlink()
    _, again = open_run(FakeGrid({}), settings)
    assert again.central is not None
    assert again.central.history.steps == 2
    assert read_charges(folder, at_least=NOTHING).steps == 2


def test_a_limit_refuses_the_study_and_then_the_round(tmp_path: Path) -> None:
    study = central_study(tmp_path, privacy={"max_epsilon": 3.2}, rounds=1)
    plan, folder = plan_for(study), RunFolder(tmp_path)
    assert plan is not None
    assert begun(plan, LENGTH) == CentralState(0.5)
    with pytest.raises(PrivacyBudgetError, match=r"at most max_epsilon 3\.2"):
        begun(plan_for(study.model_copy(update={"rounds": 2})), LENGTH)
    state, _ = noised(study, plan, begun_state(), replies_of(updates(3)), folder=folder)
    assert not may_go_on(plan, state)
    with pytest.raises(PrivacyBudgetError, match="round 1 is not released"):
        noised(study, plan, state, replies_of(updates(3)), folder=folder)
    assert read_charges(folder, at_least=NOTHING).steps == 1
    entry = spent_entry(plan, state)
    assert entry is not None
    assert entry["stopped_before_round"] == 1
    assert spent_text(plan, state).startswith(", epsilon of a site 3.1")


def test_few_sites_are_warned_and_many_informed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    begun(plan_for(central_study(tmp_path)), LENGTH)
    assert "noise of a round is 5.8 times as long" in caplog.text
    assert any(record.levelno == logging.WARNING for record in caplog.records)
    caplog.clear()
    begun(plan_for(central_study(tmp_path, sites=400)), LENGTH)
    assert "0.043 times as long" in caplog.text
    assert all(record.levelno == logging.INFO for record in caplog.records)


def test_more_sites_than_the_study_expects_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study = central_study(tmp_path, sites=2)
    noised(
        study,
        plan_for(study),
        begun_state(),
        replies_of(updates(3)),
        folder=RunFolder(tmp_path),
    )
    assert "3 sites count, federation.expected_sites is 2" in caplog.text


def test_shares_are_of_a_fixed_weight_whoever_answered(tmp_path: Path) -> None:
    privacy = {"weights": {"name": "bounded", "max_weight": 4}}
    study = central_study(tmp_path, weighting="pairs", privacy=privacy)
    replies = replies_of(updates(2), [900, 3])
    assert shares_of(study, replies) == {"site_00": 4 / 12, "site_01": 3 / 12}
    plain = make_study(tmp_path)
    assert shares_of(plain, replies) == {"site_00": 900 / 903, "site_01": 3 / 903}
