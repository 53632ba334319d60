"""The threads of a simulation: what ends one of them ends it all, and is what is told."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from nognet_server.runs.flower_config import RunSettings
from nognet_server.simulation import engine

from tests.builders.federation import make_study


def asking_for_ever() -> ServerApp:
    app = ServerApp()

    @app.main()
    def main(grid: Grid, _: Context) -> None:
        while True:
            grid.get_node_ids()
            time.sleep(0.01)

    return app


def crashes(*_: object) -> None:
    raise RuntimeError("the fleet crashed")


def test_a_crash_of_the_fleet_is_told_and_not_the_interrupt_that_it_causes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "serve_nodes", crashes)
    sites = [engine.SimulatedSite("site_a", tmp_path / "site.yaml")]
    settings = RunSettings(make_study(tmp_path), tmp_path / "run")
    with pytest.raises((RuntimeError, KeyboardInterrupt)) as caught:
        engine.simulate(asking_for_ever(), ClientApp(), sites, settings, workers=1)
    assert repr(caught.value) == "RuntimeError('the fleet crashed')"
