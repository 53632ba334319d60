"""Choices of a study through whole simulations: strategy, weighting, privacy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nognet_server.runs.checkpoints import load_weights

from nognet.fit.weights import weight_spec
from nognet.wire.flat import FlatWeights, flat_length
from tests.builders.federation import make_site, make_study, run

PRIVACY = {"noise_multiplier": 1.0, "clip_norm": 0.5, "delta": 1e-3}


def simulated(folder: Path, **changes: Any) -> tuple[FlatWeights, Any]:
    """Run two sites of three and six training patients; give the last weights and the figures."""
    sites = [make_site(folder, "site_a"), make_site(folder, "site_b", pairs=14)]
    if "site_privacy" in changes:
        privacy = json.dumps(changes.pop("site_privacy"))
        sites[0].write_text(sites[0].read_text() + f"privacy: {privacy}\n")
    study = make_study(folder, **changes)
    done = run(study, sites)
    length = flat_length(weight_spec(study.network))
    figures = json.loads(done.metrics.read_text(encoding="utf-8"))
    assert figures["status"] == "completed"
    return load_weights(done, study.rounds, length=length), figures


def test_each_strategy_runs_and_is_another_one(tmp_path: Path) -> None:
    choices: dict[str, dict[str, Any]] = {
        "patients": {"name": "fedavg", "weighting": "patients"},
        "equal": {"name": "fedavg", "weighting": "equal"},
        "fedprox": {"name": "fedprox", "weighting": "patients", "proximal_mu": 10.0},
        "fedadam": {"name": "fedadam", "weighting": "patients"},
    }
    ends: list[FlatWeights] = []
    for name, strategy in choices.items():
        weights, figures = simulated(tmp_path / name, strategy=strategy, rounds=1)
        shares = {site: e["weight"] for site, e in figures["rounds"][0]["sites"].items()}
        expected = 0.5 if name == "equal" else 1 / 3
        assert shares == pytest.approx({"site_a": expected, "site_b": 1 - expected})
        assert not any(np.array_equal(weights, other) for other in ends)
        ends.append(weights)


def spent(figures: Any) -> dict[str, list[float | None]]:
    """Epsilon by site, round after round."""
    rounds = [played["sites"] for played in figures["rounds"]]
    return {s: [sites[s]["train"]["epsilon"] for sites in rounds] for s in ("site_a", "site_b")}


def test_the_studys_privacy_is_spent_at_every_site_and_told_by_round(tmp_path: Path) -> None:
    _, figures = simulated(tmp_path, privacy=PRIVACY)
    for first, second in spent(figures).values():
        assert first is not None
        assert second is not None
        assert 0 < first < second
    trained = [e["train"] for played in figures["rounds"] for e in played["sites"].values()]
    assert [(t["delta"], t["loss"]) for t in trained] == [(1e-3, None)] * 4


def test_a_sites_own_privacy_is_spent_there_alone(tmp_path: Path) -> None:
    _, figures = simulated(tmp_path, site_privacy=PRIVACY)
    epsilons = spent(figures)
    assert all(epsilon is not None and epsilon > 0 for epsilon in epsilons["site_a"])
    assert epsilons["site_b"] == [None, None]
