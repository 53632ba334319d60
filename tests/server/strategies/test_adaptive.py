"""Against algorithm 2 of Reddi et al. 2021, written down number by number in plain Python."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tests.builders.strategy_rounds import START, cohort, combined, study_with, wide

ETA, BETA_1, BETA_2, TAU = 0.05, 0.8, 0.95, 2e-2


def second(name: str, v: float, delta: float) -> float:
    """Give v_t of one number."""
    if name == "fedadagrad":
        return v + delta**2
    if name == "fedadam":
        return BETA_2 * v + (1 - BETA_2) * delta**2
    sign = (v > delta**2) - (v < delta**2)
    return v - (1 - BETA_2) * delta**2 * sign


@pytest.mark.parametrize("name", ["fedadagrad", "fedadam", "fedyogi"])
def test_the_steps_are_those_of_the_paper_over_five_rounds(tmp_path: Path, name: str) -> None:
    strategy = {"name": name, "server_learning_rate": ETA, "tau": TAU, "beta_1": BETA_1}
    if name != "fedadagrad":
        strategy["beta_2"] = BETA_2
    study = study_with(tmp_path, strategy)
    weights, kept = START, {}
    x, m, v = [float(s) for s in START], [0.0] * len(START), [TAU**2] * len(START)
    for number in range(1, 6):
        replies = cohort(4, number)
        weights, kept = combined(study, replies, number=number, weights=weights, kept=kept)
        mean = np.average(wide(replies), axis=0, weights=[r.n_pairs for r in replies])
        for i, target in enumerate(mean):
            delta = float(target) - x[i]
            m[i] = BETA_1 * m[i] + (1 - BETA_1) * delta
            v[i] = second(name, v[i], delta)
            x[i] += ETA * m[i] / (math.sqrt(v[i]) + TAU)
        assert np.allclose(weights, x, rtol=0, atol=2e-6)
        assert np.allclose(kept["v"], v, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", ["fedadagrad", "fedadam", "fedyogi", "fedavgm"])
def test_without_what_was_kept_a_run_goes_another_way(tmp_path: Path, name: str) -> None:
    study, replies = study_with(tmp_path, name), cohort(4)
    first, kept = combined(study, replies)
    on, _ = combined(study, replies, number=2, weights=first, kept=kept)
    anew, _ = combined(study, replies, number=2, weights=first)
    assert not np.array_equal(on, anew)
