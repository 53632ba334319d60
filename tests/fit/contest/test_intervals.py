from __future__ import annotations

import numpy as np
import pytest

from nognet.fit.contest.intervals import bootstrap_interval, compare
from nognet.fit.contest.judge import Judged

METRICS = ("psnr", "psnr_nodule", "ssim", "dsc")


def _rows(predictor: str, values: list[float], seed: int | None = None) -> list[Judged]:
    return [
        Judged(predictor, seed, f"p{i}", f"patient{i // 2}", "stable", dict.fromkeys(METRICS, v))
        for i, v in enumerate(values)
    ]


def test_a_constant_difference_has_an_interval_without_width() -> None:
    rows = [*_rows("copy", [0.1, 0.5, 0.3, 0.9]), *_rows("mtnognet", [0.3, 0.7, 0.5, 1.1], 1)]
    found = next(d for d in compare(rows, "mtnognet", "copy") if d.metric == "dsc")
    assert found.mean == pytest.approx(0.2)
    assert (found.low, found.high) == (pytest.approx(0.2), pytest.approx(0.2))
    assert (found.pairs, found.patients) == (4, 2)


def test_seeds_are_averaged_before_anything_else() -> None:
    rows = [
        *_rows("copy", [0.0] * 4),
        *_rows("mtnognet", [1.0] * 4, 1),
        *_rows("mtnognet", [3.0] * 4, 2),
    ]
    found = compare(rows, "mtnognet", "copy")[0]
    assert found.mean == found.low == found.high == pytest.approx(2.0)


def test_without_pairs_of_a_stratum_there_is_no_figure() -> None:
    rows = [*_rows("copy", [0.0] * 4), *_rows("mtnognet", [1.0] * 4, 1)]
    growing = next(d for d in compare(rows, "mtnognet", "copy") if d.stratum == "growing")
    assert (growing.mean, growing.low, growing.pairs) == (None, None, 0)


def test_one_patient_gives_no_interval() -> None:
    assert bootstrap_interval({"a": 1.0, "b": 2.0}, {"a": "x", "b": "x"}, seed=1) is None


def test_pairs_of_one_patient_that_agree_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    values = {f"{i}/{k}": float(v) for i, v in enumerate(rng.normal(size=40)) for k in range(3)}
    clustered = bootstrap_interval(values, {k: k.split("/")[0] for k in values}, seed=1)
    apart = bootstrap_interval(values, {k: k for k in values}, seed=1)
    assert clustered is not None
    assert apart is not None
    ratio = (clustered[1] - clustered[0]) / (apart[1] - apart[0])
    assert ratio == pytest.approx(3**0.5, rel=0.1)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = []
    for trial in range(200):
        level = rng.normal(size=40)
        values = {f"{i}/{k}": level[i] + rng.normal() for i in range(40) for k in range(2)}
        interval = bootstrap_interval(
            values, {k: k.split("/")[0] for k in values}, seed=trial, resamples=400
        )
        assert interval is not None
        hits.append(interval[0] <= 0.0 <= interval[1])
    assert np.mean(hits) == pytest.approx(0.94, abs=0.05)
