"""`nognet-sim --chaos`: faults on purpose, what they did, what they cost."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from nognet_client.chaos import CLOCK, chaotic_app
from nognet_server.app import app
from nognet_server.rehearsal import rehearsal, rehearsal_lines
from nognet_server.runs.flower_config import RunSettings
from nognet_server.runs.folder import RunFolder, new_run_folder, write_study
from nognet_server.simulation.commands import main
from nognet_server.simulation.engine import SimulatedSite, simulate

from nognet.report.metrics_file import read_metrics
from nognet.report.metrics_schema import RunMetrics
from tests.builders.federation import make_site, make_study, stub_work

NAMES = ("site_a", "site_b", "site_c", "site_d")


def rehearse(
    folder: Path, chaos: str, *, names: Sequence[str] = NAMES, **changes: Any
) -> tuple[RunMetrics, list[float]]:
    study = make_study(folder, **{"rounds": 3, **changes})
    sites = [SimulatedSite(name, make_site(folder, name), threads=1) for name in names]
    run: RunFolder = new_run_folder(study)
    write_study(run, study)
    settings = RunSettings(study, run.path, closed_roster=len(sites), poll_s=0.02)
    slept: list[float] = []
    simulate(app, chaotic_app(chaos, stub_work(), sleep=slept.append), sites, settings, workers=2)
    return read_metrics(run.path), slept


def left_out(metrics: RunMetrics) -> dict[tuple[int, str], str | None]:
    return {
        (entry.round, site): part.reason
        for entry in metrics.rounds
        for site, part in entry.sites.items()
        if part.status != "ok"
    }


def test_each_fault_strikes_where_and_when_it_is_told_to(tmp_path: Path) -> None:
    metrics, slept = rehearse(
        tmp_path,
        "drop:site_a@1, nan:site_b@2, oom:site_c@3, slow:site_d@2 x5, skew:site_d@3+4s",
    )
    assert left_out(metrics) == {
        (1, "site_a"): "SiteDropped:chaos",
        (2, "site_b"): "WireError:non-finite",
        (3, "site_c"): "MemoryError:unexpected",
    }
    assert metrics.status == "completed"
    assert len(slept) == 1


def test_a_site_whose_training_diverged_once_is_back_in_the_next_round(tmp_path: Path) -> None:
    """Of what stays at the site nothing of the round is kept, so it evaluates and trains on."""
    own = {"local": "norms+head"}
    metrics, _ = rehearse(tmp_path, "nan:site_c@2", names=NAMES[1:3], personalisation=own)
    assert left_out(metrics) == {(2, "site_c"): "WireError:non-finite"}
    assert metrics.status == "completed"
    for entry in metrics.rounds:
        assert entry.sites["site_c"].validation, entry.round
    kept = (path.name for path in (tmp_path / "site_c" / "state" / "personal").rglob("*.local"))
    assert sorted(kept) == ["00001.local", "00003.local"]


def test_a_poisoned_update_points_the_other_way(tmp_path: Path) -> None:
    metrics, _ = rehearse(tmp_path, "poison:site_d x100", rounds=1)
    assert left_out(metrics) == {(1, "site_d"): "update-norm"}
    mild, _ = rehearse(tmp_path / "mild", "poison:site_d", rounds=1)
    assert left_out(mild) == {}
    norms = {
        site: part.train.update_norm for site, part in mild.rounds[0].sites.items() if part.train
    }
    assert norms["site_d"] == pytest.approx(norms["site_a"], rel=1e-3)


def test_a_clock_within_the_limits_changes_no_bit(tmp_path: Path) -> None:
    skewed, _ = rehearse(tmp_path, "skew:site_a+4s, skew:site_b-300s", rounds=2)
    calm, _ = rehearse(tmp_path / "calm", "drop:site_a@9", rounds=2)
    assert left_out(skewed) == {}
    assert skewed.final is not None
    assert calm.final is not None
    assert skewed.final.pooled == calm.final.pooled


def test_a_clock_past_the_limits_leaves_a_site_out_as_it_would_a_deployed_one(
    tmp_path: Path,
) -> None:
    metrics, _ = rehearse(tmp_path, "skew:site_b+300s, skew:site_c@2-305s", rounds=2)
    assert left_out(metrics) == {
        (1, "site_b"): CLOCK,
        (2, "site_b"): CLOCK,
        (2, "site_c"): CLOCK,
    }
    assert CLOCK == "ProvisionError:clock"
    assert metrics.status == "completed"
    run = RunFolder(tmp_path / "runs" / "tiny")
    found = rehearsal("skew:site_b+300s, skew:site_c@2-305s", run, None)
    assert {event["reason"] for event in found["events"]} == {CLOCK}
    assert "5 s ahead or 305 s behind" in found["rehearses"]["skew"]
    assert any("skew rehearses a site's clock" in line for line in rehearsal_lines(found))
    assert rehearsal("drop:site_b", run, None)["rehearses"] == {}


def test_the_command_compares_with_the_study_without_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study.yaml"
    values = make_study(tmp_path, rounds=2).model_dump(mode="json", exclude_none=True)
    study.write_text(yaml.safe_dump(values))
    sites = [make_site(tmp_path, name) for name in NAMES[:2]]
    chaos = "drop:site_b@2"
    arguments = ["--study", study, "--chaos", chaos, "--sites", *sites]
    monkeypatch.setattr(sys, "argv", ["nognet-sim", *map(str, arguments)])
    handler = signal.getsignal(signal.SIGTERM)
    started = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        main()
    signal.signal(signal.SIGTERM, handler)
    assert ended.value.code == 0
    assert time.monotonic() - started < 120
    found = json.loads((tmp_path / "runs" / "tiny" / "chaos.json").read_text())
    assert found["events"] == [{"round": 2, "site": "site_b", "reason": "SiteDropped:chaos"}]
    figures = found["test"]["psnr"]
    with_faults, calm = (read_metrics(tmp_path / "runs" / name) for name in ("tiny", "tiny-2"))
    for metrics, value in ((with_faults, figures["chaos"]), (calm, figures["calm"])):
        assert metrics.final is not None
        assert metrics.final.pooled is not None
        assert metrics.final.pooled.test["federated"]["psnr"].mean == value
    assert left_out(calm) == {}
    out = capsys.readouterr().out
    assert "round 2: site_b left out: SiteDropped:chaos" in out
    assert f"{figures['chaos'] - figures['calm']:+.4f}" in out
