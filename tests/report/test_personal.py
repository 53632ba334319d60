"""What the report says of parameters, models and figures that are a site's own."""

from __future__ import annotations

from typing import Any

import pytest

from nognet.report.html import render_report
from nognet.report.metrics_schema import Figure, Figures, RunMetrics
from nognet.report.numbers import DASH
from nognet.report.personal import personal_sentence, visit_tables, visits_sentence
from nognet.report.tables import plain_text
from tests.builders.run_metrics import build_run

FIGURES = {
    "dsc": Figure(
        mean=0.8,
        sd=0.1,
        n_patients=4,
        n_pairs=8,
        strata={"growing": {"mean": 0.7, "n_pairs": 3}},  # type: ignore[dict-item]  as JSON has it
    ),
    "psnr": Figure(mean=31.25, sd=1.0, n_patients=4, n_pairs=8),
}


def run_with(
    *, epsilon: bool = False, final: dict[str, Any] | None = None, **own: Any
) -> RunMetrics:
    made = build_run(rounds=2, epsilon=epsilon)
    assert made.final is not None
    study = {**made.study, "personalisation": {**made.study["personalisation"], **own}}
    ended = made.final.model_copy(update=final or {})
    return made.model_copy(update={"study": study, "final": ended})


def visited() -> RunMetrics:
    matrix: dict[str, Figures] = {
        "alpha": {"alpha": FIGURES, "beta": FIGURES},
        "beta": {"alpha": FIGURES},
    }
    absent = {"gamma": "not-shared", "beta": "timeout"}
    final = {"cross_site": matrix, "cross_site_absent": absent}
    return run_with(final=final, cross_site="local")


def test_nothing_is_said_where_nothing_is_personal() -> None:
    metrics = run_with()
    assert personal_sentence(metrics) is None
    assert visits_sentence(metrics) is None
    assert visit_tables(metrics) == []
    assert "Each site's model" not in render_report(metrics)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"local": "norms"}, "normalisation layers stayed at each site"),
        ({"local": "head"}, "personal.nognet"),
        ({"fine_tune_steps": 7}, "by 7 steps more"),
        ({"ditto_lambda": 0.5}, "lambda 0.5"),
    ],
)
def test_what_is_personal_is_said_on_page_and_terminal(own: dict[str, Any], words: str) -> None:
    metrics = run_with(**own)
    sentence = personal_sentence(metrics)
    assert sentence is not None
    assert words in sentence
    assert "epsilon" not in sentence
    assert words in render_report(metrics).replace("&#39;", "'")
    assert words in " ".join(plain_text(metrics).split())


def test_figures_of_personalised_models_are_said_to_stay_under_privacy() -> None:
    told = personal_sentence(run_with(epsilon=True, fine_tune_steps=3))
    assert told is not None
    assert "no epsilon would cover" in told
    assert "stand here as withheld" in told


def test_the_matrix_has_a_row_a_model_a_column_a_site_and_a_dash_for_a_gap() -> None:
    growing, dsc, psnr = visit_tables(visited())
    assert dsc.sites == ("alpha", "beta")
    assert [(row.model_of, row.cells) for row in dsc.rows] == [
        ("alpha", ("0.800", "0.800")),
        ("beta", ("0.800", DASH)),
    ]
    assert growing.rows[0].cells[0] == "0.700"
    assert psnr.rows[0].cells[1] == "31.25"
    assert psnr.title == "PSNR (dB)"


def test_who_does_not_share_and_who_has_gaps_is_shown() -> None:
    metrics = visited()
    sentence = visits_sentence(metrics)
    assert sentence is not None
    assert "Not sharing: gamma." in sentence
    assert "With gaps: beta (timeout)." in sentence
    page = render_report(metrics)
    assert "at beta" in page
    assert "Not sharing: gamma." in page
