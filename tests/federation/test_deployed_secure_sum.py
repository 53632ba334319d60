"""A secure sum deployed: three sites over TLS, each with the others' keys in its own folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nognet_server.app import app
from nognet_server.runs.flower_config import RunSettings
from nognet_server.runs.folder import RunFolder
from nognet_server.simulation.engine import SimulatedSite, load_client_app, simulate
from safetensors.numpy import load_file

from nognet.config import load_study
from tests.builders.deployment import Deployment, deployment

pytestmark = [pytest.mark.federation, pytest.mark.slow]
SITES = ("hospital_a", "hospital_b", "hospital_c")
HALF_A_STEP = 0.5 / (2**23 - 1) / 2 + 1e-7  # and float32's own


def test_a_deployed_secure_sum_gives_the_weights_of_a_plain_run(tmp_path: Path) -> None:
    study: dict[str, Any] = {
        "rounds": 1,
        "secure_aggregation": {"bits": 24, "max_weight": 50},
        "federation": {"minimum_sites": 3, "join_timeout_s": 120, "round_timeout_s": 120},
    }
    with deployment(tmp_path / "deployed", SITES, **study) as built:
        _hand_over_keys(built)
        server = built.server()
        built.clients()
        assert server.wait(240) == 0, server.output
        deployed = RunFolder(built.runs / "tiny")
        metrics = json.loads(deployed.metrics.read_text(encoding="utf-8"))
        [played] = metrics["rounds"]
        assert played["secure_sum"]["sites"] == 3
        assert {part["status"] for part in played["sites"].values()} == {"ok"}
        assert all(part["train"]["loss"] is None for part in played["sites"].values())
        plain = _plain(built, tmp_path)
        difference = _weights(deployed) - _weights(plain)
    assert 0 < np.abs(difference).max() <= HALF_A_STEP


def test_noise_of_the_sites_leaves_three_machines_and_their_records_say_so(tmp_path: Path) -> None:
    central = {"noise_multiplier": 1.5, "clip_norm": 0.5, "delta": 1e-3, "max_epsilon": 20}
    study: dict[str, Any] = {
        "rounds": 1,
        "strategy": {"name": "fedavg", "weighting": "equal"},
        "secure_aggregation": {},
        "central_privacy": central,
        "federation": {
            "minimum_sites": 3,
            "expected_sites": 3,
            "join_timeout_s": 120,
            "round_timeout_s": 120,
        },
    }
    with deployment(tmp_path / "deployed", SITES, **study) as built:
        _hand_over_keys(built)
        server, clients = built.server(), built.clients()
        assert server.wait(240) == 0, server.output
        deployed = RunFolder(built.runs / "tiny")
        entry = json.loads(deployed.metrics.read_text(encoding="utf-8"))["central_privacy"]
        assert (entry["noise_from"], entry["honest_sites"], entry["releases"]) == ("sites", 2, 1)
        assert all("a share for 2 sites" in client.output for client in clients.values())
        moved = _weights(deployed) - np.asarray(load_file(deployed.checkpoint(0))["weights"])
    assert moved.std() == pytest.approx(1.5 * 0.5 / 2**0.5 * 3**0.5 / 3, rel=0.02)


def test_a_site_that_knows_another_key_of_a_peer_gives_nothing(tmp_path: Path) -> None:
    study: dict[str, Any] = {
        "rounds": 1,
        "secure_aggregation": {},
        "federation": {"minimum_sites": 3, "join_timeout_s": 120, "round_timeout_s": 120},
    }
    with deployment(tmp_path / "deployed", SITES, **study) as built:
        _hand_over_keys(built)
        peers = built.folder / "hospital_a" / "peers"
        shutil.copy(peers / "hospital_c.pub", peers / "hospital_b.pub")
        (peers / "hospital_c.pub").unlink()
        server, client = built.server(), built.clients()["hospital_a"]
        assert server.wait(240) == 9, server.output
        assert "hospital_a (PrivacyError:secure-unknown-key)" in server.output
        assert "hospital_b signs with another key than the registered one" in client.output


def _hand_over_keys(built: Deployment) -> None:
    """Give each site the others' public keys, as people do it."""
    for name in built.sites:
        folder = built.folder / name / "peers"
        folder.mkdir()
        for other in built.sites:
            shutil.copy(built.folder / other / "keys" / f"{other}.pub", folder)
        chosen = {"peers": "peers", "required": False}
        built.edit(built.site_file(name), secure_aggregation=chosen)


def _plain(built: Deployment, folder: Path) -> RunFolder:
    """Simulate the study without secure sums, at the same sites."""
    study = load_study(built.study).model_copy(update={"runs": folder, "secure_aggregation": None})
    run = RunFolder(folder / "plain")
    run.path.mkdir()
    sites = []
    for name in built.sites:
        path = built.site_file(name).with_name("simulated.yaml")
        shutil.copy(built.site_file(name), path)
        built.edit(path, state="simulated")
        sites.append(SimulatedSite(name, path, threads=1))
    simulate(app, load_client_app(), sites, RunSettings(study, run.path), workers=1)
    return run


def _weights(folder: RunFolder) -> np.ndarray:
    return np.asarray(load_file(folder.checkpoint(1))["weights"])
