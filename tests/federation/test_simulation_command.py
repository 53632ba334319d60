"""`nognet-sim` as users meet it: messages, exit codes, Ctrl-C, resume."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from nognet_server.runs.checkpoints import load_weights
from nognet_server.runs.folder import RunFolder
from nognet_server.simulation.commands import main

from nognet.fit.weights import weight_spec
from nognet.report.metrics_file import read_metrics
from nognet.wire.flat import flat_length
from tests.builders.federation import make_site, make_study


def write_study_yaml(folder: Path, **changes: Any) -> Path:
    values = make_study(folder, **changes).model_dump(mode="json", exclude_none=True)
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def sim(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    """Run the command in this process; give exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["nognet-sim", *map(str, arguments)])
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        main()
    signal.signal(signal.SIGTERM, handler)
    shown = capsys.readouterr()
    code = ended.value.code
    assert isinstance(code, int)
    return code, shown.out, shown.err


def test_a_tiny_seeded_run_gives_the_stored_figures_and_a_full_run_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    """Golden: figures to a tolerance, since bits differ between processors."""
    study = write_study_yaml(tmp_path)
    sites = [make_site(tmp_path, name) for name in ("site_a", "site_b")]
    code, out, err = sim(monkeypatch, capsys, "--study", study, "--json", "--sites", *sites)
    assert code == 0
    assert "round 2 of 2: validation dsc" in err
    found = {
        f"{site}|{predictor}|{metric}": figure["mean"]
        for site, entry in json.loads(out)["final"]["sites"].items()
        for predictor, figures in entry["test"].items()
        for metric, figure in figures.items()
    }
    stored = Path(__file__).parent / "golden_tiny_run.json"
    if request.config.getoption("--regenerate-golden"):
        stored.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")
    golden = json.loads(stored.read_text())
    undefined = {name for name, value in golden.items() if value is None}
    assert {name for name, value in found.items() if value is None} == undefined
    known = {name: value for name, value in golden.items() if name not in undefined}
    assert {name: found[name] for name in known} == pytest.approx(known, rel=2e-3, abs=2e-4)
    assert set(found) == set(golden)
    folder = tmp_path / "runs" / "tiny"
    names = {path.name for path in folder.iterdir()}
    expected = {"study.yaml", "metrics.json", "model.nognet", "report.html", "checkpoints", "logs"}
    assert expected <= names
    assert "round 2 of 2" in (folder / "logs" / "simulation.log").read_text()


def test_a_misspelt_key_is_named_with_the_right_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write_study_yaml(tmp_path)
    study.write_text(study.read_text() + "roundz: 4\n")
    site = make_site(tmp_path, "site_a")
    code, out, err = sim(monkeypatch, capsys, "--study", study, "--sites", site)
    assert (code, out) == (3, "")
    assert "roundz: unknown key; did you mean 'rounds'?" in err
    assert not (tmp_path / "runs").exists()


def test_a_missing_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write_study_yaml(tmp_path)
    missing = tmp_path / "nowhere" / "site.yaml"
    code, _, err = sim(monkeypatch, capsys, "--study", study, "--sites", missing)
    assert code == 3
    assert f"{missing}: no such file" in err


def test_a_site_without_studies_ends_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study, site = write_study_yaml(tmp_path), make_site(tmp_path, "site_a")
    shutil.rmtree(site.parent / "cache")
    code, _, err = sim(monkeypatch, capsys, "--study", study, "--sites", site)
    assert code == 4
    assert "studies.csv" in err
    assert not (tmp_path / "runs").exists()


def test_an_empty_site_ends_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study, site = write_study_yaml(tmp_path), make_site(tmp_path, "site_a")
    (site.parent / "studies.csv").write_text("patient,nodule,date,image,mask,segment\n")
    code, _, err = sim(monkeypatch, capsys, "--study", study, "--sites", site)
    assert code == 4
    assert "studies.csv" in err
    assert not (tmp_path / "runs").exists()


def test_two_sites_of_one_name_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write_study_yaml(tmp_path)
    one, two = make_site(tmp_path / "x", "site_a"), make_site(tmp_path / "y", "site_a")
    code, _, err = sim(monkeypatch, capsys, "--study", study, "--sites", one, two)
    assert code == 3
    assert "two sites are named 'site_a'" in err


def test_a_site_of_another_roi_is_refused_naming_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write_study_yaml(tmp_path, roi={"size_vox": 48})
    site = make_site(tmp_path, "site_a")
    code, _, err = sim(monkeypatch, capsys, "--study", study, "--sites", site)
    assert code == 8
    assert "32 voxels" in err
    assert "48 voxels" in err


def test_fewer_sites_than_the_study_needs_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write_study_yaml(tmp_path, federation={"minimum_sites": 2})
    site = make_site(tmp_path, "site_a")
    code, _, err = sim(monkeypatch, capsys, "--study", study, "--sites", site)
    assert code == 3
    assert "minimum_sites" in err


def test_a_folder_without_a_run_cannot_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site = make_site(tmp_path, "site_a")
    code, _, err = sim(monkeypatch, capsys, "--resume", tmp_path, "--sites", site)
    assert code == 3
    assert "no run to resume" in err


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_within_seconds_and_resumes_to_the_same_bits(
    tmp_path: Path, how: signal.Signals
) -> None:
    training = {"steps_per_round": 8, "batch_size": 2, "warmup_steps": 0}
    study_path = write_study_yaml(tmp_path, rounds=2, training=training)
    study = make_study(tmp_path, rounds=2, training=training)
    sites = [str(make_site(tmp_path, name)) for name in ("site_a", "site_b")]
    command = [sys.executable, "-c", "from nognet_server.simulation.commands import main; main()"]
    options = ["--study", str(study_path), "--sites", *sites]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*command, *options], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "site_b: round 2 of 2, training" in line:
                break
        time.sleep(0.2)
        process.send_signal(how)
        interrupted = time.monotonic()
        rest = process.stderr.read()
        assert process.wait() == 130
    assert time.monotonic() - interrupted < 10
    folder = tmp_path / "runs" / "tiny"
    resume = f"nognet-sim --resume {folder} --sites {' '.join(sites)}"
    assert resume in rest
    assert read_metrics(folder).status == "interrupted"

    if how == signal.SIGTERM:
        return  # what is left is the same
    again = ["--resume", str(folder), "--sites", *sites]
    subprocess.run([*command, *again], check=True, capture_output=True, env=environment)
    subprocess.run([*command, *options], check=True, capture_output=True, env=environment)
    length = flat_length(weight_spec(study.network))
    resumed = load_weights(RunFolder(folder), 2, length=length)
    whole = load_weights(RunFolder(tmp_path / "runs" / "tiny-2"), 2, length=length)
    assert np.array_equal(resumed, whole)
