from __future__ import annotations

import math

import numpy as np
import pytest

from nognet.fit.contest.intervals import COMPARED, bootstrap_interval, compare
from nognet.fit.contest.judge import Judged
from nognet.randomness import numpy_generator

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


def _naive_quantile(values: list[float], share: float) -> float:
    """Linear between the two order statistics around ``share (n - 1)``."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def _naive_interval(
    values: dict[str, float], groups: dict[str, str], *, seed: int, resamples: int
) -> tuple[float, float]:
    """Draw patient by patient, collect all their pairs, average; nothing is summed beforehand."""
    patients = sorted(set(groups.values()))
    rng = numpy_generator(seed, "contest", "bootstrap")
    draws = rng.integers(0, len(patients), size=(resamples, len(patients)))
    means = []
    for draw in draws:
        drawn = [
            value
            for index in draw
            for pair, value in values.items()
            if groups[pair] == patients[index]
        ]
        means.append(math.fsum(drawn) / len(drawn))
    return _naive_quantile(means, 0.025), _naive_quantile(means, 0.975)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_interval_is_that_of_a_naive_loop_with_the_same_draws(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = {f"{i}/{k}": f"patient{i}" for i in range(17) for k in range(int(rng.integers(1, 6)))}
    values = {pair: float(rng.normal(loc=30.0, scale=3.0)) for pair in groups}
    found = bootstrap_interval(values, groups, seed=seed, resamples=300)
    naive = _naive_interval(values, groups, seed=seed, resamples=300)
    assert found == pytest.approx(naive, rel=1e-12, abs=1e-12)


def test_every_metric_is_compared_in_every_stratum_and_seed_by_seed() -> None:
    rows = [
        *_rows("unet", [0.0] * 4, 1),
        *_rows("unet", [1.0] * 4, 2),
        *_rows("mtnognet", [2.0] * 4, 1),
        *_rows("mtnognet", [5.0] * 4, 2),
    ]
    found = compare(rows, "mtnognet", "unet")
    assert [(d.metric, d.stratum) for d in found] == list(COMPARED)
    assert {d.stratum for d in found if d.metric == "psnr"} == {
        None, "growing", "stable", "shrinking",
    }  # fmt: skip
    assert found[0].of_seeds == {1: 2.0, 2: 4.0}
    assert found[0].mean == 3.0
    growing = next(d for d in found if d.stratum == "growing")
    assert growing.of_seeds == {1: None, 2: None}


def test_what_is_not_trained_stands_beside_every_seed() -> None:
    rows = [*_rows("copy", [1.0] * 4), *_rows("mtnognet", [2.0] * 4, 7)]
    assert compare(rows, "mtnognet", "copy")[0].of_seeds == {7: 1.0}
    assert compare(rows[:4], "copy", "copy")[0].of_seeds == {}
