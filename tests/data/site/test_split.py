from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from nognet.config import SplitConfig
from nognet.data.site.split import assign_splits, quotas
from nognet.types import SPLITS, STRATA, Split, Stratum

strata_of = st.dictionaries(
    st.text("0123456789abcdef", min_size=4, max_size=8), st.sampled_from(STRATA), min_size=1
)
seeds = st.integers(0, 2**40)


def test_the_demo_cohort_is_split_12_4_8_with_strata_spread() -> None:
    names: list[Stratum] = ["growing"] * 10 + ["stable"] * 12 + ["shrinking"] * 2
    strata = {f"{i:04x}": name for i, name in enumerate(names)}
    for seed in range(20):
        splits = assign_splits(strata, SplitConfig(), seed=seed)
        assert Counter(splits.values()) == {"train": 12, "validation": 4, "test": 8}
        growing = Counter(splits[p] for p, name in strata.items() if name == "growing")
        assert growing["test"] in (3, 4)
        assert growing["train"] in (4, 5, 6)


@given(strata_of, seeds)
def test_every_patient_is_in_one_split_and_the_shares_are_met(
    strata: dict[str, Stratum], seed: int
) -> None:
    splits = assign_splits(strata, SplitConfig(), seed=seed)
    assert set(splits) == set(strata)
    assert {s: list(splits.values()).count(s) for s in SPLITS} == quotas(len(strata), SplitConfig())
    assert splits == assign_splits(dict(reversed(strata.items())), SplitConfig(), seed=seed)


@given(strata_of, strata_of, seeds)
def test_nobody_moves_when_patients_join(
    old: dict[str, Stratum], new: dict[str, Stratum], seed: int
) -> None:
    before = assign_splits(old, SplitConfig(), seed=seed)
    after = assign_splits({**new, **old}, SplitConfig(), seed=seed, before=before)
    assert {p: after[p] for p in old} == before
    assert set(after) == set(old) | set(new)


@given(st.integers(1, 500), st.floats(0.01, 0.48), st.floats(0.01, 0.48))
def test_somebody_is_always_left_to_train_on(n: int, validation: float, test: float) -> None:
    shares = quotas(n, SplitConfig(validation=validation, test=test))
    assert sum(shares.values()) == n
    assert shares["train"] >= 1
    assert min(shares.values()) >= (1 if n >= 3 else 0)


def test_another_seed_gives_another_split() -> None:
    strata: dict[str, Stratum] = {f"{i:04x}": "stable" for i in range(24)}
    found = [assign_splits(strata, SplitConfig(), seed=seed) for seed in range(5)]
    assert any(found[0] != other for other in found[1:])


@given(strata_of, seeds)
def test_every_stratum_is_spread_over_the_splits(strata: dict[str, Stratum], seed: int) -> None:
    splits = assign_splits(strata, SplitConfig(), seed=seed)
    shares = quotas(len(strata), SplitConfig())
    for stratum in STRATA:
        members = [patient for patient, found in strata.items() if found == stratum]
        for split in SPLITS:
            wanted = len(members) * shares[split] / len(strata)
            assert abs(sum(splits[p] == split for p in members) - wanted) < 2.0


@given(strata_of, seeds)
def test_joining_one_by_one_moves_nobody_and_leaves_no_split_far_behind(
    strata: dict[str, Stratum], seed: int
) -> None:
    known: dict[str, Split] = {}
    for count in range(1, len(strata) + 1):
        there = dict(list(strata.items())[:count])
        splits = assign_splits(there, SplitConfig(), seed=seed, before=known)
        assert {p: splits[p] for p in known} == known
        known = splits
    shares = quotas(len(strata), SplitConfig())
    for split in SPLITS:  # the first few patients all train, and none is ever taken back
        assert list(known.values()).count(split) >= min(shares[split], 1) or len(strata) < 5


@given(strata_of, seeds, st.data())
def test_who_leaves_and_comes_back_is_where_they_were(
    strata: dict[str, Stratum], seed: int, data: st.DataObject
) -> None:
    everybody = assign_splits(strata, SplitConfig(), seed=seed)
    stay = data.draw(st.sets(st.sampled_from(sorted(strata)), min_size=1))
    fewer = assign_splits({p: strata[p] for p in stay}, SplitConfig(), seed=seed, before=everybody)
    back = assign_splits(strata, SplitConfig(), seed=seed, before={**everybody, **fewer})
    assert back == everybody


@given(strata_of, seeds)
def test_a_new_stratum_moves_nobody(strata: dict[str, Stratum], seed: int) -> None:
    before = assign_splits(strata, SplitConfig(), seed=seed)
    grown: dict[str, Stratum] = dict.fromkeys(strata, "growing")
    assert assign_splits(grown, SplitConfig(), seed=seed, before=before) == before
