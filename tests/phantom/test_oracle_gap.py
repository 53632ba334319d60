"""There is something to learn: who reads the nodule's looks foretells far better than rules do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from scipy import ndimage

from nognet.config import RoiConfig
from nognet.fit.predictors import Predictor, copy_baseline, isotropic_growth, median_growth
from nognet.fit.tensors import stack_pairs
from nognet.metrics.overlap import dsc
from nognet.phantom.contact import NORMAL_SHARE
from nognet.phantom.growth import DAYS_PER_YEAR, foretold_rate
from nognet.phantom.patient import PhantomNodule, PhantomPatient, draw_patient, plan_patients
from nognet.phantom.roi import pairs_of_patient
from nognet.phantom.scanner import scanner_of_site
from nognet.types import GROWING_RATIO, RoiPair

SITES, PATIENTS, SEED = 3, 8, 1


@dataclass(frozen=True)
class Known:
    """A pair and the nodule that it shows."""

    pair: RoiPair
    nodule: PhantomNodule

    @property
    def years(self) -> float:
        return self.pair.interval_days / DAYS_PER_YEAR

    @property
    def log_growth(self) -> float:
        return math.log(self.pair.follow_up_volume_mm3 / self.pair.baseline_volume_mm3)


def known_pairs(site: int, patient: PhantomPatient) -> list[Known]:
    scanner = scanner_of_site(site, SEED)
    pairs = pairs_of_patient(patient, scanner, roi=RoiConfig(), seed=SEED)
    nodules = [n for n in patient.nodules for _ in range(patient.plan.pairs_a_nodule)]
    return [Known(*both) for both in zip(pairs, nodules, strict=True)]


@cache
def cohort() -> tuple[Known, ...]:
    return tuple(
        known
        for site in range(SITES)
        for plan in plan_patients(site, PATIENTS, SEED)
        for known in known_pairs(site, draw_patient(plan, SEED))
    )


@cache
def touching_cohort() -> tuple[Known, ...]:
    """Growing pairs of nodules that touch pleura or vessel, from more patients."""
    drawn = [draw_patient(plan, SEED) for plan in plan_patients(1, 24, SEED)]
    touching = [patient for patient in drawn if any(n.contact for n in patient.nodules)]
    return tuple(
        known
        for patient in touching
        for known in known_pairs(1, patient)
        if known.nodule.contact and known.log_growth > math.log(GROWING_RATIO)
    )


def median_rate() -> float:
    return median_growth([known.pair for known in cohort()])


def volume_errors() -> dict[str, float]:
    """Mean absolute error of ln(V1 / V0) of each way to foretell it."""
    rate = median_rate()
    foretold = {
        "copy": [0.0 for _ in cohort()],
        "median rate": [rate * known.years for known in cohort()],
        "looks": [looks_rate(known) * known.years for known in cohort()],
        "truth": [k.nodule.plan.rate_per_year * k.years for k in cohort()],
    }
    true = np.array([known.log_growth for known in cohort()])
    return {name: float(np.abs(np.array(of) - true).mean()) for name, of in foretold.items()}


def looks_rate(known: Known) -> float:
    return foretold_rate(known.nodule.plan.kind, known.nodule.plan.aggressiveness)


def overlap(known: Known, predict: Predictor) -> float:
    batch = stack_pairs([known.pair])
    return float(dsc(predict(batch).mask.clamp(0, 1), batch.target_mask)[0])


def mean_overlap(chosen: Sequence[Known], rate_of: Callable[[Known], float]) -> float:
    """Mean DSC of isotropic growth at a rate a pair."""
    return float(np.mean([overlap(k, isotropic_growth(rate_of(k))) for k in chosen]))


def grown_from_contact(known: Known) -> float:
    """DSC of the baseline's mask grown by the true volume, away from what it touches.

    Of the law it knows the direction of contact alone, not the nodule's own shares of growth.
    """
    pair, frame, contact = known.pair, known.nodule.look.frame, known.nodule.contact
    assert contact is not None
    mask = pair.baseline_mask
    points = np.argwhere(mask)[:, ::-1].astype(float)
    centre = points.mean(axis=0)
    reach = float(np.quantile((points - centre) @ contact.normal, 0.95)) + 0.5
    gain = np.exp(np.array([NORMAL_SHARE, 1, 1]) / (NORMAL_SHARE + 2) * known.log_growth)
    moved = centre - contact.normal * reach * (gain[0] - 1)
    inverse = frame.T @ np.diag(1 / gain) @ frame
    turned = inverse[::-1, ::-1]  # x, y, z to the array's z, y, x
    offset = centre[::-1] - turned @ moved[::-1]
    grown = ndimage.affine_transform(mask.astype(np.float32), turned, offset, order=1)
    found, true = (
        torch.from_numpy(values.astype(np.float32))[None, None]
        for values in (grown.clip(0, 1), pair.follow_up_mask)
    )
    return float(dsc(found, true)[0])


def test_looks_foretell_the_volume_far_better_than_one_rate_for_all() -> None:
    errors = volume_errors()
    assert errors["truth"] == pytest.approx(0.0, abs=1e-9)
    assert errors["looks"] < 0.4 * min(errors["copy"], errors["median rate"])
    assert errors["looks"] > 0.01  # what no image shows is left


def test_growing_by_the_true_volume_overlaps_far_better_than_copy_or_one_rate_for_all() -> None:
    growing = [known for known in cohort() if known.log_growth > math.log(GROWING_RATIO)]
    one_rate = median_rate()
    copy = float(np.mean([overlap(known, copy_baseline) for known in growing]))
    median = mean_overlap(growing, lambda _: one_rate)
    looks = mean_overlap(growing, looks_rate)
    true = mean_overlap(growing, lambda known: known.log_growth / known.years)
    assert true > max(copy, median) + 0.2
    assert looks > max(copy, median) + 0.2
    assert true >= looks - 0.005
    assert true < 0.97  # shape is left to learn


def test_who_sees_the_contact_foretells_the_shape_better_than_isotropic_growth() -> None:
    touching = touching_cohort()
    isotropic = mean_overlap(touching, lambda known: known.log_growth / known.years)
    away = float(np.mean([grown_from_contact(known) for known in touching]))
    assert away > isotropic + 0.02
