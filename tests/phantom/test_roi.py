from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from nognet.config import RoiConfig
from nognet.phantom.growth import RULES
from nognet.phantom.patient import plan_patients
from nognet.phantom.roi import make_roi_pairs, resample_aligned
from nognet.types import STRATA, Geometry, RoiPair


@pytest.fixture(scope="module")
def pairs() -> list[RoiPair]:
    return make_roi_pairs(4, seed=3, site=1)


def test_pairs_are_what_the_network_expects(pairs: list[RoiPair]) -> None:
    for pair in pairs:
        for image in (pair.baseline, pair.follow_up):
            assert image.shape == (48, 48, 48)
            assert image.dtype == np.float32
            assert 0.0 <= image.min() < image.max() <= 1.0
        for mask in (pair.baseline_mask, pair.follow_up_mask):
            assert mask.dtype == np.uint8
            assert set(np.unique(mask)) == {0, 1}
        assert pair.interval_days > 200
    assert len({pair.pair_id for pair in pairs}) == len(pairs)


def test_masks_hold_the_volumes_and_stay_inside_the_roi(pairs: list[RoiPair]) -> None:
    for pair in pairs:
        assert pair.baseline_mask.sum() == pytest.approx(pair.baseline_volume_mm3, rel=0.02)
        assert pair.follow_up_mask.sum() == pytest.approx(pair.follow_up_volume_mm3, rel=0.02)
        border = pair.follow_up_mask.copy()
        border[4:-4, 4:-4, 4:-4] = 0
        assert border.sum() == 0


def test_a_nodule_is_brighter_than_the_lung_around_it(pairs: list[RoiPair]) -> None:
    for pair in pairs:
        inside = pair.baseline[pair.baseline_mask == 1].mean()
        # beside the pleura most of the ROI may be chest wall
        lung = np.quantile(pair.baseline[pair.baseline_mask == 0], 0.2)
        assert inside > lung + 0.1


def test_equal_seeds_give_equal_bits_and_others_not(pairs: list[RoiPair]) -> None:
    again = make_roi_pairs(4, seed=3, site=1)
    other = make_roi_pairs(1, seed=4, site=1)
    assert [p.pair_id for p in again] == [p.pair_id for p in pairs]
    assert all(
        np.array_equal(a.baseline, b.baseline) and np.array_equal(a.follow_up, b.follow_up)
        for a, b in zip(again, pairs, strict=True)
    )
    assert not np.array_equal(other[0].baseline, pairs[0].baseline)


def test_pairs_after_the_first_date_carry_the_scan_before_them(pairs: list[RoiPair]) -> None:
    followed = [pair for pair in pairs if pair.prior is not None]
    assert followed
    for pair in followed:
        assert pair.prior is not None
        [before] = [p for p in pairs if p.follow_up is pair.baseline]
        assert pair.prior.image is before.baseline
        assert pair.prior.mask is before.baseline_mask
        assert pair.prior.days_before == before.interval_days > 0
    first = [pair for pair in pairs if pair.prior is None]
    assert not any(p.baseline is q.follow_up for p in first for q in pairs)


def test_a_larger_roi_may_be_asked_for() -> None:
    pair = make_roi_pairs(1, seed=3, roi=RoiConfig(size_vox=64))[0]
    assert pair.baseline.shape == (64, 64, 64)


@pytest.mark.parametrize("site", [0, 1, 2, 5])
def test_every_hospital_holds_the_mix_over_pairs(site: int) -> None:
    counts: Counter[str] = Counter()
    for plan in plan_patients(site, 24, seed=1):
        for kind in plan.kinds:
            counts[RULES[kind].stratum] += len(list(combinations(plan.days, 2)))
    shares = {stratum: counts[stratum] / counts.total() for stratum in STRATA}
    assert shares["growing"] == pytest.approx(0.4, abs=0.06)
    assert shares["stable"] == pytest.approx(0.5, abs=0.06)
    assert shares["shrinking"] == pytest.approx(0.1, abs=0.05)


def test_aligned_resampling_reproduces_a_plane_exactly() -> None:
    source = Geometry((20, 22, 16), (0.9, 0.9, 1.4), (-1.0, -2.0, -3.0))
    target = Geometry((12, 12, 12), (1.0, 1.0, 1.0), (1.3, 0.7, 2.1))

    def plane(geometry: Geometry) -> np.ndarray:
        index = np.argwhere(np.ones(geometry.size[::-1]))[:, ::-1].astype(float)
        world = geometry.index_to_world(index)
        return (world @ [2.0, -3.0, 0.5] + 7.0).reshape(geometry.size[::-1]).astype(np.float32)

    image = plane(source)
    before = image.copy()
    assert resample_aligned(image, source, target) == pytest.approx(plane(target), abs=1e-3)
    assert np.array_equal(image, before)
