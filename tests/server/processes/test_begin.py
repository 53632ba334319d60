"""The deployed coordinator pre-trains while sites dial in, and stops between two steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nognet_server.processes.status import StatusFiles, read_state
from nognet_server.processes.supervisor import Watched, _begin
from nognet_server.runs.beginning import PRETRAINING
from nognet_server.runs.folder import RunFolder, new_run_folder

from nognet.config import StudyConfig
from nognet.fit.model_file import load_model
from nognet.fit.pretraining.train import pretrain
from nognet.supervision.children import StopRequest
from nognet.supervision.health import HealthPort
from tests.builders.federation import make_study
from tests.builders.pretraining import tiny_pretraining


class Running:
    """A child process that runs."""

    due = False

    def reap(self) -> int | None:
        return None


class Family:
    """The coordinator's two children."""

    superlink = executor = Running()


def begun(folder: Path, stop: StopRequest) -> tuple[bool, StudyConfig, RunFolder]:
    study = make_study(folder, init={"name": "phantom", "steps": 2, "batch_size": 2})
    run = new_run_folder(study)
    status = StatusFiles((run.path,), run.path, study.rounds)
    family: Any = Family()
    with HealthPort(None) as health:
        return _begin(Watched(family, status, health), study, run, stop), study, run


def test_the_weights_lie_ready_with_the_bits_of_a_simulation(tmp_path: Path) -> None:
    goes_on, _, run = begun(tmp_path, StopRequest())
    assert goes_on
    found, expected = load_model(run.beginning).weights, pretrain(tiny_pretraining(steps=2))
    assert all(bool((found[name] == expected[name]).all()) for name in expected)
    state = read_state(run.path)
    assert state is not None
    assert (state.state, state.text) == ("starting", f"{PRETRAINING}: step 2 of 2")


def test_a_stop_ends_it_between_two_steps(tmp_path: Path) -> None:
    goes_on, _, run = begun(tmp_path, StopRequest(requested=True))
    assert not goes_on
    assert not run.beginning.exists()
