"""One study, three ways: deployed, deployed and resumed after a kill, simulated: the same bits."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from nognet_server.app import app
from nognet_server.runs.flower_config import RunSettings
from nognet_server.runs.folder import RunFolder
from nognet_server.simulation.engine import SimulatedSite, load_client_app, simulate
from safetensors import safe_open

from nognet.config import load_study
from nognet.pki.authority import CoordinatorFiles
from tests.builders.deployment import Deployment, deployment, kill, wait_until_gone
from tests.builders.terminating_proxy import TerminatingProxy

pytestmark = [pytest.mark.federation, pytest.mark.slow]
ROUNDS = 3


@pytest.mark.parametrize(
    "strategy",
    [
        {"name": "fedavg", "weighting": "patients"},
        {"name": "fedadam", "server_learning_rate": 0.01},
    ],
    ids=["fedavg", "fedadam"],
)
def test_deployed_resumed_and_simulated_runs_have_the_same_bits(
    strategy: dict[str, Any], tmp_path: Path
) -> None:
    straight = deployed(tmp_path / "straight", strategy, is_killed=False)
    resumed = deployed(tmp_path / "resumed", strategy, is_killed=True)
    for number in range(ROUNDS + 1):
        arrays = arrays_of(straight, number)
        assert set(arrays) == (
            {"weights", "strategy.m", "strategy.v"}
            if strategy["name"] == "fedadam" and number > 0
            else {"weights"}
        )
        assert arrays_of(resumed, number) == arrays
    simulated = simulate_as(tmp_path / "straight", tmp_path / "simulated")
    for number in range(ROUNDS + 1):
        assert arrays_of(simulated, number) == arrays_of(straight, number)


def test_a_proxy_that_ends_tls_and_restarts_in_mid_training_costs_no_bit(tmp_path: Path) -> None:
    """Both sites reach the coordinator through it alone; it is away for a while as they train."""
    slow = {"steps_per_round": 30, "batch_size": 2, "warmup_steps": 0}
    folder = tmp_path / "behind"
    folder.mkdir()
    with deployment(folder, training=slow, rounds=1) as built:
        files = CoordinatorFiles(folder / "coordinator" / "pki")
        with TerminatingProxy(files, built.port, folder / "proxy") as proxy:
            for name in built.sites:
                built.edit_server(built.site_file(name), address=f"127.0.0.1:{proxy.port}")
            server, clients = built.server(), built.clients()
            for client in clients.values():
                client.wait_for("training, round 1", 150)
            proxy.stop()
            before = proxy.served
            assert not any("training, round 1: done" in c.output for c in clients.values())
            for client in clients.values():
                client.wait_for("lost the coordinator", 30)
            proxy.start()
            assert server.wait(150) == 0, server.output
        assert proxy.served > before > 0
        for client in clients.values():
            assert f"reconnected to 127.0.0.1:{proxy.port}" in client.output
            assert len(re.findall("training, round 1: done", client.output)) == 1
        run = RunFolder(built.runs / "tiny")
    simulated = simulate_as(folder, tmp_path / "simulated")
    for number in range(2):
        assert arrays_of(simulated, number) == arrays_of(run, number)


def deployed(folder: Path, strategy: dict[str, Any], *, is_killed: bool) -> RunFolder:
    """Run the study over TLS; with a server killed in the second round, and resumed."""
    folder.mkdir()
    with deployment(folder, rounds=ROUNDS, strategy=strategy) as built:
        server = built.server()
        built.clients()
        run = RunFolder(built.runs / "tiny")
        if is_killed:
            server.wait_for("round 2 of 3: training at", 120)
            family = server.family()
            kill(server.process.pid)
            server.process.wait()
            assert wait_until_gone(family) == []
            server = built.server("--resume", str(run.path))
        assert server.wait(240) == 0, server.output
        return run


def simulate_as(built_in: Path, folder: Path) -> RunFolder:
    """Simulate the study of a deployment, each site with a state of its own."""
    sites = ("hospital_a", "hospital_b")
    built = Deployment(built_in, sites, 0, 0)
    study = load_study(built.study).model_copy(update={"runs": folder})
    run = RunFolder(folder / "run")
    run.path.mkdir(parents=True)
    simulated = []
    for name in sites:
        copy = built.site_file(name).with_name("simulated.yaml")
        copy.write_text(built.site_file(name).read_text("utf-8"), "utf-8")
        built.edit(copy, state=str(folder / name))
        simulated.append(SimulatedSite(name, copy, threads=1))
    simulate(app, load_client_app(), simulated, RunSettings(study, run.path), workers=1)
    return run


def arrays_of(run: RunFolder, number: int) -> dict[str, bytes]:
    """Read a checkpoint's arrays as bytes, past our own reader."""
    with safe_open(run.checkpoint(number), framework="np") as file:
        return {key: file.get_tensor(key).tobytes() for key in file.keys()}  # noqa: SIM118  safetensors' own keys()
