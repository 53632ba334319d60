"""The phantom's growth law: what a nodule looks like foretells, with scatter, how it will grow.

A volume follows ``V(t) = V0 exp(rate * t)``. The rate comes from what the baseline image shows:

| kind         | looks like                              | volume over time                   |
|--------------|-----------------------------------------|------------------------------------|
| spiculated   | solid, rays into the lung               | doubles in about 290 days          |
| lobulated    | solid, bumps, a feeding vessel          | doubles in about 400 days          |
| part_solid   | ground glass around a solid core        | doubles in 430 days, core condenses |
| smooth       | solid, round, small, sharp              | stable, a drift of a few % a year  |
| ground_glass | faint, homogeneous, no core             | nearly stable, slowly denser       |
| infectious   | ragged and blurred, of middling density | halves in about 430 days           |

Within a growing kind, *aggressiveness* in [0, 1] is visible (more and longer spicules, deeper
lobes, larger core) and shortens the doubling time; a lognormal factor that no image shows is left,
and one nodule in fifty breaks its kind's rule (a spiculated scar that rests, a round nodule
that grows).

A quarter of the nodules of growing kinds touch the pleura or a wide vessel (`contact.py`). The law
of the volume is the same for them; the axis along the direction of contact takes about a third of
what each other axis takes (0.35), and the surface there stays in place: they spread along the
obstacle and away from it.
In a real CT as background all nodules lie free.

Intervals and sizes follow the NLSTt tables (screening rounds of the National Lung Screening Trial,
github.com/liaw05/STMixer, Apache-2.0; 8,442 nodules, 23,086 ordered pairs of rounds): neighbouring
rounds lie 365 days apart (5th to 95th percentile 307 to 455), rounds 1 and 3 730 (679 to 844);
diameters at the earlier round have quartiles 6, 6.4 and 8 mm and a 90th percentile of 10 mm
(part-solid: median 11 mm, 90th percentile 22 mm); pairs that grow by 25 % and more from 5 mm on
double in 653 days in the median (10th percentile 373) with a lognormal spread of about 0.5.

Two things depart from the tables on purpose. Over all their pairs 24 % grow, 59 % are stable and
18 % shrink, but whole-millimetre diameters decide there (1 mm is 60 % of volume at 6 mm); cohorts
here are dealt 40 / 50 / 10. And nodules that grow do so at the fast end, as proven cancers do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nognet.types import Stratum

Kind = Literal["spiculated", "lobulated", "part_solid", "smooth", "ground_glass", "infectious"]
DAYS_PER_YEAR = 365.25
CONTRARY_SHARE = 0.02


@dataclass(frozen=True)
class GrowthRule:
    """How one kind of nodule behaves.

    Attributes:
        stratum: Where its pairs fall.
        pair_share: Share of a cohort's pairs that this kind makes up.
        diameter_mm: Range of the baseline's effective diameter.
        rate_per_year: Median of d ln V / dt.
        aggressiveness_effect: The least to the most aggressive differ by e^(+-effect).
        rate_spread: Lognormal sigma of the rate; for stable kinds the standard deviation, per year.
    """

    stratum: Stratum
    pair_share: float
    diameter_mm: tuple[float, float]
    rate_per_year: float
    aggressiveness_effect: float
    rate_spread: float


def rate_of_doubling(doubling_days: float) -> float:
    """Give d ln V / dt per year for a volume doubling time; negative for a halving time.

    >>> round(rate_of_doubling(365.25), 3)
    0.693
    """
    return math.log(2) * DAYS_PER_YEAR / doubling_days


RULES: dict[Kind, GrowthRule] = {
    "spiculated": GrowthRule("growing", 0.16, (7.0, 11.0), rate_of_doubling(290), 0.25, 0.15),
    "lobulated": GrowthRule("growing", 0.10, (7.0, 11.0), rate_of_doubling(400), 0.20, 0.15),
    "part_solid": GrowthRule("growing", 0.14, (9.0, 13.0), rate_of_doubling(430), 0.20, 0.15),
    "smooth": GrowthRule("stable", 0.30, (5.5, 9.0), 0.0, 0.0, 0.04),
    "ground_glass": GrowthRule("stable", 0.20, (7.0, 12.0), 0.04, 0.0, 0.03),
    "infectious": GrowthRule("shrinking", 0.10, (9.0, 13.0), rate_of_doubling(-430), 0.10, 0.15),
}


@dataclass(frozen=True)
class NodulePlan:
    """One nodule's fate.

    Attributes:
        kind: What it looks like.
        aggressiveness: Visible strength of its kind's signs, in [0, 1].
        diameter_mm: Effective diameter (of the sphere of its volume) at the first date.
        rate_per_year: d ln V / dt.
        contrary: Whether it breaks its kind's rule.
    """

    kind: Kind
    aggressiveness: float
    diameter_mm: float
    rate_per_year: float
    contrary: bool

    def volume_mm3(self, days: float) -> float:
        """Volume that many days after the first date."""
        first = math.pi / 6 * self.diameter_mm**3
        return float(first * math.exp(self.rate_per_year * days / DAYS_PER_YEAR))


def draw_nodule(kind: Kind, rng: np.random.Generator) -> NodulePlan:
    """Draw size, aggressiveness and rate of a nodule of that kind."""
    rule = RULES[kind]
    aggressiveness = float(rng.uniform())
    low, high = rule.diameter_mm
    diameter_mm = float(low + (high - low) * rng.beta(1.6, 2.0))
    scatter = float(np.clip(rng.standard_normal(), -2, 2))
    contrary = bool(rng.uniform() < CONTRARY_SHARE)
    rate = _rate(rule, aggressiveness, scatter)
    if contrary:
        rate = _contrary_rate(rule, scatter)
    return NodulePlan(kind, aggressiveness, diameter_mm, rate, contrary)


def foretold_rate(kind: Kind, aggressiveness: float) -> float:
    """Give the law's d ln V / dt a year without what no image shows: scatter, broken rules."""
    return _rate(RULES[kind], aggressiveness, 0.0)


def _rate(rule: GrowthRule, aggressiveness: float, scatter: float) -> float:
    if rule.stratum == "stable":
        return rule.rate_per_year + rule.rate_spread * scatter
    visible = rule.aggressiveness_effect * (2 * aggressiveness - 1)
    return rule.rate_per_year * math.exp(visible + rule.rate_spread * scatter)


def _contrary_rate(rule: GrowthRule, scatter: float) -> float:
    """A growing or shrinking kind rests; a stable kind grows as a slow lobulated one."""
    return rate_of_doubling(480) if rule.stratum == "stable" else 0.03 * scatter


def deal_kinds(pairs_of_nodules: Sequence[int], rng: np.random.Generator) -> list[Kind]:
    """Deal kinds to nodules so that every prefix of a cohort holds the mix of pairs.

    Args:
        pairs_of_nodules: For each nodule, how many pairs its dates make.
        rng: Breaks ties, so that cohorts of different seeds differ in order.

    Returns:
        A kind for each nodule. Each goes to the kind that is furthest behind its share of pairs.
    """
    kinds = list(RULES)
    shares = np.array([RULES[kind].pair_share for kind in kinds])
    dealt = np.zeros(len(kinds))
    head_start = rng.uniform(0.0, 1.0, len(kinds))
    result: list[Kind] = []
    for pairs in pairs_of_nodules:
        behind = shares * (dealt.sum() + pairs) + head_start * shares - dealt
        overshoot = np.maximum(dealt + pairs - shares * sum(pairs_of_nodules), 0.0)
        choice = int(np.argmax(behind - overshoot))
        dealt[choice] += pairs
        result.append(kinds[choice])
    return result


def draw_visit_days(visits: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Draw days since the first visit; gaps follow the tables (median 365, 5-95 % 307-455)."""
    gaps = np.clip(365 * np.exp(0.11 * rng.standard_normal(visits - 1)), 285, 480)
    return (0, *(int(day) for day in np.cumsum(np.round(gaps))))
