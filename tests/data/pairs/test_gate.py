from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nognet.config import PreparationConfig, RegistrationConfig
from nognet.data.findings import CODES, Finding
from nognet.data.pairs.gate import (
    ADVICE,
    INFORMATIVE,
    PAIR_CODES,
    Nearer,
    PairFacts,
    advice_for,
    judge_interval,
    judge_pair,
    meaning_of,
)

LIMITS = PreparationConfig()
GOOD = PairFacts(
    interval_days=365.0,
    thickness_mm=(1.0, 1.0),
    kernels=("B30f", "B30f"),
    volumes_mm3=(500.0, 900.0),
    inside=(1.0, 1.0),
    covered=(1.0, 1.0),
    displacement_mm=1.0,
    radius_mm=6.0,
    header_days=365,
    contrast=(False, False),
    lung_overlap=0.9,
    ncc=0.9,
)


def judged(limits: PreparationConfig = LIMITS, **changes: Any) -> dict[str, str]:
    """Codes with their severities."""
    return {f.code: f.severity for f in judge_pair(replace(GOOD, **changes), limits)}


def found(code: str, **changes: Any) -> Finding:
    [finding] = [f for f in judge_pair(replace(GOOD, **changes), LIMITS) if f.code == code]
    return finding


def test_every_code_has_a_meaning_and_advice_unless_it_only_informs() -> None:
    known = {*CODES, *PAIR_CODES}
    assert {code for code in known if not meaning_of(code)} == set()
    assert {code for code in known if not advice_for(code)} == INFORMATIVE & known
    assert set(ADVICE) <= known
    assert set(CODES) & set(PAIR_CODES) == set()


def test_nothing_speaks_against_a_good_pair() -> None:
    assert judged() == {}


@pytest.mark.parametrize(
    ("changes", "code", "severity"),
    [
        ({"interval_days": 0.0, "header_days": None}, "interval", "refused"),
        ({"interval_days": -3.0, "header_days": None}, "interval", "refused"),
        ({"interval_days": 1827.0, "header_days": None}, "interval", "refused"),
        ({"header_days": -365}, "dates-differ", "warning"),
        ({"thickness_mm": (2.6, 2.6)}, "thick-slices", "warning"),
        ({"thickness_mm": (1.0, 1.6)}, "thickness-differs", "warning"),
        ({"kernels": ("B30f", "B60f")}, "kernels-differ", "warning"),
        ({"contrast": (True, False)}, "contrast-differs", "warning"),
        ({"contrast": (False, True)}, "contrast-differs", "warning"),
        ({"inside": (1.0, 0.99)}, "nodule-cut", "warning"),
        ({"inside": (0.94, 1.0)}, "nodule-cut", "refused"),
        ({"covered": (1.0, 0.94)}, "roi-coverage", "warning"),
        ({"volumes_mm3": (100.0, 1001.0)}, "implausible-growth", "warning"),
        ({"volumes_mm3": (1001.0, 100.0)}, "implausible-growth", "warning"),
        ({"volumes_mm3": (13.9, 20.0)}, "nodule-small", "warning"),
        ({"displacement_mm": 10.6}, "nodule-displaced", "warning"),
        ({"displacement_mm": 18.1}, "nodule-mismatch", "refused"),
        ({"lung_overlap": 0.59}, "lung-overlap", "warning"),
        ({"ncc": LIMITS.registration.warn_ncc - 0.01}, "weak-registration", "warning"),
    ],
)
def test_each_limit_has_its_code(changes: dict[str, Any], code: str, severity: str) -> None:
    assert judged(**changes) == {code: severity}


@pytest.mark.parametrize(
    "changes",
    [
        {"interval_days": 1826.0, "header_days": 1826},
        {"header_days": 364},
        {"header_days": 0},  # de-identified: all dates are one day
        {"header_days": None},
        {"thickness_mm": (2.5, 2.5)},
        {"thickness_mm": (1.0, 1.5)},
        {"kernels": ("", "B60f")},
        {"contrast": (True, None)},
        {"contrast": (None, False)},
        {"contrast": (True, True)},
        {"covered": (0.95, 1.0)},
        {"volumes_mm3": (100.0, 1000.0)},
        {"volumes_mm3": (14.0, 20.0)},
        {"displacement_mm": 10.5},
        {"lung_overlap": 0.6},
        {"lung_overlap": None},
        {"ncc": LIMITS.registration.warn_ncc},
        {"ncc": None},
    ],
)
def test_what_lies_just_within_the_limits_passes(changes: dict[str, Any]) -> None:
    assert judged(**changes) == {}


@pytest.mark.parametrize(
    ("setting", "changes", "code"),
    [
        ({"max_interval_days": 300.0}, {}, "interval"),
        ({"max_slice_thickness_mm": 0.9}, {}, "thick-slices"),
        ({"max_thickness_difference_mm": 0.0}, {"thickness_mm": (1.0, 1.1)}, "thickness-differs"),
        ({"max_growth_ratio": 1.5}, {}, "implausible-growth"),
        ({"min_nodule_volume_mm3": 600.0}, {}, "nodule-small"),
        ({"min_covered_fraction": 1.0}, {"covered": (0.99, 1.0)}, "roi-coverage"),
        (
            {"max_nodule_displacement_mm": 5.0, "warn_nodule_displacement_mm": 1.0},
            {"displacement_mm": 8.5},
            "nodule-mismatch",
        ),
        ({"warn_nodule_displacement_mm": 1.0}, {"displacement_mm": 4.5}, "nodule-displaced"),
        ({"registration": RegistrationConfig(min_lung_overlap=0.95)}, {}, "lung-overlap"),
        ({"registration": RegistrationConfig(warn_ncc=0.95)}, {}, "weak-registration"),
    ],
)
def test_every_threshold_comes_from_the_sites_file(
    setting: dict[str, Any], changes: dict[str, Any], code: str
) -> None:
    assert code not in judged(**changes)
    assert code in judged(PreparationConfig(**setting), **changes)


def test_the_part_cut_off_is_refused_from_the_sites_own_limit() -> None:
    assert judged(inside=(0.9, 1.0)) == {"nodule-cut": "refused"}
    lenient = PreparationConfig(max_cut_fraction=0.2)
    assert judged(lenient, inside=(0.9, 1.0)) == {"nodule-cut": "warning"}


def test_growth_and_shrinking_are_named() -> None:
    assert found("implausible-growth", volumes_mm3=(50.0, 800.0)).message == (
        "volumes 50 and 800 mm3: a 16-fold growth"
    )
    assert "16-fold shrinking" in found("implausible-growth", volumes_mm3=(800.0, 50.0)).message


def test_a_nodule_where_another_should_lie_is_taken_for_a_swap_of_names() -> None:
    other = Nearer("nodule 'b' of row 7", 1.2)
    refused = found("nodule-mismatch", displacement_mm=30.0, nearer=other)
    assert refused.message.endswith(
        "nodule 'b' of row 7 lies 1.2 mm from there: are the names swapped?"
    )
    # neighbours: below the limit of distance, but the other one fits far better
    assert judged(displacement_mm=12.0, nearer=other) == {"nodule-mismatch": "refused"}
    assert judged(displacement_mm=6.0, nearer=other) == {"nodule-displaced": "warning"}
    assert "are the names swapped" in found("nodule-displaced", displacement_mm=6.0,
                                            nearer=other).message  # fmt: skip


def test_a_neighbour_is_no_swap_where_the_nodule_lies_as_it_should() -> None:
    assert judged(displacement_mm=2.5, nearer=Nearer("nodule 'b'", 0.5)) == {}
    assert judged(displacement_mm=6.0, nearer=Nearer("nodule 'b'", 4.0)) == {}


def test_a_nodule_outside_the_roi_is_another_nodule_and_no_matter_of_the_rois_size() -> None:
    assert judged(inside=(1.0, 0.0), displacement_mm=40.0) == {"nodule-mismatch": "refused"}


@given(st.floats(-1e5, 1e5))
def test_an_interval_is_refused_exactly_outside_its_limits(days: float) -> None:
    refused = bool(judge_interval(days, LIMITS))
    assert refused == (not 0 < days <= LIMITS.max_interval_days)


@given(
    st.floats(0.1, 1e5), st.floats(0.1, 1e5), st.floats(0, 100), st.floats(0, 1), st.floats(0, 1)
)
def test_judging_never_fails_and_severities_are_known(
    before: float, after: float, away: float, inside: float, covered: float
) -> None:
    facts = replace(
        GOOD,
        volumes_mm3=(before, after),
        displacement_mm=away,
        inside=(inside, 1.0),
        covered=(covered, 1.0),
    )
    for finding in judge_pair(facts, LIMITS):
        assert finding.severity in ("warning", "refused")
        assert finding.code in PAIR_CODES or finding.code in CODES
        assert finding.message
