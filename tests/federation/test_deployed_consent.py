"""A deployed federation with a site that declines: over TLS, shown so, and the run goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nognet_server.runs.folder import RunFolder

from nognet.report.metrics_file import read_metrics
from tests.builders.deployment import deployment

pytestmark = [pytest.mark.federation, pytest.mark.slow]


def test_a_hospital_declines_over_tls_and_waits_for_a_study_that_it_accepts(tmp_path: Path) -> None:
    limits = {"minimum_sites": 1, "expected_sites": 1}
    with deployment(tmp_path, federation=limits) as built:
        accepts, declines = sorted(built.sites)
        built.edit(built.site_file(accepts), consent={"max_rounds": 2})
        built.edit(built.site_file(declines), consent={"max_rounds": 1})
        clients = built.clients()
        clients[declines].wait_for("waiting for a round|waiting for the coordinator", 120)
        server = built.server()
        assert server.wait(240) == 0, server.output
        clients[declines].wait_for("joining a run: done", 30)
        metrics = read_metrics(RunFolder(built.runs / "tiny").path)
        assert list(metrics.sites) == [accepts]
        assert "declined the study (consent-max-rounds)" in metrics.refused[declines]
        state = json.loads((built.site_file(declines).parent / "state/status.json").read_text())
        assert state["state"] in {"waiting", "connecting", "lost"}
