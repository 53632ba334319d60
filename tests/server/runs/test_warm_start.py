from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nognet_server.runs.checkpoints import RunIdentity, load_checkpoint, save_checkpoint
from nognet_server.runs.folder import RunFolder, new_run_folder, write_study
from nognet_server.runs.state import ServerState
from nognet_server.runs.warm_start import WarmStart, release, unfinished_run

from nognet.config import StudyConfig
from nognet.errors import ConfigError
from nognet.fit.weights import weight_spec
from nognet.wire.flat import flat_length
from tests.builders.federation import make_study


def begun(study: StudyConfig, rounds: int, *, finished: bool = False) -> RunFolder:
    folder = new_run_folder(study)
    write_study(folder, study)
    identity = RunIdentity("ab" * 16, study.for_sites(), "cd" * 32, "2026-01-01T00:00:00+00:00")
    weights = np.zeros(flat_length(weight_spec(study.network)), np.float32)
    save_checkpoint(folder, identity, ServerState(rounds, weights, strikes={"site_b": 3}))
    if finished:
        folder.report.write_text("done")
    return folder


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


def test_a_released_site_has_nothing_held_against_it(tmp_path: Path) -> None:
    study = make_study(tmp_path, rounds=3)
    folder = begun(study, 1)
    with pytest.raises(ConfigError, match="nothing is held against 'site_a'; it is against site_b"):
        release(folder, "site_a")
    release(folder, "site_b")
    length = flat_length(weight_spec(study.network))
    assert load_checkpoint(folder, 1, length=length).strikes == {}
