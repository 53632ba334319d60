"""From a real CT to test figures: nodules grown in it, prepared, trained on, and predicted."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from nognet.commands.main import app
from nognet.config import SiteConfig, SplitConfig, StudyConfig, load_site
from nognet.data.site.prepare import Examination, prepare_site_with_report
from nognet.data.site.pseudonym import KEY_BYTES, write_key
from nognet.data.store import PreparedSite
from nognet.fit.alone import LocalRound, evaluate_local, train_alone
from nognet.fit.model_file import save_model
from nognet.metrics.definitions import METRIC_NAMES
from nognet.phantom.cohort import write_cohort

pytestmark = [pytest.mark.real_data, pytest.mark.slow]

DEFAULT = Path(__file__).resolve().parents[2].parent / "shared" / "data"
BACKGROUND = "elastix_lung_pair/Baselines/3DCT_lung.mha"
PATIENTS = 8
STUDY = StudyConfig.model_validate(
    {
        "name": "real-background",
        "seed": 5,
        "rounds": 3,
        "network": {"width": 8},
        "training": {"steps_per_round": 20, "warmup_steps": 5},
    }
)


@dataclass(frozen=True)
class Trained:
    """A site whose nodules grow in a real CT, and its rounds of training."""

    site: SiteConfig
    prepared: PreparedSite
    examination: Examination
    rounds: tuple[LocalRound, ...]
    first_losses: tuple[float, ...]
    last_losses: tuple[float, ...]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = Path(os.environ.get("NOGNET_REAL_DATA", DEFAULT))
    if not (root / BACKGROUND).is_file():
        pytest.skip(f"no real CT at {root / BACKGROUND}; set NOGNET_REAL_DATA to the data's folder")
    out = tmp_path_factory.mktemp("real")
    write_cohort(
        out / "cohort", sites=1, patients=PATIENTS, seed=3, workers=2, background=root / BACKGROUND
    )
    site = load_site(out / "cohort" / "hospital_a" / "site.yaml")
    site = site.model_copy(update={"split": SplitConfig(validation=0.12, test=0.5)})
    write_key(site.state, bytes(range(KEY_BYTES)))  # fixes the split and the order of the pairs
    prepared, examination = prepare_site_with_report(site)
    losses: list[float] = []
    rounds = tuple(
        train_alone(STUDY, site, prepared, progress=lambda *told: losses.append(told[3]))
    )
    fifth = len(losses) // 5
    return Trained(
        site, prepared, examination, rounds, tuple(losses[:fifth]), tuple(losses[-fifth:])
    )


def test_every_nodule_in_real_tissue_is_prepared(trained: Trained) -> None:
    refused = [o for o in trained.examination.outcomes if o.status == "refused"]
    assert refused == []
    counts = trained.prepared.counts()
    assert sum(count["patients"] for count in counts.values()) == PATIENTS
    assert counts["test"]["pairs"] > 0
    assert counts["test"]["strata"]["growing"] >= 3


def test_the_loss_goes_down(trained: Trained) -> None:
    assert np.mean(trained.last_losses) < 0.75 * np.mean(trained.first_losses)
    means = [done.outcome.mean_loss for done in trained.rounds]
    assert means[-1] is not None
    assert means[0] is not None
    assert means[-1] < means[0]


def test_test_figures_are_there_and_growing_nodules_fare_no_worse_than_by_copying(
    trained: Trained,
) -> None:
    best = trained.rounds[-1].best
    figures = evaluate_local(
        STUDY, trained.site, trained.prepared, best.weights, split="test"
    ).figures()
    n_pairs = trained.prepared.counts()["test"]["pairs"]
    for predictor in ("local", "copy", "isotropic"):
        for metric in METRIC_NAMES:
            if metric.startswith("interval_"):
                continue  # one validation patient calibrates no interval
            figure = figures[predictor][metric]
            assert figure["mean"] is not None, (predictor, metric)
            assert figure["n_pairs"] == n_pairs
    # sixty steps teach that nodules can grow: 0.78 against 0.62 by copying when this was written
    growing = [figures[name]["dsc"]["strata"]["growing"]["mean"] for name in ("local", "copy")]
    assert growing[0] > growing[1]


def test_a_nodule_of_a_real_ct_is_predicted_where_it_lies(trained: Trained, tmp_path: Path) -> None:
    model = tmp_path / "model.nognet"
    best = trained.rounds[-1].best
    save_model(model, best.weights, network=STUDY.network, roi=STUDY.roi, provenance={})
    row = _first_row(trained.site.studies)
    home = trained.site.studies.parent
    arguments: Sequence[Any] = (
        "predict", "--model", model, "--image", home / row["image"], "--mask", home / row["mask"],
        "--segment", row["segment"], "--interval-days", 0, "--interval-days", 365,
        "--out", tmp_path / "out",
    )  # fmt: skip
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert [entry["interval_days"] for entry in document["follow_up"]] == [0, 365]
    assert document["follow_up"][0]["growth_ratio"] == 1.0
    voxels = sitk.ReadImage(str(tmp_path / "out" / "days_0" / "follow_up_mask.nii.gz"))
    count = float(sitk.GetArrayFromImage(voxels).sum())
    assert count == pytest.approx(document["baseline"]["volume_mm3"], rel=0.05)


def _first_row(studies: Path) -> dict[str, str]:
    with studies.open(encoding="utf-8", newline="") as file:
        return next(csv.DictReader(file))
