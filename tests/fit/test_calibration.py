from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from nognet.config import NetworkConfig, RoiConfig
from nognet.data.store import open_store
from nognet.errors import ConfigError, SiteDataError
from nognet.fit import follow_up
from nognet.fit.baseline import Baseline
from nognet.fit.calibration import (
    Calibration,
    calibrate_model,
    check_coverage,
    volume_interval_mm3,
)
from nognet.fit.conformal import conformal_factor, patients_needed
from nognet.fit.follow_up import predict_follow_up
from nognet.fit.model_file import SavedModel, load_model
from nognet.fit.predictors import FollowUp, Predictor, network_predictor
from nognet.fit.tensors import stack_pairs
from nognet.fit.weights import network_with
from nognet.metrics.volume import interval_coverage, log_volume_error
from nognet.network import Batch
from nognet.types import Geometry
from tests.builders.federation import make_site, sphere
from tests.builders.predict_files import NETWORK, ROI, lively_weights, write_model

CPU = torch.device("cpu")
VALIDATION_PATIENTS = 4


@pytest.fixture
def model(tmp_path: Path) -> SavedModel:
    return load_model(write_model(tmp_path / "model"))


@pytest.mark.parametrize(
    ("volume", "spread", "factor", "expected"),
    [
        (100.0, math.log(2), 2.0, (25.0, 400.0)),
        (100.0, math.log(3), 1.0, (100 / 3, 300.0)),
        (500.0, 0.0, 7.0, (500.0, 500.0)),
        (500.0, 0.3, 0.0, (500.0, 500.0)),
    ],
)
def test_the_interval_of_a_known_factor_and_spread(
    volume: float, spread: float, factor: float, expected: tuple[float, float]
) -> None:
    assert volume_interval_mm3(volume, spread, factor) == pytest.approx(expected)


def test_a_huge_radius_stays_finite() -> None:
    assert math.isfinite(volume_interval_mm3(1e4, 1e3, 1e3)[1])


@pytest.mark.parametrize("coverage", [0.05, 0.5, 0.75, 0.8, 0.9, 0.95, 0.99])
def test_so_many_patients_are_needed_and_one_less_is_too_few(coverage: float) -> None:
    needed = patients_needed(coverage)
    names = [str(number) for number in range(needed)]
    assert math.isfinite(conformal_factor([1.0] * needed, names, coverage))
    if needed > 1:
        assert conformal_factor([1.0] * (needed - 1), names[1:], coverage) == math.inf


def test_the_factor_is_the_conformal_one_of_this_model_on_the_validation_patients(
    tmp_path: Path, model: SavedModel
) -> None:
    make_site(tmp_path, "alpha", pairs=14)
    prepared = open_store(tmp_path / "alpha" / "cache")
    predict = network_predictor(network_with(model.network, model.weights, CPU), CPU)
    scores = []
    for pair in prepared.pairs("validation"):
        batch = stack_pairs([pair])
        found = predict(batch)
        assert found.log_volume_spread is not None
        error = abs(math.log(float(found.mask.double().sum()) / float(pair.follow_up_mask.sum())))
        scores.append(error / float(found.log_volume_spread[0]))
    calibration = calibrate_model(model, "alpha", prepared, 0.8, device=CPU)
    assert calibration.factor == pytest.approx(max(scores), rel=1e-5)  # 0.8 of 4: the largest
    assert (calibration.n_patients, calibration.n_pairs) == (VALIDATION_PATIENTS,) * 2
    half = calibrate_model(model, "alpha", prepared, 0.5, device=CPU)
    assert half.factor == pytest.approx(sorted(scores)[2], rel=1e-5)  # (4 + 1) x 0.5: the third


def test_too_few_patients_say_how_many_are_needed(tmp_path: Path, model: SavedModel) -> None:
    make_site(tmp_path, "alpha", pairs=14)
    prepared = open_store(tmp_path / "alpha" / "cache")
    with pytest.raises(SiteDataError, match=r"4 validation patients .* 0\.9 needs 9") as caught:
        calibrate_model(model, "alpha", prepared, 0.9, device=CPU)
    assert caught.value.code == "too-few-patients"


@pytest.mark.parametrize(
    "roi", [RoiConfig(size_vox=48), RoiConfig(size_vox=32, hu_window=(-1000.0, 400.0))]
)
def test_a_site_of_another_roi_or_window_is_refused(tmp_path: Path, roi: RoiConfig) -> None:
    make_site(tmp_path, "alpha", pairs=14)
    prepared = open_store(tmp_path / "alpha" / "cache")
    other = load_model(write_model(tmp_path, roi=roi))
    with pytest.raises(ConfigError, match="the model was trained on") as caught:
        calibrate_model(other, "alpha", prepared, 0.8, device=CPU)
    assert caught.value.code == "roi-differs"


@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_a_coverage_that_makes_no_sense_is_refused(coverage: float) -> None:
    with pytest.raises(ConfigError, match="expected above 0 and below 1"):
        check_coverage(coverage)


def saying(spread: float, grown: torch.Tensor) -> Predictor:
    """A predictor that says what it is told."""

    def predict(batch: Batch) -> FollowUp:
        still = torch.zeros(1, 3, *batch.image.shape[2:])
        return FollowUp(batch.image, grown, still, torch.full((1,), spread))

    return predict


def baseline_of(radius_vox: float, native_mm3: float) -> Baseline:
    mask = sphere(radius_vox)
    grid = Geometry((32,) * 3, (1.0, 1.0, 1.0))
    return Baseline(mask.astype("float32"), mask, grid, native_mm3, ())


def test_a_prediction_gives_the_interval_about_its_own_volume(
    model: SavedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown = torch.from_numpy(sphere(7.0)).float()[None, None]
    monkeypatch.setattr(follow_up, "network_predictor", lambda *_: saying(math.log(2.0), grown))
    baseline = baseline_of(5.0, native_mm3=600.0)
    calibration = Calibration("here", 0.8, 2.0, 5, 7)
    [found] = predict_follow_up(model, baseline, [365], device=CPU, calibration=calibration)
    volume = 600.0 * sphere(7.0).sum() / sphere(5.0).sum()
    assert found.figures.volume_mm3 == pytest.approx(volume)
    assert found.volume_interval_mm3 == pytest.approx((volume / 4, volume * 4))
    [without] = predict_follow_up(model, baseline, [365], device=CPU)
    assert without.volume_interval_mm3 is None


def test_at_0_days_the_interval_is_the_volume(model: SavedModel) -> None:
    calibration = Calibration("here", 0.8, 3.0, 5, 7)
    now, later = predict_follow_up(
        model, baseline_of(5.0, 600.0), [0, 365], device=CPU, calibration=calibration
    )
    assert now.volume_interval_mm3 == pytest.approx((600.0, 600.0))
    assert later.volume_interval_mm3 is not None
    assert later.volume_interval_mm3[0] < later.figures.volume_mm3 < later.volume_interval_mm3[1]


def test_a_true_volume_lies_in_the_interval_where_the_metric_says_so() -> None:
    true = torch.from_numpy(sphere(6.0)).float()[None, None]
    for radius_vox in (4.0, 5.0, 5.5, 6.0, 6.5, 8.0):
        predicted = torch.from_numpy(sphere(radius_vox)).float()[None, None]
        low, high = volume_interval_mm3(float(predicted.sum()), 0.2, 1.5)
        radius = torch.tensor([0.3], dtype=torch.float64)
        covered = interval_coverage(log_volume_error(predicted, true), radius)
        assert bool(covered[0]) == (low <= float(true.sum()) <= high)


def test_a_model_whose_spread_differs_has_another_factor(tmp_path: Path) -> None:
    make_site(tmp_path, "alpha", pairs=14)
    prepared = open_store(tmp_path / "alpha" / "cache")
    weights = lively_weights(growth_bias=0.2)
    narrow = {**weights, "growth.spread.bias": weights["growth.spread.bias"] - 1.0}
    models = [
        SavedModel(w, NetworkConfig.model_validate(NETWORK.model_dump()), ROI, {})
        for w in (weights, narrow)
    ]
    wide, tight = (calibrate_model(m, "a", prepared, 0.8, device=CPU).factor for m in models)
    assert tight == pytest.approx(wide * math.e, rel=1e-3)
