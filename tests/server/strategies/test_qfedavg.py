from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nognet.errors import FederationError
from tests.builders.strategy_rounds import START, cohort, combined, study_with, wide


@pytest.mark.parametrize("weighting", ["equal", "pairs"])
@pytest.mark.parametrize(("q", "lipschitz"), [(0.2, 1.0), (1.0, 20.0), (5.0, 0.1)])
def test_the_step_is_that_of_algorithm_2(
    tmp_path: Path, weighting: str, q: float, lipschitz: float
) -> None:
    replies = cohort(4)
    strategy = {"name": "qfedavg", "q": q, "lipschitz": lipschitz, "weighting": weighting}
    new, kept = combined(study_with(tmp_path, strategy), replies)
    counts = [1 if weighting == "equal" else r.n_pairs for r in replies]
    x = START.astype(np.float64)
    deltas, hs = [], []
    for r, row, count in zip(replies, wide(replies), counts, strict=True):
        f = float(r.start_loss or 0)
        gradient = lipschitz * (x - row)
        deltas.append(count * f**q * gradient)
        hs.append(count * (q * f ** (q - 1) * (gradient @ gradient) + lipschitz * f**q))
    assert np.allclose(new, x - sum(deltas) / sum(hs), rtol=0, atol=1e-6)
    assert kept == {}


@pytest.mark.parametrize("weighting", ["equal", "pairs", "patients"])
def test_q_zero_is_fedavg(tmp_path: Path, weighting: str) -> None:
    replies = cohort(5)
    fair = {"name": "qfedavg", "q": 0.0, "weighting": weighting}
    plain = {"name": "fedavg", "weighting": weighting}
    one, _ = combined(study_with(tmp_path, fair), replies)
    two, _ = combined(study_with(tmp_path, plain), replies)
    assert np.allclose(one, two, rtol=0, atol=1e-6)


def test_a_site_with_a_larger_loss_draws_the_weights_nearer(tmp_path: Path) -> None:
    replies = [replace(r, start_loss=1.0, n_pairs=1) for r in cohort(3)]
    study = study_with(tmp_path, {"name": "qfedavg", "q": 2.0, "lipschitz": 0.01})
    level, _ = combined(study, replies)
    worse = [replace(replies[0], start_loss=3.0), *replies[1:]]
    drawn, _ = combined(study, worse)
    target = replies[0].weights
    assert np.linalg.norm(drawn - target) < np.linalg.norm(level - target)


@pytest.mark.parametrize("loss", [None, 0.0, -1.0])
def test_a_reply_without_a_loss_is_an_error(tmp_path: Path, loss: float | None) -> None:
    replies = [replace(cohort(2)[0], start_loss=loss), cohort(2)[1]]
    with pytest.raises(FederationError, match="site_00") as caught:
        combined(study_with(tmp_path, "qfedavg"), replies)
    assert caught.value.code == "no-start-loss"
