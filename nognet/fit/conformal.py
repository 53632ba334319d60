"""Calibrated intervals of the predicted volume, by split conformal prediction.

The network says how far ln V may be off (its *spread*); the validation patients say by which factor
that has to be stretched so that the interval holds with the nominal coverage, whatever the network
is worth (Vovk et al. 2005; Lei et al. 2018, "Distribution-free predictive inference for
regression"). The unit is the patient: a patient's pairs share one vote (Dunn, Wasserman and Ramdas
2022, "Distribution-free prediction sets for two-layer hierarchical models").
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch

from nognet.fit.predictors import Predictor
from nognet.fit.tensors import stack_pairs
from nognet.metrics.volume import log_volume_error
from nognet.types import RoiPair

_BATCH_SIZE = 4
_SPREAD_FLOOR = 1e-6


def conformal_factor(scores: Sequence[float], patients: Sequence[str], coverage: float) -> float:
    """Find the factor below which a new patient's score lies with the nominal coverage.

    Each of n patients weighs 1 / (n + 1), shared among its scores; the new patient weighs as much,
    at infinity.

    Args:
        scores: Error over predicted spread, one a pair.
        patients: The patient of each score.
        coverage: Nominal, in (0, 1).

    Returns:
        The smallest score at which the weights reach `coverage`; infinity where there are too few
        patients for that level.

    >>> conformal_factor([1.0, 2.0, 3.0, 4.0], ["a", "b", "c", "d"], 0.8)
    4.0
    >>> conformal_factor([1.0, 2.0, 3.0], ["a", "b", "c"], 0.8)
    inf
    """
    pairs_of = Counter(patients)
    reached = 0.0
    for score, patient in sorted(zip(scores, patients, strict=True)):
        reached += 1.0 / pairs_of[patient] / (len(pairs_of) + 1)
        if reached >= coverage - 1e-9:
            return score
    return math.inf


def patients_needed(coverage: float) -> int:
    """Count the patients from which on a coverage can be reached: n / (n + 1) >= coverage.

    >>> patients_needed(0.8), patients_needed(0.9)
    (4, 9)
    """
    return max(1, math.ceil(coverage / (1.0 - coverage) - 1e-6))


def calibrate(predict: Predictor, pairs: Sequence[RoiPair], coverage: float) -> float:
    """Find a predictor's factor on validation pairs; infinity where it says no spread."""
    found = calibration_scores(predict, pairs)
    return math.inf if found is None else conformal_factor(*found, coverage)


@torch.no_grad()
def calibration_scores(
    predict: Predictor, pairs: Sequence[RoiPair]
) -> tuple[list[float], list[str]] | None:
    """Give the error of ln V over the predicted spread of each pair, and its patient.

    Pairs whose true follow-up mask is empty have no error and are left out. None where the
    predictor says no spread.
    """
    scores: list[float] = []
    patients: list[str] = []
    for start in range(0, len(pairs), _BATCH_SIZE):
        chunk = pairs[start : start + _BATCH_SIZE]
        batch = stack_pairs(chunk)
        found = predict(batch)
        if found.log_volume_spread is None:
            return None
        errors = log_volume_error(found.mask, batch.target_mask)
        ratios = errors / found.log_volume_spread.clamp_min(_SPREAD_FLOOR)
        for pair, ratio in zip(chunk, ratios.tolist(), strict=True):
            if math.isfinite(ratio):
                scores.append(ratio)
                patients.append(pair.patient_id)
    return scores, patients
