from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from nognet.config import NetworkConfig, PrivacyConfig
from nognet.errors import PrivacyError
from nognet.fit.evaluate import evaluate_pairs, evaluate_split
from nognet.fit.predictors import (
    copy_baseline,
    isotropic_growth,
    median_growth,
    network_predictor,
)
from nognet.fit.tensors import stack_pairs
from nognet.fit.weights import initial_weights, network_with
from nognet.types import SPLITS, RoiPair
from tests.builders.federation import make_site, make_study, opened, roi_pair, sphere


def _grown(number: int, radius: float, ratio: float, days: float) -> RoiPair:
    before, after = sphere(radius), sphere(radius * ratio ** (1 / 3))
    image = (0.1 + 0.6 * before).astype(np.float32)
    later = (0.1 + 0.6 * after).astype(np.float32)
    volumes = 1000.0, 1000.0 * ratio
    return RoiPair(f"{number:02x}", f"p{number}", image, before, later, after, days, *volumes)


def test_copying_has_the_figures_of_a_naive_loop() -> None:
    pairs = [roi_pair(number, np.random.default_rng(number)) for number in range(5)]
    found = evaluate_pairs({"copy": copy_baseline}, pairs).figures()["copy"]
    psnr, dice = [], []
    for pair in pairs:
        error = np.mean((pair.baseline.astype(float) - pair.follow_up.astype(float)) ** 2)
        psnr.append(10 * math.log10(1 / error))
        both = (pair.baseline_mask & pair.follow_up_mask).sum()
        dice.append(2 * both / (pair.baseline_mask.sum() + pair.follow_up_mask.sum()))
    assert found["psnr"]["mean"] == pytest.approx(np.mean(psnr), abs=1e-5)
    assert found["dsc"]["mean"] == pytest.approx(np.mean(dice), abs=1e-6)
    assert found["dsc"]["sd"] == pytest.approx(np.std(dice, ddof=1), abs=1e-6)
    assert found["dsc"]["n_pairs"] == 5


def test_isotropic_growth_at_the_true_rate_is_nearly_right() -> None:
    pair = _grown(1, 6.0, 1.8, 365.25)
    rate = median_growth([pair])
    assert rate == pytest.approx(math.log(1.8))
    found = evaluate_pairs(
        {"copy": copy_baseline, "isotropic": isotropic_growth(rate)}, [pair]
    ).figures()
    assert found["isotropic"]["dsc"]["mean"] > 0.95 > found["copy"]["dsc"]["mean"]
    assert found["isotropic"]["log_volume_error"]["mean"] < 0.06


def test_the_median_rate_is_a_median_a_year() -> None:
    pairs = [_grown(1, 5.0, 2.0, 365.25), _grown(2, 5.0, 1.0, 100.0), _grown(3, 5.0, 2.0, 730.5)]
    assert median_growth(pairs) == pytest.approx(math.log(2.0) / 2)
    assert median_growth([]) == 0.0


def test_an_untrained_network_scores_as_copying_does() -> None:
    config = NetworkConfig(width=4)
    network = network_with(config, initial_weights(config, 1), torch.device("cpu"))
    pairs = [roi_pair(number, np.random.default_rng(number)) for number in range(3)]
    found = evaluate_pairs(
        {"copy": copy_baseline, "network": network_predictor(network, torch.device("cpu"))}, pairs
    ).figures()
    for metric in ("psnr", "ssim", "dsc", "volume_error"):
        ours, copied = (found[name][metric]["mean"] for name in ("network", "copy"))
        assert ours == pytest.approx(copied, abs=1e-3), metric


def test_a_split_is_evaluated_with_every_predictor_and_counts_its_patients(tmp_path: Path) -> None:
    site, prepared = opened(make_site(tmp_path / "alpha", "alpha"))
    study = make_study(tmp_path)
    weights = initial_weights(study.network, study.seed)
    figures = evaluate_split(study, site, prepared, weights, split="validation").figures()
    assert set(figures) == {"federated", "copy", "isotropic"}
    counts = prepared.counts()["validation"]
    for predictor in figures.values():
        assert predictor["dsc"]["n_pairs"] == counts["pairs"]
        assert predictor["dsc"]["n_patients"] == counts["patients"]


def test_isotropic_growth_takes_its_rate_from_training_patients_alone(tmp_path: Path) -> None:
    site, prepared = opened(make_site(tmp_path / "alpha", "alpha"))
    study = make_study(tmp_path)
    weights = initial_weights(study.network, study.seed)
    rates = {split: median_growth(prepared.pairs(split)) for split in SPLITS}
    assert rates["train"] != rates["test"]
    found = evaluate_split(study, site, prepared, weights, split="test").figures()["isotropic"]
    predictor = {"isotropic": isotropic_growth(rates["train"])}
    assert found == evaluate_pairs(predictor, prepared.pairs("test")).figures()["isotropic"]


@pytest.mark.parametrize("who", ["study", "site"])
def test_under_privacy_no_figures_of_training_patients_are_given(tmp_path: Path, who: str) -> None:
    site, prepared = opened(make_site(tmp_path / "alpha", "alpha"))
    study = make_study(tmp_path)
    weights = initial_weights(study.network, study.seed)
    asked = {"privacy": PrivacyConfig(noise_multiplier=1.0, delta=1e-2)}
    if who == "study":
        study = study.model_copy(update=asked)
    else:
        site = site.model_copy(update=asked)
    with pytest.raises(PrivacyError, match="no figures of training patients"):
        evaluate_split(study, site, prepared, weights, split="train")
    assert evaluate_split(study, site, prepared, weights, split="test").predictors


def test_predictors_leave_the_batch_as_it_is() -> None:
    batch = stack_pairs([_grown(1, 6.0, 1.5, 400.0)])
    before = batch.image.clone(), batch.mask.clone()
    for predict in (copy_baseline, isotropic_growth(0.5)):
        predict(batch)
    assert torch.equal(batch.image, before[0])
    assert torch.equal(batch.mask, before[1])
