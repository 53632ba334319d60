"""The gate: a model that learnt its patients by heart is caught, a fresh one is not."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from nognet_client.leakage import check_leakage
from pydantic import ValidationError
from typer.testing import CliRunner

from nognet.commands.main import app
from nognet.config import NetworkConfig, RoiConfig, SiteConfig, StudyConfig, TrainingConfig
from nognet.config.leakage import LeakageConfig
from nognet.data.store import PreparedSite, write_store
from nognet.errors import PrivacyError
from nognet.fit.model_file import save_model
from nognet.fit.train import train_round
from nognet.fit.weights import Weights, initial_weights
from nognet.phantom.roi import make_roi_pairs
from nognet.types import Split

PATIENTS = 5
RUN = "first"
ROI = RoiConfig(size_vox=32)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedSite:
    made = make_roi_pairs(2 * PATIENTS, seed=5, roi=ROI)
    first = {pair.patient_id: pair for pair in reversed(made)}  # one pair a patient
    chosen = [first[patient] for patient in sorted(first)][: 2 * PATIENTS]
    assert len(chosen) == 2 * PATIENTS
    splits: dict[str, Split] = {
        pair.patient_id: "train" if i % 2 else "validation" for i, pair in enumerate(chosen)
    }
    return write_store(tmp_path_factory.mktemp("cache"), chosen, splits, roi=ROI)


def study_of() -> StudyConfig:
    training = TrainingConfig(
        steps_per_round=30, batch_size=PATIENTS, learning_rate=5e-3, augment=False
    )
    return StudyConfig(
        name="leak", rounds=2, roi=ROI, network=NetworkConfig(width=4), training=training
    )


def site_in(folder: Path, **leakage: Any) -> SiteConfig:
    return SiteConfig(
        name="here",
        studies=folder / "studies.csv",
        state=folder / "state",
        roi=ROI,
        leakage=LeakageConfig(**leakage),
    )


@pytest.fixture(scope="module")
def weights(
    prepared: PreparedSite, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Weights, Weights]:
    """Fresh ones, and those of a network that was shown five patients 30 times."""
    study, site = study_of(), site_in(tmp_path_factory.mktemp("site"))
    fresh = initial_weights(study.network, 1)
    return fresh, train_round(study, site, prepared, fresh, round_number=1).weights


def check(
    site: SiteConfig, prepared: PreparedSite, weights: Weights, start: Weights, number: int = 1
) -> dict[str, Any]:
    study = study_of()
    check_leakage(study, site, prepared, weights, start, round_number=number, run_token=RUN)
    path = site.state / "leakage" / RUN / f"round-{number:04d}.json"
    assert path.stat().st_mode & 0o077 == 0
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.fixture(autouse=True)
def _propagating(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("nognet"), "propagate", True)


def test_an_overfitted_network_is_caught_and_warned_of(
    prepared: PreparedSite,
    weights: tuple[Weights, Weights],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fresh, overfitted = weights
    found = check(site_in(tmp_path, check="every"), prepared, overfitted, fresh)
    assert found["calibrated"]["interval"][0] > 0.6
    assert found["calibrated"]["members"] == found["calibrated"]["others"] == PATIENTS
    assert found["calibrated"]["advantage"]["0.01"] is None
    [warning] = [r for r in caplog.records if "(calibrated)" in r.getMessage()]
    assert warning.levelno == logging.WARNING
    assert "above leakage.warn_auc 0.6" in warning.getMessage()


def test_a_fresh_network_is_not(
    prepared: PreparedSite,
    weights: tuple[Weights, Weights],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fresh, _ = weights
    site = site_in(tmp_path, check="every", refuse_auc=0.6)
    found = check(site, prepared, fresh, fresh)
    assert found["calibrated"]["auc"] == 0.5  # nothing was gained by anybody
    low, high = found["loss"]["interval"]
    assert low <= 0.5 <= high
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_the_reply_is_withheld_where_the_site_says_so(
    prepared: PreparedSite, weights: tuple[Weights, Weights], tmp_path: Path
) -> None:
    fresh, overfitted = weights
    site = site_in(tmp_path, check="every", refuse_auc=0.6)
    with pytest.raises(PrivacyError, match=r"refuse_auc 0\.6; the model was not sent") as caught:
        check(site, prepared, overfitted, fresh)
    assert caught.value.public_code == "PrivacyError:leakage"
    kept = tmp_path / "state/leakage/first/round-0001.json"
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_where_nothing_can_be_written_nothing_is_sent(
    prepared: PreparedSite, weights: tuple[Weights, Weights], tmp_path: Path
) -> None:
    fresh, _ = weights
    site = site_in(tmp_path, check="every")
    (tmp_path / "state").mkdir()
    (tmp_path / "state/leakage").write_text("a file where the folder has to be")
    with pytest.raises(PrivacyError, match=r"can't be written .*the model was not sent") as caught:
        check(site, prepared, fresh, fresh)
    assert caught.value.code == "leakage-not-written"


@pytest.mark.parametrize(("when", "rounds"), [("never", []), ("last", [2]), ("every", [1, 2])])
def test_it_is_checked_when_the_site_says_so(
    when: str,
    rounds: list[int],
    prepared: PreparedSite,
    weights: tuple[Weights, Weights],
    tmp_path: Path,
) -> None:
    fresh, _ = weights
    site = site_in(tmp_path, check=when)
    for number in (1, 2):
        check_leakage(study_of(), site, prepared, fresh, fresh, round_number=number, run_token=RUN)
    written = sorted(path.name for path in tmp_path.glob("state/leakage/first/*"))
    assert written == [f"round-{number:04d}.json" for number in rounds]


@pytest.mark.parametrize("when", ["last", "never"])
def test_a_refusal_that_an_early_end_would_evade_is_no_setting(when: str) -> None:
    """A coordinator declares 100 rounds and stops at 99: there was no last one."""
    with pytest.raises(ValidationError, match="set check: every"):
        LeakageConfig.model_validate({"check": when, "refuse_auc": 0.8})


def test_too_few_patients_are_said_and_no_figure_is_given(
    weights: tuple[Weights, Weights], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = make_roi_pairs(2, seed=5, roi=ROI)[:1]
    few = write_store(tmp_path / "few", pairs, {pairs[0].patient_id: "train"}, roi=ROI)
    site = site_in(tmp_path, check="every", refuse_auc=0.6)
    check_leakage(study_of(), site, few, *weights, round_number=1, run_token=RUN)
    assert "leakage isn't checked: 1 training and 0 validation patients" in caplog.text
    assert not (tmp_path / "state").exists()


def test_the_command_attacks_any_model(
    prepared: PreparedSite,
    weights: tuple[Weights, Weights],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nognet.data.site.prepare.prepared_or_prepare", lambda _: prepared)
    for name, held in zip(("fresh", "overfitted"), weights, strict=True):
        path = tmp_path / f"{name}.nognet"
        save_model(path, held, network=study_of().network, roi=ROI, provenance={})
    (tmp_path / "site.yaml").write_text("name: here\nstudies: studies.csv\n")
    (tmp_path / "studies.csv").write_text("")
    arguments = ["--site", str(tmp_path / "site.yaml"), "--model"]
    command = ["privacy", "leakage", *arguments, str(tmp_path / "overfitted.nognet")]
    compared = [*command, "--reference", str(tmp_path / "fresh.nognet")]
    result = CliRunner().invoke(app, [*compared, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["calibrated"]["interval"][0] > 0.6
    told = CliRunner().invoke(app, compared)
    assert "calibrated: AUC" in told.stdout
    assert "0.01: too few patients" in told.stdout
    assert "tells who trained it better" in told.stderr
    alone = CliRunner().invoke(app, [*command, "--json"])
    assert list(json.loads(alone.stdout)) == ["loss"]
