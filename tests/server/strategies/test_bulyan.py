from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.strategy_rounds import cohort, combined, study_with, wide


def by_the_paper(rows: np.ndarray[Any, np.dtype[np.float64]], bad: int) -> list[float]:
    """Follow El Mhamdi et al. 2018, section 4, step by step with lists."""
    received = [list(row) for row in rows]
    selection: list[list[float]] = []
    while len(selection) < len(rows) - 2 * bad:
        scored = []
        for i, one in enumerate(received):
            gaps = sorted(
                sum((a - b) ** 2 for a, b in zip(one, other, strict=True))
                for j, other in enumerate(received)
                if j != i
            )
            scored.append(sum(gaps[: max(1, len(received) - bad - 2)]))
        selection.append(received.pop(scored.index(min(scored))))
    result = []
    for column in zip(*selection, strict=True):
        middle = float(np.median(column))
        near = sorted(column, key=lambda value, m=middle: abs(value - m))
        result.append(float(np.mean(near[: len(selection) - 2 * bad])))
    return result


@pytest.mark.parametrize(("count", "bad"), [(7, 1), (8, 1), (11, 2), (3, 0)])
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_bulyan_is_the_papers(tmp_path: Path, count: int, bad: int, seed: int) -> None:
    replies = cohort(count, seed)
    study = study_with(tmp_path, {"name": "bulyan", "malicious_sites": bad})
    new, _ = combined(study, replies)
    assert np.allclose(new, by_the_paper(wide(replies), bad), rtol=0, atol=1e-6)
