from __future__ import annotations

from pathlib import Path
from statistics import median

import numpy as np
import pytest

from tests.builders.strategy_rounds import cohort, combined, study_with, wide


@pytest.mark.parametrize("count", [3, 4, 7, 8])
def test_the_median_is_taken_number_by_number(tmp_path: Path, count: int) -> None:
    replies = cohort(count)
    new, _ = combined(study_with(tmp_path, "fedmedian"), replies)
    naive = [median(column) for column in wide(replies).T]
    assert np.allclose(new, naive, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("count", "beta", "cut"), [(5, 0.2, 1), (7, 0.3, 2), (9, 0.45, 4)])
def test_the_trimmed_mean_drops_so_many_at_each_end(
    tmp_path: Path, count: int, beta: float, cut: int
) -> None:
    replies = cohort(count)
    new, _ = combined(study_with(tmp_path, {"name": "fedtrimmedavg", "beta": beta}), replies)
    naive = [float(np.mean(sorted(column)[cut : count - cut])) for column in wide(replies).T]
    assert np.allclose(new, naive, rtol=0, atol=1e-6)
