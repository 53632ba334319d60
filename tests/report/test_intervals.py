from __future__ import annotations

import html
import math
from typing import Any

import pytest

from nognet.metrics.statistics import PairRow, SiteStatistics
from nognet.report.html import render_report
from nognet.report.intervals import interval_sentences
from nognet.report.metrics_schema import RunMetrics
from nognet.report.tables import plain_text
from tests.builders.run_metrics import build_run


def statistics(covered: list[bool], *, log_width: float, patients: int) -> SiteStatistics:
    """A site's sums: one pair an entry, shared among so many patients."""
    rows = []
    for number, inside in enumerate(covered):
        interval = {"interval_coverage": float(inside), "interval_width": log_width}
        for name, more in (("federated", interval), ("copy", {})):
            values = {"dsc": 0.8, "psnr": 30.0, **more}
            rows.append(PairRow(name, f"p{number % patients}", "stable", values, 1.0))
    return SiteStatistics.from_pairs(rows)


def run_with(sites: dict[str, SiteStatistics], **study: Any) -> RunMetrics:
    values = build_run(sites=tuple(sites)).model_dump(mode="json")
    values["study"] |= study
    values["final"]["sites"] = {s: {"test": found.figures()} for s, found in sites.items()}
    first, *others = sites.values()
    pooled = first
    for other in others:
        pooled = pooled.merge(other)
    values["final"]["pooled"] = {"test": pooled.figures()}
    return RunMetrics.model_validate(values)


ALPHA = statistics([True] * 8 + [False], log_width=math.log(1.9), patients=6)
BETA = statistics([True, False], log_width=math.log(4.0), patients=1)


def test_measured_coverage_stands_beside_the_nominal_with_pairs_patients_and_width() -> None:
    [sentence] = interval_sentences(run_with({"alpha": ALPHA}))
    assert sentence == (
        "alpha: predicted volume intervals: nominal 80 %, found 89 % of 9 test pairs (6 patients), "
        "upper over lower volume x1.9 (geometric mean)."
    )


def test_each_site_has_a_sentence_and_all_of_them_have_one() -> None:
    said = interval_sentences(run_with({"alpha": ALPHA, "beta": BETA}))
    assert [sentence.split(":")[0] for sentence in said] == ["alpha", "beta", "all sites"]
    assert "found 50 % of 2 test pairs (1 patient), upper over lower volume x4.0" in said[1]
    geometric = (1.9**9 * 4.0**2) ** (1 / 11)
    assert (
        f"found 82 % of 11 test pairs (7 patients), upper over lower volume x{geometric:.1f}"
        in (said[2])
    )


@pytest.mark.parametrize(("coverage", "words"), [(0.9, "90 %"), (0.955, "95.5 %"), (0.5, "50 %")])
def test_the_nominal_is_the_studys_own(coverage: float, words: str) -> None:
    metrics = run_with({"alpha": ALPHA}, uncertainty={"coverage": coverage})
    assert f"nominal {words}, found 89 %" in interval_sentences(metrics)[0]


def test_a_study_that_does_not_say_is_told_as_such() -> None:
    metrics = run_with({"alpha": ALPHA}, uncertainty=None)
    assert "nominal not recorded, found" in interval_sentences(metrics)[0]


def test_sites_without_intervals_are_named_with_the_reason() -> None:
    metrics = run_with({"alpha": ALPHA, "beta": BETA, "gamma": BETA})
    values = metrics.model_dump(mode="json")
    for site in ("beta", "gamma"):
        figures = values["final"]["sites"][site]["test"]["federated"]
        figures["interval_coverage"] |= {"mean": None, "n_pairs": 0, "n_patients": 0}
    said = interval_sentences(RunMetrics.model_validate(values))
    assert said[-1] == (
        "beta, gamma: no intervals of the predicted volume (nominal 80 %): too few validation "
        "patients for that level, or the model gives no spread."
    )
    assert len(said) == 3  # alpha, all sites, and the two without


def test_runs_whose_figures_know_no_intervals_say_nothing() -> None:
    values = build_run().model_dump(mode="json")
    for entry in (*values["final"]["sites"].values(), values["final"]["pooled"]):
        for figures in entry["test"].values():
            del figures["interval_coverage"]
            del figures["interval_width"]
    metrics = RunMetrics.model_validate(values)
    assert interval_sentences(metrics) == ()
    assert "Intervals" not in plain_text(metrics)
    assert interval_sentences(build_run(rounds=1, finished=False)) == ()


def test_a_site_that_trained_alone_is_judged_by_its_local_model() -> None:
    text = run_with({"alpha": ALPHA}).model_dump_json().replace('"federated":', '"local":')
    assert "found 89 % of 9" in interval_sentences(RunMetrics.model_validate_json(text))[0]


def test_report_and_terminal_say_the_same() -> None:
    metrics = run_with({"alpha": ALPHA, "beta": BETA})
    page = html.unescape(render_report(metrics))
    printed = plain_text(metrics, width=200)
    for sentence in interval_sentences(metrics):
        assert f"<li>{sentence}</li>" in page
        assert sentence in printed


def test_a_name_of_a_site_is_escaped_in_the_page() -> None:
    metrics = run_with({"<b>x</b>": ALPHA})
    assert "<li><b>x</b>" not in render_report(metrics)
