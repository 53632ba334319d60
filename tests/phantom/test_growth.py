from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nognet.phantom.growth import RULES, Kind, deal_kinds, draw_nodule, draw_visit_days
from nognet.types import STRATA, stratum_of

KINDS: list[Kind] = list(RULES)


def share_of_strata(kinds: list[Kind], pairs: list[int]) -> dict[str, float]:
    counts: Counter[str] = Counter()
    for kind, weight in zip(kinds, pairs, strict=True):
        counts[RULES[kind].stratum] += weight
    return {stratum: counts[stratum] / sum(pairs) for stratum in STRATA}


def test_shares_of_the_rules_are_the_mix_of_a_cohort() -> None:
    total = {s: sum(r.pair_share for r in RULES.values() if r.stratum == s) for s in STRATA}
    assert total == pytest.approx({"growing": 0.4, "stable": 0.5, "shrinking": 0.1})


@given(seed=st.integers(0, 10_000), nodules=st.integers(28, 60))
def test_dealt_kinds_keep_the_mix_of_pairs(seed: int, nodules: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = [int(p) for p in rng.choice([1, 3], nodules)]
    shares = share_of_strata(deal_kinds(pairs, rng), pairs)
    assert shares["growing"] == pytest.approx(0.4, abs=0.1)
    assert shares["stable"] == pytest.approx(0.5, abs=0.1)
    assert shares["shrinking"] == pytest.approx(0.1, abs=0.07)


@pytest.mark.parametrize("kind", KINDS)
def test_nodules_fall_into_the_stratum_of_their_kind_unless_contrary(kind: Kind) -> None:
    rng = np.random.default_rng(3)
    nodules = [draw_nodule(kind, rng) for _ in range(300)]
    lawful = [n for n in nodules if not n.contrary]
    for days in (300, 365, 730):
        strata = [stratum_of(n.volume_mm3(0), n.volume_mm3(days)) for n in lawful]
        assert Counter(strata)[RULES[kind].stratum] >= 0.97 * len(lawful)
    assert 0 < len(nodules) - len(lawful) < 0.1 * len(nodules)


def test_visible_aggressiveness_foretells_the_rate_with_scatter_left() -> None:
    rng = np.random.default_rng(4)
    nodules = [n for _ in range(400) if not (n := draw_nodule("spiculated", rng)).contrary]
    seen = np.array([n.aggressiveness for n in nodules])
    rate = np.log([n.rate_per_year for n in nodules])
    correlation = float(np.corrcoef(seen, rate)[0, 1])
    assert 0.5 < correlation < 0.9


def test_volume_doubles_in_the_doubling_time() -> None:
    nodule = draw_nodule("lobulated", np.random.default_rng(5))
    doubling_days = math.log(2) / nodule.rate_per_year * 365.25
    assert nodule.volume_mm3(doubling_days) == pytest.approx(2 * nodule.volume_mm3(0))
    assert nodule.volume_mm3(0) == pytest.approx(math.pi / 6 * nodule.diameter_mm**3)


def test_gaps_between_visits_follow_the_screening_tables() -> None:
    rng = np.random.default_rng(6)
    gaps = np.concatenate([np.diff(draw_visit_days(3, rng)) for _ in range(1000)])
    assert np.median(gaps) == pytest.approx(365, abs=8)
    assert np.percentile(gaps, 5) == pytest.approx(307, abs=12)
    assert np.percentile(gaps, 95) == pytest.approx(440, abs=20)
