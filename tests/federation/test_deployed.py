"""A deployed federation: server and two clients as processes, TLS, node authentication."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from nognet_server.app import app as server_app
from nognet_server.runs.flower_config import RunSettings
from nognet_server.runs.folder import RunFolder
from nognet_server.simulation.engine import SimulatedSite, load_client_app, simulate

from nognet.config import load_study
from tests.builders.deployment import Deployment, Running, deployment, wait_until_gone

pytestmark = pytest.mark.federation


@dataclass(frozen=True)
class Completed:
    """A deployed run to its end, the clients still waiting for another."""

    deployment: Deployment
    exit_code: int
    server: Running
    clients: dict[str, Running]
    server_pids: list[int]

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.deployment.runs / "tiny")

    @property
    def metrics(self) -> Any:
        return json.loads(self.folder.metrics.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def completed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Completed]:
    folder = tmp_path_factory.mktemp("deployed")
    own = {"local": "norms", "fine_tune_steps": 1, "cross_site": "personalised"}
    with deployment(folder, personalisation=own) as built:
        for name in built.sites:
            built.edit(built.site_file(name), share_models=True)
        server = built.server()
        clients = built.clients()
        server.wait_for("round 1 of 2: training", 120)
        pids = server.family()
        yield Completed(built, server.wait(120), server, clients, pids)


def test_the_run_completes_with_exit_code_0(completed: Completed) -> None:
    assert completed.exit_code == 0, completed.server.output


def test_every_site_took_part_in_every_round(completed: Completed) -> None:
    metrics = completed.metrics
    assert metrics["status"] == "completed"
    took_part = [
        {name: entry["status"] for name, entry in played["sites"].items()}
        for played in metrics["rounds"]
    ]
    assert took_part == [{"hospital_a": "ok", "hospital_b": "ok"}] * 2
    assert set(metrics["final"]["sites"]) == {"hospital_a", "hospital_b"}


def test_each_site_has_its_own_model_and_the_models_visited(completed: Completed) -> None:
    final, sites = completed.metrics["final"], {"hospital_a", "hospital_b"}
    assert {site for site in sites if "personalised" in final["sites"][site]["test"]} == sites
    assert {model: set(at) for model, at in final["cross_site"].items()} == dict.fromkeys(
        sites, sites
    )
    for site in sites:
        state = completed.deployment.folder / site / "state"
        assert len(list(state.glob("personal/*/personal.nognet"))) == 1


def test_the_result_is_printed_at_the_end(completed: Completed) -> None:
    result = completed.server.output.partition("evaluate on test: ")[2]
    assert all(word in result for word in ("PSNR", "DSC", "hospital_a", "hospital_b"))
    assert completed.folder.model.is_file()
    assert completed.folder.report.is_file()


def test_the_server_leaves_no_process_behind(completed: Completed) -> None:
    assert len(completed.server_pids) >= 4  # supervisor, SuperLink, executor, ServerApp
    assert wait_until_gone(completed.server_pids) == []


def test_clients_say_what_they_do_and_wait_for_another_run(completed: Completed) -> None:
    client = completed.clients["hospital_b"]
    client.wait_for("lost the coordinator .* trying again|waiting for the coordinator", 30)
    lines = ("connected to 127", "joining a run", "training, round 2: done in", "evaluating")
    for line in (*lines, "giving its model to visit other sites"):
        assert line in client.output
    assert client.process.poll() is None


def test_nothing_of_the_bundle_is_unpacked_at_a_site(completed: Completed) -> None:
    flower_home = completed.deployment.folder / "hospital_a" / "state" / "flower"
    assert flower_home.is_dir()
    assert [p for p in flower_home.rglob("*") if p.suffix in {".py", ".toml"}] == []


def test_secrets_are_for_their_owner_only(completed: Completed) -> None:
    state = completed.deployment.folder / "coordinator" / "server-state"
    secrets = [state / "control.token", state / "executor.secret", state / "loopback/server.key"]
    assert {path.stat().st_mode & 0o777 for path in secrets} == {0o600}
    assert state.stat().st_mode & 0o777 == 0o700


def test_a_simulated_run_ends_with_the_same_bits(completed: Completed, tmp_path: Path) -> None:
    study = load_study(completed.deployment.study).model_copy(update={"runs": tmp_path})
    folder = RunFolder(tmp_path / "simulated")
    folder.path.mkdir()
    sites = [
        SimulatedSite(name, _with_own_state(completed.deployment, name, tmp_path), threads=1)
        for name in completed.deployment.sites
    ]
    simulate(server_app, load_client_app(), sites, RunSettings(study, folder.path), workers=1)
    for number in (0, 1, 2):
        assert _weights(folder.checkpoint(number)) == _weights(completed.folder.checkpoint(number))


def _with_own_state(built: Deployment, name: str, folder: Path) -> Path:
    """Copy a site's configuration, with a state of its own: nothing is answered from its cache."""
    copy = built.site_file(name).with_name("simulated.yaml")
    copy.write_text(built.site_file(name).read_text(encoding="utf-8"), encoding="utf-8")
    built.edit(copy, state=str(folder / name))
    return copy


def _weights(checkpoint: Path) -> dict[str, bytes]:
    """Read the tensors of a checkpoint as bytes, past our own reader."""
    from safetensors import safe_open

    with safe_open(checkpoint, framework="np") as file:
        return {key: file.get_tensor(key).tobytes() for key in file.keys()}  # noqa: SIM118  safetensors' own keys()
