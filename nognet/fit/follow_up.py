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
from nognet.fit.model_file import SavedModel
from nognet.fit.predictors import FollowUp, Predictor, network_predictor
from nognet.fit.weights import network_with
from nognet.metrics.deformation import folded_fraction
from nognet.network import Batch

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
) -> Iterator[Horizon]:
    """Predict a nodule at each interval, shortest first; 0 days give the baseline itself.

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
        yield _horizon(predict, model.roi, baseline, days)


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


def _horizon(predict: Predictor, roi: RoiConfig, baseline: Baseline, days: float) -> Horizon:
    batch = _batch(baseline, days)
    found = predict(batch)
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
    )


def _batch(baseline: Baseline, days: float) -> Batch:
    image = torch.from_numpy(baseline.image.copy())[None, None]
    mask = torch.from_numpy(baseline.mask.astype(np.float32))[None, None]
    return Batch(
        image=image,
        mask=mask,
        target_image=image,
        target_mask=mask,
        interval_days=torch.tensor([float(days)]),
        log_growth=torch.zeros(1),
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
