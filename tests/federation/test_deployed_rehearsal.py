"""A rehearsal over TLS: one site gone for a round, one that sends NaN; seen, survived, told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nognet_server.runs.folder import RunFolder

from nognet.fit.model_file import load_model
from nognet.report.metrics_file import read_metrics
from tests.builders.deployment import Deployment, build_deployment, deployment

pytestmark = pytest.mark.federation
NAMES = ("hospital_a", "hospital_b")
FAULTS = "drop:hospital_b@1, nan:hospital_a@2, slow:hospital_c x9"
LENIENT = {"minimum_sites": 1, "expected_sites": 2, "quorum": 0.5, "join_timeout_s": 120}


def run(built: Deployment, *chaos: str) -> tuple[str, dict[str, str]]:
    server = built.server()
    clients = {name: built.client(name, *chaos) for name in NAMES}
    assert server.wait(240) == 0, server.output
    return server.output, {name: client.output for name, client in clients.items()}


def test_faults_are_seen_survived_and_told(tmp_path: Path) -> None:
    with deployment(tmp_path, NAMES, rehearsal=True, federation=LENIENT) as built:
        for name in NAMES:
            built.edit(built.site_file(name), rehearsal=True)
        told, outputs = run(built, "--chaos", FAULTS)
        folder = RunFolder(built.runs / "tiny")
        metrics = read_metrics(folder.path)
        assert {
            (entry.round, site): part.reason
            for entry in metrics.rounds
            for site, part in entry.sites.items()
            if part.status != "ok"
        } == {(1, "hospital_b"): "SiteDropped:chaos", (2, "hospital_a"): "WireError:non-finite"}
        assert metrics.sites["hospital_a"].joined["faults"] == "nan"
        assert "REHEARSAL: hospital_a fails on purpose: nan" in told
        assert "REHEARSAL: hospital_b fails on purpose: drop" in told
        start = "REHEARSAL: this site fails on purpose: nan:hospital_a@2"
        assert start in outputs["hospital_a"]
        assert "chaos: nan:hospital_a@2 in round 2" in outputs["hospital_a"]
        assert "chaos: hospital_b is gone in round 1" in outputs["hospital_b"]
        assert load_model(folder.model).provenance["rehearsal"] is True
        assert "A rehearsal: hospital_a (nan)" in folder.report.read_text("utf-8")

        asked = built.run("client", "status", "--site", str(built.site_file("hospital_a")))
        assert "fails on purpose: nan:hospital_a@2" in asked.stdout
        shown = built.run("server", "rehearsal", "--run", str(folder.path), "--json")
        assert json.loads(shown.stdout)["events"] == [
            {"round": 1, "site": "hospital_b", "reason": "SiteDropped:chaos"},
            {"round": 2, "site": "hospital_a", "reason": "WireError:non-finite"},
        ]
        assert json.loads(shown.stdout)["chaos"] == "nan:hospital_a, drop:hospital_b"


def test_chaos_is_refused_where_the_site_is_for_real_runs(tmp_path: Path) -> None:
    built = build_deployment(tmp_path)
    site = str(built.site_file("hospital_a"))
    done = built.run("client", "--site", site, "--chaos", "drop@1")
    assert done.returncode == 3
    assert "site.yaml does not say `rehearsal: true`" in done.stderr
    assert "connecting" not in done.stderr
