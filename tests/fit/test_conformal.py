from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nognet.fit.conformal import calibrate, conformal_factor
from nognet.fit.predictors import FollowUp, copy_baseline
from nognet.network import Batch
from nognet.phantom.roi import make_roi_pairs


def test_one_pair_a_patient_gives_the_textbook_quantile() -> None:
    rng = np.random.default_rng(0)
    for n in (4, 9, 20, 57):
        scores = rng.exponential(size=n)
        rank = math.ceil((n + 1) * 0.8)
        expected = sorted(scores)[rank - 1] if rank <= n else math.inf
        names = [str(i) for i in range(n)]
        assert conformal_factor(list(scores), names, 0.8) == pytest.approx(expected)


def test_too_few_patients_give_no_bound() -> None:
    assert conformal_factor([1.0] * 8, list("abcdefgh"), 0.9) == math.inf
    assert conformal_factor([1.0] * 9, list("abcdefghi"), 0.9) == 1.0
    assert conformal_factor([], [], 0.8) == math.inf


def test_many_pairs_of_one_patient_have_one_vote() -> None:
    scores = [9.0] * 50 + [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]
    patients = ["x"] * 50 + list("abcdef")
    assert conformal_factor(scores, patients, 0.75) == 1.5


def test_coverage_on_new_patients_is_nominal_however_wrong_the_spread() -> None:
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(600):
        level = np.repeat(rng.lognormal(0, 0.5, 31), 3)
        scores = level * rng.exponential(size=93)
        patients = [str(i // 3) for i in range(90)]
        factor = conformal_factor(list(scores[:90]), patients, 0.8)
        covered.append(scores[90] <= factor)
    assert np.mean(covered) == pytest.approx(0.8, abs=0.05)


def test_calibration_is_error_over_spread_and_needs_a_spread() -> None:
    pairs = make_roi_pairs(5, seed=3)

    def predict(batch: Batch) -> FollowUp:
        found = copy_baseline(batch)
        return FollowUp(
            found.image, found.mask, found.displacement_vox, torch.full((len(batch),), 0.5)
        )

    errors = [abs(math.log(p.baseline_mask.sum() / p.follow_up_mask.sum())) / 0.5 for p in pairs]
    expected = conformal_factor(errors, [p.patient_id for p in pairs], 0.8)
    assert calibrate(predict, pairs, 0.8) == pytest.approx(expected, rel=1e-5)
    assert calibrate(copy_baseline, pairs, 0.8) == math.inf
