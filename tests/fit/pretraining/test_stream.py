from __future__ import annotations

from itertools import islice

import numpy as np

from nognet.config import RoiConfig
from nognet.fit.pretraining import stream
from nognet.fit.pretraining.stream import patients_seen, phantom_batches
from nognet.phantom.roi import make_roi_pairs
from nognet.types import RoiPair

ROI = RoiConfig(size_vox=32)


def taken(count: int, *, seed: int = 4, first: int = 0) -> list[tuple[RoiPair, ...]]:
    return list(islice(phantom_batches(ROI, 5, seed=seed, first=first), count))


def ids_of(batches: list[tuple[RoiPair, ...]]) -> list[str]:
    return [pair.pair_id for batch in batches for pair in batch]


def test_a_batch_is_known_by_its_number_alone() -> None:
    whole = taken(8)
    later = taken(2, first=6)
    assert ids_of(later) == ids_of(whole[6:])
    for one, other in zip(later[1], whole[7], strict=True):
        np.testing.assert_array_equal(one.baseline, other.baseline)
        np.testing.assert_array_equal(one.follow_up_mask, other.follow_up_mask)


def test_every_pair_is_seen_once_over_blocks() -> None:
    batches = taken(8)
    assert [len(batch) for batch in batches] == [5] * 8
    assert len(set(ids_of(batches))) == 40
    patients = {pair.patient_id for batch in batches for pair in batch}
    assert len(patients) <= patients_seen(40, 4) <= 18


def test_no_patient_of_a_cohort_of_the_same_seed_is_among_them() -> None:
    cohort = {p.patient_id for site in range(3) for p in make_roi_pairs(2, seed=4, site=site)}
    assert cohort.isdisjoint(pair.patient_id for batch in taken(3) for pair in batch)


def test_all_kinds_of_nodules_have_their_share() -> None:
    plans = [plan for block in range(stream._BLOCKS) for plan in stream._plans(block, 1)]
    kinds = {kind for plan in plans for kind in plan.kinds}
    assert kinds >= {"smooth", "spiculated", "ground_glass", "part_solid", "infectious"}
    assert len({(plan.site, plan.number) for plan in plans}) == len(plans) == 72
