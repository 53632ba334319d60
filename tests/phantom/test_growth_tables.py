"""The figures that `growth.py` quotes, held against the tables they come from."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytestmark = pytest.mark.real_data

DEFAULT = Path(__file__).resolve().parents[2].parent / "shared" / "data"
TABLES = "nlstt_growth_tables/registration coordinates"
PART_SOLID = 1


@dataclass(frozen=True)
class Tables:
    """Every ordered pair of rounds ``(N,)``: rounds between, diameters, days, texture."""

    nodules: int
    rounds: NDArray[np.float64]
    earlier_mm: NDArray[np.float64]
    later_mm: NDArray[np.float64]
    days: NDArray[np.float64]
    texture: NDArray[np.float64]

    @property
    def volume_ratio(self) -> NDArray[np.float64]:
        ratio: NDArray[np.float64] = (self.later_mm / self.earlier_mm) ** 3
        return ratio


@pytest.fixture(scope="module")
def tables() -> Tables:
    folder = Path(os.environ.get("NOGNET_REAL_DATA", DEFAULT)) / TABLES
    files = sorted(folder.glob("growth_nodule_*.csv"))
    if not files:
        pytest.skip(f"no growth tables at {folder}; set NOGNET_REAL_DATA to the data's folder")
    rows: list[dict[str, str]] = []
    for path in files:
        with path.open(newline="") as file:
            rows += csv.DictReader(file)
    pairs = np.array([pair for row in rows for pair in pairs_of(row)])
    return Tables(len(rows), *pairs.T)


def pairs_of(row: dict[str, str]) -> list[tuple[float, ...]]:
    """Give a nodule's pairs of rounds at which it was measured."""
    seen = []
    for number in range(3):
        values = [float(row[f"{name}{number}"]) for name in ("Seg_diam", "days", "texture")]
        if np.isfinite(values[:2]).all():
            seen.append((number, *values))
    return [
        (later[0] - first[0], first[1], later[1], later[2] - first[2], first[3])
        for first, later in combinations(seen, 2)
    ]


def test_the_tables_are_as_large_as_is_said(tables: Tables) -> None:
    assert (tables.nodules, len(tables.days)) == (8442, 23086)


@pytest.mark.parametrize(("rounds", "expected"), [(1, (307, 365, 455)), (2, (679, 730, 844))])
def test_days_between_rounds(tables: Tables, rounds: int, expected: tuple[float, ...]) -> None:
    days = tables.days[tables.rounds == rounds]
    assert np.percentile(days, (5, 50, 95)) == pytest.approx(expected, abs=0.5)


def test_diameters_at_the_earlier_round(tables: Tables) -> None:
    quoted = np.percentile(tables.earlier_mm, (25, 50, 75, 90))
    assert quoted == pytest.approx((6, 6.4, 8, 10), abs=0.05)
    part_solid = tables.earlier_mm[tables.texture == PART_SOLID]
    assert np.percentile(part_solid, (50, 90)) == pytest.approx((11, 22), abs=0.5)


def test_doubling_time_of_pairs_that_grow(tables: Tables) -> None:
    grown = (tables.volume_ratio >= 1.25) & (tables.earlier_mm >= 5)
    days = np.log(2) * tables.days[grown] / np.log(tables.volume_ratio[grown])
    assert np.percentile(days, (10, 50)) == pytest.approx((373, 653), abs=0.6)
    assert np.log(days).std() == pytest.approx(0.5, abs=0.05)


def test_mix_of_growth(tables: Tables) -> None:
    growing = float(np.mean(tables.volume_ratio >= 1.25))
    shrinking = float(np.mean(tables.volume_ratio <= 0.80))
    assert growing == pytest.approx(0.24, abs=0.005)
    assert shrinking == pytest.approx(0.18, abs=0.005)
    assert 1 - growing - shrinking == pytest.approx(0.59, abs=0.005)
