from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from nognet.commands.main import app
from nognet.config import NetworkConfig
from nognet.errors import NognetError
from nognet.fit import measuring, step_cost
from nognet.fit.step_cost import StepPlan, measure_step
from nognet.fit.weights import initial_weights
from nognet.phantom import bench_series

TINY = ("--roi", "32", "--width", "4", "--batch", "1", "--repeats", "1", "--threads", "1")


def benchmark(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["benchmark", "step", *arguments])


def test_it_measures_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_cost, "STEPS", 2)  # fewer and smaller: the figures aren't looked at
    monkeypatch.setattr(step_cost, "_PEAKS", 1)
    monkeypatch.setattr(measuring, "_CONV_SHAPES", ((4, 32, 16),))
    result = benchmark("--device", "cpu", "--json", *TINY)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["torch"] == torch.__version__
    cost = found["measured"]
    weights = initial_weights(NetworkConfig(width=4), 1)
    assert cost["parameters"] == sum(tensor.numel() for tensor in weights.values())
    assert cost["ratio_range"][0] <= cost["ratio"] <= cost["ratio_range"][1]
    # an evaluation holds a prediction; the factor is for a machine that other work disturbs
    assert 0 < cost["predict_pair_s"] < 3 * cost["evaluate_pair_s"]
    reached = cost["step_gflop"] / cost["sample_s"] / cost["conv_peak_gflops"]
    assert cost["share_of_peak"] == pytest.approx(reached)
    assert 0 < cost["share_of_peak"] < 1.5
    # both are mostly torch itself here; a process's own peak, not that of this one
    assert 0.5 < cost["peak_mib"] / cost["bare_peak_mib"] < 2


@pytest.mark.slow
def test_a_step_under_privacy_is_measured_against_one_without() -> None:
    tiny = ("--roi", "32", "--width", "4", "--batch", "2", "--repeats", "2", "--threads", "1")
    result = benchmark("--dp", "--json", *tiny)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["measured"]
    assert set(found) == {"plain", "private", "opacus"}
    assert (found["plain"]["ratio"], found["plain"]["memory_ratio"]) == (1.0, 1.0)
    for cost in found.values():
        low, high = cost["ratio_quartiles"]
        assert 0 < low <= cost["ratio"] <= high
        peak, plain = cost["peak_mib"], found["plain"]["peak_mib"]
        assert cost["memory_ratio"] == pytest.approx(peak / plain)
        without = (peak - cost["import_mib"]) / plain
        assert cost["memory_ratio_without_import"] == pytest.approx(without)
    assert found["plain"]["import_mib"] == 0
    assert 10 < found["private"]["import_mib"] == found["opacus"]["import_mib"] < 1000


def test_the_work_of_a_step_grows_with_the_batch(tmp_path: Path) -> None:
    def gflop(batch_size: int) -> float:
        plan = StepPlan(roi_size_vox=32, width=4, batch_size=batch_size)
        cpu = torch.device("cpu")
        folder = tmp_path / str(batch_size)
        study, _, prepared = step_cost.setting(plan, cpu, folder)
        pairs = prepared.pairs("train")
        assert len(pairs) == batch_size
        weights = initial_weights(study.network, 1)
        return step_cost._BareSteps(study, pairs, weights, cpu).gflop()

    assert gflop(2) == pytest.approx(2 * gflop(1), rel=0.02)


@pytest.mark.slow
def test_a_slower_training_step_shows_in_the_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = step_cost.train_round

    def slowed(*arguments: Any, progress: Any, **named: Any) -> Any:
        def told(*values: Any) -> None:
            time.sleep(0.5)
            progress(*values)

        return usual(*arguments, progress=told, **named)

    monkeypatch.setattr(step_cost, "train_round", slowed)
    plan = StepPlan(roi_size_vox=32, width=4, batch_size=1, repeats=1, threads=1)
    cost = measure_step(plan, torch.device("cpu"))
    assert cost.sample_s > 0.5
    assert cost.ratio == pytest.approx(cost.sample_s / cost.bare_sample_s)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so_and_measures_nothing() -> None:
    result = benchmark("--device", "cuda")
    assert result.exit_code == 0
    assert "not measured" in result.stdout
    found = json.loads(benchmark("--device", "cuda", "--json").stdout)
    assert found["measured"] is None


@pytest.mark.parametrize("arguments", [("--roi", "50"), ("--width", "5"), ("--batch", "0")])
def test_a_size_that_cannot_be_is_a_wrong_command_line(arguments: tuple[str, str]) -> None:
    assert benchmark(*arguments).exit_code == 2


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = bench_series.write_bench_series

    def smaller(folder: Path, **named: Any) -> list[Path]:
        return usual(folder, **named, matrix=32)

    monkeypatch.setattr(bench_series, "write_bench_series", smaller)


def ingest(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["benchmark", "ingest", *arguments])


@pytest.mark.usefixtures("small_slices")
def test_reading_is_measured_on_phantom_series_plain_and_compressed() -> None:
    result = ingest("--slices", "10", "--repeats", "1", "--patients", "0", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["preparation"] is None
    plain, packed = found["reading"]["uncompressed"], found["reading"]["JPEG 2000"]
    assert (plain["slices"], packed["slices"]) == (10, 2)
    assert plain["transfer_syntax"] != packed["transfer_syntax"] == "1.2.840.10008.1.2.4.90"
    assert plain["differing_voxels"] == packed["differing_voxels"] == 0
    assert plain["slices_per_s"] == pytest.approx(10 / plain["seconds"])


@pytest.mark.usefixtures("small_slices")
def test_reading_is_told_in_words_with_its_ratio() -> None:
    result = ingest("--slices", "10", "--repeats", "1", "--patients", "0")
    assert result.exit_code == 0, result.output
    assert "uncompressed: 10 slices of 32 x 32, 1 turns" in result.stdout
    assert result.stdout.count("the 1.3 wanted") == 2
    assert "load average" in result.stdout


def test_a_folder_of_ones_own_without_a_series_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no DICOM")
    result = ingest(str(tmp_path), "--patients", "0")
    assert isinstance(result.exception, NognetError)


@pytest.mark.slow
def test_pairs_a_minute_are_measured_on_a_phantom_cohort() -> None:
    result = ingest("--slices", "2", "--repeats", "1", "--patients", "2", "--json")
    assert result.exit_code == 0, result.output
    prepared = json.loads(result.stdout)["preparation"]
    assert prepared["pairs"] > 0
    assert prepared["pairs_per_minute"] > 0
    assert {"reading", "masks", "registration"} <= set(prepared["phase_s"])
