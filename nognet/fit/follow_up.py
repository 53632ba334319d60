"""Predict one nodule's follow-up at any horizon, in the units a reader thinks in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nognet.config import RoiConfig
from nognet.data.findings import Finding
from nognet.errors import ConfigError, TrainingError
from nognet.fit.baseline import Baseline
from nognet.fit.calibration import Calibration, volume_interval_mm3
from nognet.fit.model_file import SavedModel
from nognet.fit.predictors import FollowUp, network_predictor
from nognet.fit.weights import network_with
from nognet.metrics.deformation import folded_fraction
from nognet.metrics.volume import LOG_VOLUME_FLOOR_MM3
from nognet.network import Batch, Prior
from nognet.types import PriorScan

LONGEST_INTERVAL_DAYS = 20 * 365.25
LONGEST_TRAINED_DAYS = 5 * 365.25
"""Preparation takes pairs up to this interval by default; beyond it a model extrapolates."""
MEASURABLE_CHANGE = 0.25
"""A doubling time is given from this relative change of volume on (method.md)."""


@dataclass(frozen=True)
class NoduleFigures:
    """A nodule in numbers; None where there is nothing to measure.

    Attributes:
        volume_mm3: Native volume, or native baseline volume times the predicted ratio.
        effective_diameter_mm: Of a ball of that volume.
        mean_hu: Over the mask, within the model's HU window.
        mass_mg: Volume times mean density, density = (HU + 1000) / 1000 mg/mm3.
    """

    volume_mm3: float
    effective_diameter_mm: float
    mean_hu: float | None
    mass_mg: float | None


@dataclass(frozen=True)
class Horizon:
    """The prediction for one interval.

    Attributes:
        interval_days: From the baseline.
        image_hu: ROI ``(D, H, W)`` float32 in HU.
        mask: Probability above one half, ``(D, H, W)`` uint8 in {0, 1}.
        displacement_lps_mm: Pull-back field ``(D, H, W, 3)`` float32; x, y, z of LPS.
        figures: Volume, diameter, density, mass.
        growth_ratio: Predicted volume over baseline volume, both as sums over the ROI.
        doubling_time_days: None where the volume changes by less than 25 %, or to nothing.
        folded_fraction: Share of voxels where the field folds.
        volume_interval_mm3: Low and high; None where the model was not calibrated.
        findings: Warnings on this prediction.
    """

    interval_days: float
    image_hu: NDArray[np.float32]
    mask: NDArray[np.uint8]
    displacement_lps_mm: NDArray[np.float32]
    figures: NoduleFigures
    growth_ratio: float
    doubling_time_days: float | None
    folded_fraction: float
    findings: tuple[Finding, ...]
    volume_interval_mm3: tuple[float, float] | None = None


def check_intervals(intervals_days: Sequence[float]) -> tuple[float, ...]:
    """Sort intervals and drop repeated ones.

    Raises:
        ConfigError: there is none, or one is negative, not finite, or over 20 years.
    """
    if not intervals_days:
        raise ConfigError("no interval; give at least one, such as 365 days", code="interval")
    for days in intervals_days:
        if not 0 <= days <= LONGEST_INTERVAL_DAYS:  # NaN compares false and is refused too
            raise ConfigError(
                f"interval of {days:g} days: expected 0 to {LONGEST_INTERVAL_DAYS:g} (20 years) "
                "from the baseline CT",
                code="interval",
            )
    return tuple(sorted(set(intervals_days)))


def predict_follow_up(
    model: SavedModel,
    baseline: Baseline,
    intervals_days: Sequence[float],
    *,
    device: torch.device,
    prior: PriorScan | None = None,
    calibration: Calibration | None = None,
) -> Iterator[Horizon]:
    """Predict a nodule at each interval, shortest first; 0 days give the baseline itself.

    Args:
        model: The model.
        baseline: The nodule at the time at hand.
        intervals_days: Days from there, in any order.
        device: Where the model runs.
        prior: The nodule before, on the baseline's ROI; for a model that takes one.
        calibration: Of this model; gives the interval of the volume.

    Raises:
        ConfigError: an interval that makes no sense, or a baseline of another ROI than the model's.
        TrainingError: the model predicts values that are not finite.
    """
    intervals = check_intervals(intervals_days)
    expected = (model.roi.size_vox,) * 3
    if baseline.image.shape != expected:
        raise ConfigError(
            f"ROI of {baseline.image.shape} voxels, the model was trained on {expected}",
            code="roi-differs",
        )
    predict = network_predictor(network_with(model.network, model.weights, device), device)
    for days in intervals:
        batch = _batch(baseline, days, prior)
        yield _horizon(predict(batch), batch, (model.roi, baseline, days), calibration)


def to_hu(image: NDArray[np.float32], roi: RoiConfig) -> NDArray[np.float32]:
    """Undo the window: [0, 1] to HU, float32."""
    low, high = roi.hu_window
    hounsfield: NDArray[np.float32] = image * np.float32(high - low) + np.float32(low)
    return hounsfield


def nodule_figures(
    volume_mm3: float, image_hu: NDArray[np.float32], mask: NDArray[np.uint8]
) -> NoduleFigures:
    """Measure a nodule of a known volume whose density is that within `mask`.

    >>> ball = np.ones((2, 2, 2), np.uint8)
    >>> nodule_figures(100.0, np.full((2, 2, 2), -500, np.float32), ball).mass_mg
    50.0
    """
    inside = image_hu[mask == 1]
    mean_hu = float(inside.mean(dtype=np.float64)) if inside.size else None
    return NoduleFigures(
        volume_mm3=volume_mm3,
        effective_diameter_mm=(6.0 * volume_mm3 / math.pi) ** (1.0 / 3.0),
        mean_hu=mean_hu,
        mass_mg=None if mean_hu is None else volume_mm3 * (mean_hu + 1000.0) / 1000.0,
    )


def doubling_time_days(interval_days: float, growth_ratio: float) -> float | None:
    """Volume doubling time ``dt ln 2 / ln(V1 / V0)``; negative for a shrinking nodule.

    Given only where the volume changes by 25 % or more, for smaller changes are within what two
    measurements of one nodule differ by.

    >>> doubling_time_days(400.0, 2.0), doubling_time_days(400.0, 1.2)
    (400.0, None)
    """
    if growth_ratio <= 0 or abs(growth_ratio - 1.0) < MEASURABLE_CHANGE:
        return None
    return interval_days * math.log(2.0) / math.log(growth_ratio)


def _horizon(
    found: FollowUp,
    batch: Batch,
    known: tuple[RoiConfig, Baseline, float],
    calibration: Calibration | None,
) -> Horizon:
    roi, baseline, days = known
    _check_finite(found, days)
    probability = found.mask[0, 0]
    ratio = float(probability.double().sum() / batch.mask.double().sum())
    mask = (probability > 0.5).to(torch.uint8).numpy()
    image_hu = to_hu(found.image[0, 0].numpy(), roi)
    return Horizon(
        interval_days=days,
        image_hu=image_hu,
        mask=mask,
        displacement_lps_mm=_lps_mm(found.displacement_vox),
        figures=nodule_figures(baseline.volume_mm3 * ratio, image_hu, mask),
        growth_ratio=ratio,
        doubling_time_days=doubling_time_days(days, ratio),
        folded_fraction=float(folded_fraction(found.displacement_vox)[0]),
        findings=tuple(_doubts(mask, days)),
        volume_interval_mm3=_interval(found, batch, baseline, calibration),
    )


def _interval(
    found: FollowUp, batch: Batch, baseline: Baseline, calibration: Calibration | None
) -> tuple[float, float] | None:
    """Give the interval about the volume as calibration measures it: at least 1 mm3 of the ROI."""
    if calibration is None or found.log_volume_spread is None:
        return None
    voxels = max(float(found.mask.double().sum()), LOG_VOLUME_FLOOR_MM3)
    volume = baseline.volume_mm3 * voxels / float(batch.mask.double().sum())
    return volume_interval_mm3(volume, float(found.log_volume_spread[0]), calibration.factor)


def _batch(baseline: Baseline, days: float, prior: PriorScan | None) -> Batch:
    image = torch.from_numpy(baseline.image.copy())[None, None]
    mask = torch.from_numpy(baseline.mask.astype(np.float32))[None, None]
    return Batch(
        image=image,
        mask=mask,
        target_image=image,
        target_mask=mask,
        interval_days=torch.tensor([float(days)]),
        log_growth=torch.zeros(1),
        prior=None if prior is None else _prior(prior),
    )


def _prior(scan: PriorScan) -> Prior:
    return Prior(
        image=torch.from_numpy(scan.image.copy())[None, None],
        mask=torch.from_numpy(scan.mask.astype(np.float32))[None, None],
        days_before=torch.tensor([float(scan.days_before)]),
    )


def _lps_mm(displacement_vox: Tensor) -> NDArray[np.float32]:
    """Voxels in z, y, x order to millimetres in x, y, z: the ROI is 1 mm along LPS axes."""
    field: NDArray[np.float32] = displacement_vox[0].flip(0).permute(1, 2, 3, 0).numpy()
    return np.ascontiguousarray(field)


def _check_finite(found: FollowUp, days: float) -> None:
    for name in ("image", "mask", "displacement_vox"):
        if not torch.isfinite(getattr(found, name)).all():
            raise TrainingError(
                f"the model's {name} at {days:g} days is not finite; don't use this model",
                code="prediction-not-finite",
            )


def _doubts(mask: NDArray[np.uint8], days: float) -> Iterator[Finding]:
    if not mask.any():
        yield Finding("vanished", "warning", "no voxel is predicted to be nodule by more than 0.5")
    edge = np.ones(mask.shape, dtype=bool)
    edge[1:-1, 1:-1, 1:-1] = False
    if mask[edge].any():
        message = "the predicted nodule reaches the edge of the ROI: its volume is a lower bound"
        yield Finding("reaches-edge", "warning", message)
    if days > LONGEST_TRAINED_DAYS:
        message = f"{days:g} days lie beyond the 5 years that sites train on by default"
        yield Finding("extrapolated", "warning", message)
