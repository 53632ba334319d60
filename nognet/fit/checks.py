"""What pairs have to be before they are trained on or evaluated, and a study under privacy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nognet.config import RoiConfig, StudyConfig
from nognet.errors import ConfigError, TrainingError
from nognet.types import PriorScan, RoiPair

MAX_INTERVAL_DAYS = 20 * 365.25
_CHECKED_VOLUME_MM3 = 100.0  # below it, rounding to voxels hides the spacing
_SPACING_FACTOR = 3.0  # of volumes: 0.69 mm and less, 1.45 mm and more are caught
_AGAIN = "delete the cache and prepare the site again"

Shape = tuple[int, ...]


def check_pairs(
    pairs: Sequence[RoiPair], roi: RoiConfig | None = None, *, mask_required: bool = True
) -> None:
    """Refuse the first pair that can't be learnt from.

    A pair carries no spacing: it is told from the mask, whose voxels are 1 mm3 each and so have to
    come to about the volume measured on the native grid.

    Args:
        pairs: To check; they are only read.
        roi: Its size holds for all; None holds all pairs to the first one's shape.
        mask_required: Whether the baseline mask may not be empty.

    Raises:
        TrainingError: a shape, the spacing, voxels, a mask, the interval or a volume is wrong; the
            message names the pair, and the code the fault.
    """
    if not pairs:
        return
    shape = (roi.size_vox,) * 3 if roi else tuple(pairs[0].baseline.shape)
    for pair in pairs:
        _check_numbers(pair)
        _check_volumes(pair.pair_id, "", (pair.baseline, pair.baseline_mask), shape)
        _check_volumes(pair.pair_id, "follow-up ", (pair.follow_up, pair.follow_up_mask), shape)
        _check_not_empty(pair, mask_required=mask_required)
        _check_spacing(pair)
        if pair.prior is not None:
            _check_prior(pair.pair_id, pair.prior, shape)


def _check_numbers(pair: RoiPair) -> None:
    _check_days(pair.pair_id, "the interval", pair.interval_days)
    for name in ("baseline_volume_mm3", "follow_up_volume_mm3"):
        volume = getattr(pair, name)
        if not (np.isfinite(volume) and volume > 0):
            raise TrainingError(
                f"pair {pair.pair_id}: {name} is {volume:g}; expected a volume above 0 mm3; "
                f"{_AGAIN}",
                code="volume-invalid",
            )


def _check_days(pair_id: str, name: str, days: float) -> None:
    if not (np.isfinite(days) and days > 0):
        raise TrainingError(
            f"pair {pair_id}: {name} is {days:g} days; expected more than 0: the later scan has to "
            "come after the earlier one; correct the dates in the studies table and prepare again",
            code="interval-not-positive",
        )
    if days > MAX_INTERVAL_DAYS:
        raise TrainingError(
            f"pair {pair_id}: {name} is {days:g} days ({days / 365.25:.1f} years); expected at "
            "most 20 years; a date is probably wrong; correct it in the studies table and prepare "
            "again",
            code="interval-absurd",
        )


def _check_volumes(
    pair_id: str, which: str, scan: tuple[NDArray[np.float32], NDArray[np.uint8]], shape: Shape
) -> None:
    """Check an image and its mask; `which` names the time in messages."""
    image, mask = scan
    for name, array in ((f"{which}image", image), (f"{which}mask", mask)):
        if array.shape != shape:
            raise TrainingError(
                f"pair {pair_id}: {name} has shape {array.shape}, expected {shape} (roi.size_vox "
                f"at 1 mm); {_AGAIN} with the study's roi",
                code="roi-shape",
            )
    bad = int(image.size - np.isfinite(image).sum())
    if bad:
        raise TrainingError(
            f"pair {pair_id}: {which}image has {bad} voxels that are not finite; expected values "
            f"in [0, 1]; {_AGAIN}",
            code="voxels-not-finite",
        )
    low, high = float(image.min()), float(image.max())
    if low < 0 or high > 1:
        raise TrainingError(
            f"pair {pair_id}: {which}image has values from {low:g} to {high:g}; expected the HU "
            f"window scaled to [0, 1]; {_AGAIN}",
            code="voxels-out-of-range",
        )
    odd = (mask != 0) & (mask != 1)
    if odd.any():
        raise TrainingError(
            f"pair {pair_id}: {which}mask has {int(odd.sum())} voxels other than 0 and 1 (found "
            f"{float(mask[odd][0]):g}); expected a binary mask; {_AGAIN}",
            code="mask-not-binary",
        )


def _check_not_empty(pair: RoiPair, *, mask_required: bool) -> None:
    if mask_required and not pair.baseline_mask.any():
        raise TrainingError(
            f"pair {pair.pair_id}: the mask is empty; expected the baseline nodule; outline it and "
            "prepare again, or set network.missing_mask: predicted (or zeros)",
            code="mask-empty",
        )
    if not pair.follow_up_mask.any():
        raise TrainingError(
            f"pair {pair.pair_id}: the follow-up mask is empty; expected the nodule, which is what "
            "is learnt; outline it and prepare again, or exclude the pair",
            code="mask-empty",
        )


def _check_spacing(pair: RoiPair) -> None:
    count, volume = int(pair.baseline_mask.sum()), pair.baseline_volume_mm3
    if not count or max(count, volume) < _CHECKED_VOLUME_MM3:
        return
    ratio = volume / count
    if not 1 / _SPACING_FACTOR <= ratio <= _SPACING_FACTOR:
        raise TrainingError(
            f"pair {pair.pair_id}: the mask has {count} voxels for a nodule of {volume:.0f} mm3, a "
            f"spacing of about {ratio ** (1 / 3):.2f} mm; expected 1 mm along every axis; resample "
            "the ROI by `nognet prepare`",
            code="spacing",
        )


def _check_prior(pair_id: str, prior: PriorScan, shape: Shape) -> None:
    _check_days(pair_id, "the time from the prior scan", prior.days_before)
    _check_volumes(pair_id, "prior ", (prior.image, prior.mask), shape)


def check_private(study: StudyConfig) -> None:
    """Refuse what DP-SGD can't do, or what would leave the site beside its noised update.

    Raises:
        ConfigError: what it is, and what to do.
    """
    training = study.training
    if not study.strategy.private:
        raise ConfigError(
            f"strategy {study.strategy.name} wants more of a site than its noised update, which "
            "privacy doesn't cover; the site takes no part, or the study takes another strategy",
            code="strategy-private",
        )
    if training.precision == "fp16":
        raise ConfigError(
            "training.precision: fp16 scales the loss, which privacy's clipping can't allow for; "
            "set precision: bf16 or fp32",
            code="precision-private",
        )
    if training.accumulate > 1:
        raise ConfigError(
            f"training.accumulate: {training.accumulate} is not possible under privacy, which "
            "takes one sample at a time already; raise training.batch_size and set accumulate: 1",
            code="accumulate-private",
        )
