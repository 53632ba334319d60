"""Calibrate one model's volume interval on the validation patients of a prepared site."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from pydantic import ValidationError

from nognet.config.learning import UncertaintyConfig
from nognet.data.store import PreparedSite
from nognet.errors import ConfigError, SiteDataError
from nognet.fit.conformal import calibration_scores, conformal_factor, patients_needed
from nognet.fit.model_file import SavedModel
from nognet.fit.predictors import network_predictor
from nognet.fit.weights import network_with

LARGEST_RADIUS = 600.0
"""Of ln V, so that the ends of an interval stay finite."""


@dataclass(frozen=True)
class Calibration:
    """What stretches a model's spread to an interval, and what it was found on.

    Attributes:
        site: Name of the site; nothing else of its patients is kept but their number.
        coverage: Nominal, in (0, 1).
        factor: Half width of the interval of ln V over the predicted spread.
        n_patients: Validation patients.
        n_pairs: Their pairs.
    """

    site: str
    coverage: float
    factor: float
    n_patients: int
    n_pairs: int


def check_coverage(coverage: float) -> float:
    """Hold a nominal coverage against the limits of a study's `uncertainty.coverage`.

    Raises:
        ConfigError: it is not above 0 and below 1.
    """
    try:
        return UncertaintyConfig(coverage=coverage).coverage
    except ValidationError as err:
        raise ConfigError(
            f"coverage {coverage:g}: expected above 0 and below 1, such as 0.8", code="coverage"
        ) from err


def calibrate_model(
    model: SavedModel, name: str, prepared: PreparedSite, coverage: float, *, device: torch.device
) -> Calibration:
    """Find a model's factor on a site's validation patients.

    Args:
        model: The model that predicts, and no other.
        name: The site's.
        prepared: Its pairs.
        coverage: Nominal, in (0, 1).
        device: Where the model runs.

    Raises:
        ConfigError: the site's ROI or HU window is not the model's.
        SiteDataError: too few validation patients for that coverage.
    """
    _check_same_roi(model, prepared)
    predict = network_predictor(network_with(model.network, model.weights, device), device)
    scores, patients = calibration_scores(predict, prepared.pairs("validation")) or ([], [])
    factor = conformal_factor(scores, patients, coverage)
    found = len(set(patients))
    if not math.isfinite(factor):
        raise SiteDataError(
            f"site {name}: {found} validation patients can be used, a coverage of {coverage:g} "
            f"needs {patients_needed(coverage)}; prepare more patients, or ask for a lower "
            "coverage",
            code="too-few-patients",
        )
    return Calibration(name, coverage, factor, found, len(scores))


def volume_interval_mm3(volume_mm3: float, spread: float, factor: float) -> tuple[float, float]:
    """Give the interval of a predicted volume: ``V exp(-+ factor x spread)``, in mm3.

    >>> low, high = volume_interval_mm3(100.0, math.log(2.0), 2.0)
    >>> round(low, 9), round(high, 9)
    (25.0, 400.0)
    """
    radius = min(factor * spread, LARGEST_RADIUS)
    return volume_mm3 * math.exp(-radius), volume_mm3 * math.exp(radius)


def _check_same_roi(model: SavedModel, prepared: PreparedSite) -> None:
    if prepared.roi != model.roi:
        raise ConfigError(
            f"{prepared.folder}: the site's pairs were cut with roi "
            f"{prepared.roi.canonical_json()}, the model was trained on "
            f"{model.roi.canonical_json()}; calibrate on a site prepared with the model's roi",
            code="roi-differs",
        )
