"""Mergeable counts and sums: what is left of a site's pairs when they leave the site.

Each class is a commutative monoid under `merge`, with its default value as the identity. Merging
adds, so the two sides must have no patient in common: merge sites, never two parts of one site's
patients.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nognet.types import STRATA, Stratum


@dataclass(frozen=True)
class Moments:
    """Count, sum and sum of squares of one metric over pairs.

    Attributes:
        n_pairs: Pairs that the metric is defined for.
        n_patients: Patients behind them.
        total: Sum of the values.
        total_squares: Sum of their squares.
        withheld: Sites whose pairs are not in these sums, for too few patients stand behind them
            (`nognet.metrics.withholding`).
    """

    n_pairs: int = 0
    n_patients: int = 0
    total: float = 0.0
    total_squares: float = 0.0
    withheld: int = 0

    @classmethod
    def of(cls, values: Iterable[float], patients: Iterable[str]) -> Moments:
        """Sum values, one a pair, and count the distinct patients they belong to.

        Raises:
            ValueError: a value is not finite, or the two differ in length.
        """
        pairs = list(zip(values, patients, strict=True))
        if not all(math.isfinite(value) for value, _ in pairs):
            raise ValueError("a metric's value is not finite; leave undefined pairs out")
        return cls(
            n_pairs=len(pairs),
            n_patients=len({patient for _, patient in pairs}),
            total=math.fsum(value for value, _ in pairs),
            total_squares=math.fsum(value * value for value, _ in pairs),
        )

    def merge(self, other: Moments) -> Moments:
        """Add the sums of two disjoint sets of patients."""
        return Moments(
            n_pairs=self.n_pairs + other.n_pairs,
            n_patients=self.n_patients + other.n_patients,
            total=self.total + other.total,
            total_squares=self.total_squares + other.total_squares,
            withheld=self.withheld + other.withheld,
        )

    @property
    def mean(self) -> float | None:
        """Mean over pairs; None without any."""
        return self.total / self.n_pairs if self.n_pairs else None

    @property
    def sd(self) -> float | None:
        """Sample standard deviation (n - 1) over pairs; None below two."""
        if self.n_pairs < 2:
            return None
        squares = self.total_squares - self.total * self.total / self.n_pairs
        return math.sqrt(max(squares, 0.0) / (self.n_pairs - 1))


@dataclass(frozen=True)
class StratifiedMoments:
    """A metric's moments over all pairs and over those of each growth stratum."""

    all: Moments = Moments()
    strata: Mapping[Stratum, Moments] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Give each stratum its moments, empty where none were given.

        Raises:
            ValueError: an unknown stratum.
        """
        if unknown := set(self.strata) - set(STRATA):
            raise ValueError(f"unknown strata {sorted(unknown)}, expected {STRATA}")
        filled = {stratum: self.strata.get(stratum, Moments()) for stratum in STRATA}
        object.__setattr__(self, "strata", filled)

    def merge(self, other: StratifiedMoments) -> StratifiedMoments:
        """Merge overall and stratum by stratum."""
        merged = {name: self.strata[name].merge(other.strata[name]) for name in STRATA}
        return StratifiedMoments(self.all.merge(other.all), merged)

    def figure(self) -> dict[str, Any]:
        """Give the figure of `metrics.json`: mean, sd, counts, and each stratum's mean."""
        strata = {
            name: {
                "mean": moments.mean,
                "n_pairs": moments.n_pairs,
                "withheld": moments.withheld,
            }
            for name, moments in self.strata.items()
        }
        return {
            "mean": self.all.mean,
            "sd": self.all.sd,
            "n_patients": self.all.n_patients,
            "n_pairs": self.all.n_pairs,
            "withheld": self.all.withheld,
            "strata": strata,
        }


@dataclass(frozen=True)
class Concordance:
    """How often the predicted growth ranks a growing nodule above another: the AUC's counts.

    Attributes:
        wins: Comparisons in the right order, a tie counting one half.
        comparisons: Growing pairs times the others, within each site.
        n_pairs: Pairs that were compared.
        n_patients: Patients behind them.
        withheld: Sites whose comparisons are not in these, as in `Moments`.
    """

    wins: float = 0.0
    comparisons: int = 0
    n_pairs: int = 0
    n_patients: int = 0
    withheld: int = 0

    @classmethod
    def of(
        cls, scores: Iterable[float], is_growing: Iterable[bool], patients: Iterable[str]
    ) -> Concordance:
        """Compare each growing pair's score with each other pair's.

        Raises:
            ValueError: a score is not a number, or the three differ in length.
        """
        rows = list(zip(scores, is_growing, patients, strict=True))
        growing = np.array([score for score, grows, _ in rows if grows], dtype=np.float64)
        others = np.array([score for score, grows, _ in rows if not grows], dtype=np.float64)
        if np.isnan(growing).any() or np.isnan(others).any():
            raise ValueError("a predicted growth ratio is not a number")
        return cls(
            wins=_wins(growing, others),
            comparisons=growing.size * others.size,
            n_pairs=len(rows),
            n_patients=len({patient for _, _, patient in rows}),
        )

    def merge(self, other: Concordance) -> Concordance:
        """Add the comparisons of two disjoint sets of patients; none are made across them."""
        return Concordance(
            wins=self.wins + other.wins,
            comparisons=self.comparisons + other.comparisons,
            n_pairs=self.n_pairs + other.n_pairs,
            n_patients=self.n_patients + other.n_patients,
            withheld=self.withheld + other.withheld,
        )

    @property
    def auc(self) -> float | None:
        """Area under the ROC curve; None without both kinds of nodules."""
        return self.wins / self.comparisons if self.comparisons else None

    def figure(self) -> dict[str, Any]:
        """Give the figure of `metrics.json`; it has neither a deviation nor strata."""
        return {
            "mean": self.auc,
            "sd": None,
            "n_patients": self.n_patients,
            "n_pairs": self.n_pairs,
            "withheld": self.withheld,
            "strata": {},
        }


def _wins(growing: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Count comparisons won, ties one half, in O(n log n)."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, growing, side="left").sum()
    not_above = np.searchsorted(ordered, growing, side="right").sum()
    return float(below + not_above) / 2
