"""Runs of sites that withhold figures: they go on, and say what is missing."""

from __future__ import annotations

from pathlib import Path

from nognet.report.html import render_report
from nognet.report.metrics_file import read_metrics
from nognet.report.tables import plain_text
from tests.builders.federation import make_site, make_study, run, stub_work


def test_a_run_whose_sites_withhold_all_figures_goes_on_to_its_end(tmp_path: Path) -> None:
    """Three training patients a site, two in each other split."""
    study = make_study(tmp_path)
    sites = [make_site(tmp_path, name, min_patients=3) for name in ("site_a", "site_b")]
    metrics = read_metrics(run(study, sites, work=stub_work()).path)
    assert metrics.status == "completed"
    for entry in metrics.rounds:
        assert {s: (p.status, p.reason) for s, p in entry.sites.items()} == {
            "site_a": ("ok", "withheld"),
            "site_b": ("ok", "withheld"),
        }
        assert entry.selection is not None
        assert entry.selection.value is None
    assert metrics.final is not None
    assert metrics.final.round == 2  # nothing to choose by: the last one
    assert metrics.final.left_out == {"site_a": "withheld", "site_b": "withheld"}
    counts = metrics.sites["site_a"].counts
    assert (counts["test"].patients, counts["test"].pairs) == (None, None)
    text = plain_text(metrics)
    assert "site_a: withheld patients, withheld pairs" in text
    assert "Withheld by site_a (< 3 patients), site_b (< 3 patients)" in text
    assert "withheld" in render_report(metrics)


def test_a_stratum_that_one_site_withholds_is_pooled_over_the_others(tmp_path: Path) -> None:
    study = make_study(tmp_path, rounds=1)
    open_site = make_site(tmp_path, "site_a", pairs=70)
    shy = make_site(tmp_path, "site_b", pairs=70, min_patients=7)  # 6, 7 and 7 test patients
    metrics = read_metrics(run(study, [open_site, shy], work=stub_work()).path)
    assert metrics.final is not None
    assert metrics.final.pooled is not None
    own = metrics.final.sites["site_a"].test["federated"]["dsc"]
    shy_own = metrics.final.sites["site_b"].test["federated"]["dsc"]
    pooled = metrics.final.pooled.test["federated"]["dsc"]
    hidden = [name for name, part in shy_own.strata.items() if part.withheld]
    assert len(hidden) == 2
    for name, part in pooled.strata.items():
        assert part.withheld == (name in hidden)
        theirs = shy_own.strata[name].n_pairs
        assert part.n_pairs == own.strata[name].n_pairs + theirs
    assert (pooled.withheld, pooled.n_pairs) == (0, own.n_pairs + shy_own.n_pairs)
    text = plain_text(metrics)
    assert "Withheld by site_b (< 7 patients)" in text
    assert f"{hidden[0]} over 1" in text
    assert "of 2 sites" in text


def test_a_site_with_too_few_training_patients_is_not_used(tmp_path: Path) -> None:
    study = make_study(tmp_path, rounds=1)
    sites = [make_site(tmp_path, "site_a"), make_site(tmp_path, "site_b", min_patients=4)]
    metrics = read_metrics(run(study, sites, work=stub_work()).path)
    assert metrics.status == "completed"
    assert set(metrics.sites) == {"site_a"}
    assert "fewer than 4 training patients" in metrics.refused["site_b"]
