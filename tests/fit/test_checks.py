from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from nognet.config import RoiConfig
from nognet.errors import TrainingError
from nognet.fit.checks import check_pairs
from nognet.fit.tensors import stack_pairs
from nognet.types import PriorScan, RoiPair
from tests.builders.federation import roi_pair

ROI = RoiConfig(size_vox=32)


def _pair(**changes: Any) -> RoiPair:
    return dataclasses.replace(roi_pair(7, np.random.default_rng(0)), **changes)


def _image(value: float = np.nan) -> np.ndarray:
    image = _pair().baseline.copy()
    image[3, 4, 5] = value
    return image


def _twos() -> np.ndarray:
    return _pair().baseline_mask * 2


def _prior(**changes: Any) -> PriorScan:
    whole = PriorScan(_pair().baseline, _pair().baseline_mask, 100.0)
    return dataclasses.replace(whole, **changes)


EMPTY = np.zeros((32, 32, 32), np.uint8)
FAULTS = {
    "an image of another size": ({"baseline": np.zeros((16, 32, 32), np.float32)}, "roi-shape"),
    "a mask of another size": ({"follow_up_mask": EMPTY[:31]}, "roi-shape"),
    "a flat image": ({"follow_up": np.zeros((32, 32), np.float32)}, "roi-shape"),
    "NaN in the baseline": ({"baseline": _image()}, "voxels-not-finite"),
    "inf in the follow-up": ({"follow_up": _image(np.inf)}, "voxels-not-finite"),
    "Hounsfield units": ({"baseline": _image(-800.0)}, "voxels-out-of-range"),
    "an empty mask": ({"baseline_mask": EMPTY}, "mask-empty"),
    "an empty mask at follow-up": ({"follow_up_mask": EMPTY}, "mask-empty"),
    "a mask of labels": ({"baseline_mask": _twos()}, "mask-not-binary"),
    "a negative interval": ({"interval_days": -30.0}, "interval-not-positive"),
    "no interval": ({"interval_days": 0.0}, "interval-not-positive"),
    "NaN days": ({"interval_days": float("nan")}, "interval-not-positive"),
    "an absurd interval": ({"interval_days": 7306.0}, "interval-absurd"),
    "no volume": ({"follow_up_volume_mm3": 0.0}, "volume-invalid"),
    "an infinite volume": ({"baseline_volume_mm3": float("inf")}, "volume-invalid"),
    "2 mm spacing": ({"baseline_volume_mm3": 8.0 * _pair().baseline_mask.sum()}, "spacing"),
    "0.5 mm spacing": ({"baseline_volume_mm3": _pair().baseline_mask.sum() / 8.0}, "spacing"),
    "a prior after the baseline": ({"prior": _prior(days_before=-1.0)}, "interval-not-positive"),
    "NaN in the prior": ({"prior": _prior(image=_image())}, "voxels-not-finite"),
    "a prior of another size": ({"prior": _prior(mask=EMPTY[1:])}, "roi-shape"),
}


@pytest.mark.parametrize(("changes", "code"), FAULTS.values(), ids=FAULTS.keys())
def test_each_fault_is_refused_by_the_pairs_id_with_what_to_do(
    changes: dict[str, Any], code: str
) -> None:
    good = roi_pair(1, np.random.default_rng(1))
    with pytest.raises(TrainingError, match=r"^pair 00000007: .*expected .*; ") as caught:
        check_pairs([good, _pair(**changes)], ROI)
    assert caught.value.code == code
    assert good.pair_id not in str(caught.value)


@pytest.mark.parametrize(("changes", "code"), FAULTS.values(), ids=FAULTS.keys())
def test_stacking_refuses_them_too_but_for_a_missing_baseline_mask(
    changes: dict[str, Any], code: str
) -> None:
    pairs = [roi_pair(1, np.random.default_rng(1)), _pair(**changes)]
    if code == "mask-empty" and "baseline_mask" in changes:
        assert stack_pairs(pairs).mask[1].sum() == 0
        return
    with pytest.raises(TrainingError, match="pair 00000007") as caught:
        stack_pairs(pairs)
    assert caught.value.code == code


def test_good_pairs_pass_and_are_only_read() -> None:
    pairs = [_pair(), _pair(interval_days=20 * 365.25), _pair(prior=_prior(mask=EMPTY))]
    for pair in pairs:
        for array in (pair.baseline, pair.baseline_mask, pair.follow_up, pair.follow_up_mask):
            array.flags.writeable = False
    before = [pair.baseline.copy() for pair in pairs]
    check_pairs(pairs, ROI)  # raises on what it doesn't like, and on writing into what is read-only
    check_pairs(pairs)
    check_pairs([])
    assert all(np.array_equal(p.baseline, b) for p, b in zip(pairs, before, strict=True))


def test_pairs_have_to_be_of_the_studys_size() -> None:
    with pytest.raises(TrainingError, match=r"shape \(32, 32, 32\), expected \(48, 48, 48\)"):
        check_pairs([_pair()], RoiConfig(size_vox=48))


def test_an_empty_mask_passes_where_the_network_segments_for_itself() -> None:
    without = [_pair(baseline_mask=EMPTY)]
    check_pairs(without, ROI, mask_required=False)
    with pytest.raises(TrainingError, match="the mask is empty"):
        check_pairs(without, ROI)


def test_a_small_nodules_volume_says_nothing_of_the_spacing() -> None:
    tiny = EMPTY.copy()
    tiny[16, 16, 16:20] = 1
    check_pairs([_pair(baseline_mask=tiny, baseline_volume_mm3=40.0)], ROI)
    with pytest.raises(TrainingError, match="spacing"):  # the same mask, said to be large
        check_pairs([_pair(baseline_mask=tiny, baseline_volume_mm3=400.0)], ROI)
