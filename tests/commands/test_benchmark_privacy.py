"""`nognet benchmark privacy`: what is laid out, kept and summed up; one tiny run in whole."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nognet.commands import benchmark_privacy_cells as cells
from nognet.commands.benchmark_privacy_cells import Cell, PrivacyPlan, lay_out, run_cells
from nognet.commands.main import app
from nognet.config import StudyConfig
from nognet.data.store import open_store
from nognet.errors import ConfigError
from nognet.report.privacy_costs import CellResult, document_of, write_costs

PLAN = PrivacyPlan(
    patients=8,
    rounds=1,
    steps=1,
    batch=4,
    clip_norm=0.5,
    learning_rate=1e-3,
    pretraining_steps=2,
    cohort_seed=3,
)


def result(kind: str, epsilon: float | None, seed: int, level: float) -> CellResult:
    figures = dict.fromkeys(("psnr", "psnr_nodule", "ssim", "dsc", "dsc_growing"), level)
    both = {"hospital_a": figures, "all sites": figures}
    return CellResult(kind, epsilon, seed, 10.0, epsilon, both, both)


def test_a_cell_is_a_valid_study_whose_delta_is_half_of_what_is_refused(tmp_path: Path) -> None:
    private = StudyConfig.model_validate(
        cells.study_values(PLAN, Cell(2.0, "phantom", 3), tmp_path)
    )
    assert private.privacy is not None
    assert private.privacy.target_epsilon == 2.0
    assert private.privacy.delta == pytest.approx(1 / (2 * PLAN.patients) / 2)
    assert (private.init.name, private.seed) == ("phantom", 3)
    plain = StudyConfig.model_validate(cells.study_values(PLAN, Cell(None, "random", 1), tmp_path))
    assert plain.privacy is None
    assert plain.init.name == "random"


@pytest.mark.slow
def test_hospitals_have_the_patients_that_the_plan_says_and_are_kept(tmp_path: Path) -> None:
    lay_out(PLAN, tmp_path)
    store = tmp_path / "pairs" / "hospital_b"
    found = open_store(store)
    patients = {
        split: {pair.patient_id for pair in found.pairs(split)}
        for split in ("train", "validation", "test")
    }
    assert {split: len(ids) for split, ids in patients.items()} == {
        "train": 8,
        "validation": cells.VALIDATION_PATIENTS,
        "test": cells.TEST_PATIENTS,
    }
    assert patients["train"].isdisjoint(patients["test"])
    written = (store / ".complete").stat().st_mtime_ns
    lay_out(PLAN, tmp_path)
    assert (store / ".complete").stat().st_mtime_ns == written
    with pytest.raises(ConfigError, match="holds runs of other settings"):
        lay_out(dataclasses.replace(PLAN, steps=2), tmp_path)


def test_what_is_done_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def run(_plan: PrivacyPlan, cell: Cell, _out: Path) -> CellResult:
        ran.append(cell.name)
        return result(cell.init, cell.epsilon, cell.seed, 0.5)

    monkeypatch.setattr(cells, "_run", run)
    wanted = [Cell(1.0, "random", 1), Cell(None, "random", 1)]
    told: list[tuple[str, bool]] = []

    def tell(cell: Cell, _seconds: float, *, was_done: bool) -> None:
        told.append((cell.name, was_done))

    first = run_cells(PLAN, wanted[:1], tmp_path, workers=1, told=tell)
    both = run_cells(PLAN, wanted, tmp_path, workers=1, told=tell)
    assert ran == ["eps-1-random-1", "eps-inf-random-1"]
    assert told == [
        ("eps-1-random-1", False),
        ("eps-1-random-1", True),
        ("eps-inf-random-1", False),
    ]
    assert both[0] == first[0]
    assert [asdict(found)["epsilon"] for found in both] == [1.0, None]


def test_the_table_is_mean_and_deviation_over_seeds(tmp_path: Path) -> None:
    results = [
        result("copy", 0.0, 0, 0.25),
        result("random", 2.0, 1, 0.5),
        result("random", 2.0, 2, 0.75),
        result("phantom", None, 1, 1.0),
    ]
    document = document_of(results, {"command": ["nognet"]})
    rows = {(row["kind"], row["epsilon"], row["site"]): row for row in document["table"]}
    assert len(rows) == 6
    pooled = rows["random", 2.0, "all sites"]
    assert pooled["runs"] == 2
    assert pooled["figures"]["dsc"]["mean"] == pytest.approx(0.625)
    assert pooled["figures"]["dsc"]["sd"] == pytest.approx(0.25 / 2**0.5)
    assert rows["phantom", None, "hospital_a"]["figures"]["dsc"]["sd"] is None
    write_costs(tmp_path, document)
    assert json.loads((tmp_path / "privacy.json").read_text())["table"] == document["table"]
    lines = (tmp_path / "privacy.csv").read_text().splitlines()
    assert lines[0].startswith("begins with,epsilon,site,runs,seconds,psnr,")
    assert len(lines) == 7
    assert (tmp_path / "privacy.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "options", [["--epsilons", "inf,much"], ["--epsilons", "0"], ["--inits", "zeros"]]
)
def test_wrong_options_are_named(tmp_path: Path, options: list[str]) -> None:
    out: Any = ["--out", str(tmp_path / "o")]
    found = CliRunner().invoke(app, ["benchmark", "privacy", *options, *out])
    assert found.exit_code == 2
    assert options[0] in found.output
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_a_tiny_run_ends_with_figures_of_every_kind(tmp_path: Path) -> None:
    options = {
        "--epsilons": "8",
        "--seeds": "1",
        "--patients": "8",
        "--rounds": "1",
        "--steps": "1",
    }
    more = {
        "--batch": "4",
        "--pretraining-steps": "2",
        "--cohort-seed": "3",
        "--out": str(tmp_path),
    }
    words = [word for option in {**options, **more}.items() for word in option]
    found = CliRunner().invoke(app, ["benchmark", "privacy", *words, "--json"])
    assert found.exit_code == 0, found.output
    document = json.loads((tmp_path / "privacy.json").read_text())
    kinds = {row["kind"] for row in document["table"]}
    assert kinds == {"copy", "pretrained", "random", "phantom"}
    runs = [run for run in document["runs"] if run["kind"] in {"random", "phantom"}]
    assert all(0 < run["spent"] <= 8 for run in runs)
