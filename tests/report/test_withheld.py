"""Withheld is a word: no zero, no dash, no share of what is not known."""

from __future__ import annotations

from nognet.report.html import render_report
from nognet.report.metrics_schema import Figure, RunMetrics, StratumFigure
from nognet.report.numbers import DASH
from nognet.report.tables import plain_text
from nognet.report.withheld import count_text, is_withheld, mean_text, shares_of, withheld_sentence
from tests.builders.run_metrics import SITES, build_run

FIGURE = Figure(
    mean=0.71,
    sd=0.1,
    n_patients=9,
    n_pairs=12,
    strata={
        "growing": StratumFigure(mean=None, n_pairs=0, withheld=1),
        "stable": StratumFigure(mean=None, n_pairs=0),
        "shrinking": StratumFigure(mean=0.6, n_pairs=5, withheld=1),
    },
)


def test_a_withheld_mean_is_a_word_and_a_missing_one_a_dash() -> None:
    assert mean_text(FIGURE, None, 2) == "0.71"
    assert mean_text(FIGURE, "growing", 2) == "withheld"
    assert mean_text(FIGURE, "stable", 2) == DASH
    assert mean_text(FIGURE, "shrinking", 2) == "0.60"  # pooled, one site's part is missing
    assert mean_text(None, "growing", 2) == DASH
    assert is_withheld(FIGURE, "growing")
    assert not is_withheld(FIGURE)


def test_counts_that_are_withheld_have_no_share() -> None:
    assert count_text(None) == "withheld"
    assert count_text(0) == "0"
    assert shares_of({"growing": 1, "stable": 2, "shrinking": 1}) == {
        "growing": 0.25,
        "stable": 0.5,
        "shrinking": 0.25,
    }
    nothing = dict.fromkeys(("growing", "stable", "shrinking"))
    assert shares_of({"growing": None, "stable": 2, "shrinking": None}) == nothing
    assert shares_of({"growing": 0, "stable": 0, "shrinking": 0}) == nothing


def withholding(site: str, *predictors: str) -> RunMetrics:
    """Make a run of which a site gives nothing of some predictors, as statistics merge them."""
    made = build_run(rounds=2)
    assert made.final is not None
    assert made.final.pooled is not None
    none = {"mean": None, "sd": None, "n_patients": 0, "n_pairs": 0, "withheld": 1}
    values = made.model_dump(mode="json")
    for name in predictors:
        at = values["final"]["sites"][site]["test"]
        at[name] = {metric: {**figure, **none} for metric, figure in at["copy"].items()}
        pooled = values["final"]["pooled"]["test"]
        pooled[name] = {m: {**figure, "withheld": 1} for m, figure in pooled["copy"].items()}
    return RunMetrics.model_validate(values)


def test_a_predictor_that_a_site_withholds_whole_is_named_and_costs_no_other_a_site() -> None:
    said = withheld_sentence(withholding(SITES[0], "isotropic"))
    words = "Withheld as a whole, as it tells of training patients: isotropic growth by"
    assert said == f"{words} {SITES[0]}."
    assert withheld_sentence(build_run(rounds=2)) is None


def test_the_page_and_the_terminal_show_it() -> None:
    metrics = withholding(SITES[0], "isotropic", "personalised")
    for shown in (render_report(metrics), plain_text(metrics)):
        assert f"isotropic growth by {SITES[0]}; personalised model by {SITES[0]}" in " ".join(
            shown.split()
        )
