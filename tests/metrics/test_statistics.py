import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nognet.errors import WireError
from nognet.metrics.definitions import METRIC_NAMES
from nognet.metrics.statistics import PairRow, SiteStatistics, merge_all
from tests.builders.metric_cases import pair_rows

sites = st.builds(
    lambda n, seed, predictors: SiteStatistics.from_pairs(
        pair_rows(n, seed=seed, predictors=tuple(predictors))
    ),
    st.integers(0, 8),
    st.integers(0, 10_000),
    st.lists(st.sampled_from(["federated", "copy", "isotropic"]), unique=True, max_size=3),
)


def _close(a: SiteStatistics, b: SiteStatistics) -> bool:
    first, second = a.to_flat(), b.to_flat()
    return first.keys() == second.keys() and np.allclose(
        list(first.values()), list(second.values()), rtol=1e-12
    )


@settings(max_examples=40)
@given(sites, sites, sites)
def test_merging_is_associative_and_commutative_with_an_identity(
    a: SiteStatistics, b: SiteStatistics, c: SiteStatistics
) -> None:
    assert _close(a.merge(b).merge(c), a.merge(b.merge(c)))
    assert a.merge(b) == b.merge(a)
    assert a.merge(SiteStatistics()) == a == SiteStatistics().merge(a)


@settings(max_examples=40)
@given(sites)
def test_the_wires_numbers_give_the_same_statistics_back(site: SiteStatistics) -> None:
    flat = site.to_flat()
    assert SiteStatistics.from_flat(flat) == site
    assert SiteStatistics.from_flat(json.loads(json.dumps(flat))) == site
    assert SiteStatistics.from_flat({key: float(value) for key, value in flat.items()}) == site


def test_keys_of_the_wire_are_stable() -> None:
    flat = SiteStatistics.from_pairs(pair_rows(3, predictors=("copy",))).to_flat()
    assert list(flat) == sorted(flat)
    assert {"copy|dsc|growing|total", "copy|growth_auc|all|wins", "copy|psnr|all|n_pairs"} <= set(
        flat
    )
    assert len(flat) == 10 * 4 * 4 + 4


def test_pooled_figures_equal_numpy_over_all_sites_rows_in_each_stratum() -> None:
    rows_1 = pair_rows(9, seed=1, prefix="a")
    rows_2 = pair_rows(14, seed=2, prefix="b")
    parts = [SiteStatistics.from_pairs(rows) for rows in (rows_1, rows_2)]
    figures = merge_all(parts).figures()
    mine = [row for row in rows_1 + rows_2 if row.predictor == "federated"]
    figure = figures["federated"]["dsc"]
    values = np.array([row.metrics["dsc"] for row in mine])
    assert figure["mean"] == pytest.approx(values.mean())
    assert figure["sd"] == pytest.approx(values.std(ddof=1))
    assert (figure["n_pairs"], figure["n_patients"]) == (23, 5 + 7)
    for stratum, part in figure["strata"].items():
        chosen = [row.metrics["dsc"] for row in mine if row.stratum == stratum]
        assert part["n_pairs"] == len(chosen) > 0
        assert part["mean"] == pytest.approx(np.mean(chosen))


def test_figures_have_every_metric_and_survive_json() -> None:
    figures = SiteStatistics.from_pairs(pair_rows(1)).figures()
    assert all(tuple(metrics) == METRIC_NAMES for metrics in figures.values())
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert figures["copy"]["growth_auc"]["mean"] is None  # one pair: nothing to compare


def test_growth_auc_compares_growing_with_the_rest() -> None:
    strata_and_growth = [("growing", 1.5), ("stable", 1.0), ("shrinking", 1.6), ("growing", 1.7)]
    rows = [
        PairRow("federated", str(index), stratum, {"dsc": 0.5}, growth)
        for index, (stratum, growth) in enumerate(strata_and_growth)
    ]
    assert SiteStatistics.from_pairs(rows).figures()["federated"]["growth_auc"]["mean"] == 0.75


def test_an_undefined_value_is_left_out_of_its_own_metric_alone() -> None:
    rows = pair_rows(4, predictors=("copy",))
    rows[0] = replace(rows[0], metrics={**rows[0].metrics, "volume_error": math.nan})
    figures = SiteStatistics.from_pairs(rows).figures()["copy"]
    assert figures["volume_error"]["n_pairs"] == 3
    assert figures["dsc"]["n_pairs"] == 4
    expected = np.mean([row.metrics["volume_error"] for row in rows[1:]])
    assert figures["volume_error"]["mean"] == pytest.approx(expected)


def test_rows_in_any_order_give_the_same_sums() -> None:
    rows = pair_rows(10, seed=3)
    assert SiteStatistics.from_pairs(rows) == SiteStatistics.from_pairs(rows[::-1])


def test_a_metric_without_definition_and_a_name_that_cannot_travel_are_refused() -> None:
    row = PairRow("copy", "p", "stable", {"lpips": 0.1}, 1.0)
    with pytest.raises(ValueError, match="lpips"):
        SiteStatistics.from_pairs([row])
    with pytest.raises(ValueError, match="can't travel"):
        SiteStatistics.from_pairs([replace(row, predictor="a|b", metrics={})])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("copy|dsc|all|total", math.nan),
        ("copy|dsc|all|total", math.inf),
        ("copy|dsc|all|n_pairs", -1),
        ("copy|dsc|all|n_pairs", 2.5),
        ("copy|dsc|all|n_pairs", 1e12),
        ("copy|dsc|all|n_pairs", True),
        ("copy|dsc|all|n_pairs", "3"),
        ("copy|dsc|all|n_pairs", 4),  # the strata hold 5
        ("copy|dsc|all|n_patients", 6),  # more patients than pairs
        ("copy|dsc|all|total_squares", 0.0),  # below what the total allows
        ("copy|growth_auc|all|wins", 1e6),
        ("copy|growth_auc|all|comparisons", 1000),  # more than 5 pairs can make
        ("copy|dsc|all|patient_name", 1.0),
        ("copy|dsc|exploding|total", 1.0),
        ("copy|lpips|all|total", 1.0),
        ("COPY <b>|dsc|all|total", 1.0),
        ("copy|dsc", 1.0),
    ],
)
def test_impossible_numbers_from_a_site_are_refused(key: str, value: Any) -> None:
    flat = SiteStatistics.from_pairs(pair_rows(5, predictors=("copy",))).to_flat()
    with pytest.raises(WireError):
        SiteStatistics.from_flat({**flat, key: value})


def test_a_missing_number_is_refused() -> None:
    flat = SiteStatistics.from_pairs(pair_rows(5, predictors=("copy",))).to_flat()
    for key in flat:
        with pytest.raises(WireError):
            SiteStatistics.from_flat({k: v for k, v in flat.items() if k != key})


def test_nothing_of_a_patient_is_on_the_wire() -> None:
    rows = [replace(row, patient_id="MUSTER^ERIKA") for row in pair_rows(6)]
    assert "MUSTER" not in json.dumps(SiteStatistics.from_pairs(rows).to_flat())
