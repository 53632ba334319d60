from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nognet_server.rounds.loop import (
    RoundFailedError,
    after_training,
    barred_sites,
    check_enough,
    finish_round,
    recent_norms,
)
from nognet_server.rounds.messages import Delivery
from nognet_server.rounds.replies import Evaluation
from nognet_server.runs.state import Best, ServerState

from nognet.metrics.statistics import PairRow, SiteStatistics
from tests.builders.federation import make_study
from tests.builders.replies import LENGTH, checked, delivered, evaluation, trained


def test_a_round_does_not_change_the_state_it_started_from(tmp_path: Path) -> None:
    state = ServerState(0, np.zeros(LENGTH, np.float32))
    after = after_training(make_study(tmp_path), state, [trained("site_a")])
    assert (state.round_number, after.round_number) == (0, 1)
    assert not state.weights.any()
    with pytest.raises(ValueError, match="read-only"):
        after.weights[0] = 5.0


def test_the_selection_pools_pairs_and_does_not_average_means(tmp_path: Path) -> None:
    state = ServerState(1, np.zeros(LENGTH, np.float32))
    _, report = finish_round(
        make_study(tmp_path),
        state,
        training=checked(delivered(trained("site_a"))),
        evaluation=evaluation(site_a=(1.0,), site_b=(0.0, 0.0, 0.0)),
        seconds=1.0,
    )
    assert report.value == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("metric", "before", "now", "is_best"),
    [
        ("dsc", 0.4, 0.5, True),
        ("dsc", 0.5, 0.5, False),
        ("dsc", 0.6, 0.5, False),
        ("volume_error", 0.4, 0.5, False),
        ("volume_error", 0.6, 0.5, True),
    ],
)
def test_the_best_round_follows_the_metrics_own_direction(
    tmp_path: Path,
    metric: str,
    before: float,
    now: float,
    is_best: bool,
) -> None:
    rows = SiteStatistics.from_pairs([PairRow("federated", "p", "stable", {metric: now}, 1.0)])
    study = make_study(tmp_path, selection={"metric": metric})
    state, report = finish_round(
        study,
        ServerState(4, np.zeros(LENGTH, np.float32), best=Best(3, before)),
        training=checked(delivered(trained("site_a"))),
        evaluation=Evaluation({"site_a": rows}, {}, {}),
        seconds=1.0,
    )
    assert report.is_best is is_best
    assert state.best == (Best(4, now) if is_best else Best(3, before))


def test_a_metric_that_is_not_defined_selects_nothing(tmp_path: Path) -> None:
    study = make_study(tmp_path, selection={"metric": "growth_auc"})  # no growing pair below
    state, report = finish_round(
        study,
        ServerState(1, np.zeros(LENGTH, np.float32)),
        training=checked(delivered(trained("site_a"))),
        evaluation=evaluation(site_a=(0.5, 0.6)),
        seconds=1.0,
    )
    assert (state.best, report.value, report.is_best) == (None, None, False)


def test_the_reports_weights_are_the_shares_of_the_usable_sites(tmp_path: Path) -> None:
    training = checked(
        delivered(trained("site_a", pairs=1)),
        delivered(trained("site_b", pairs=3)),
        Delivery("site_c", None, "timeout", 9.0, 10),
    )
    state, report = finish_round(
        make_study(tmp_path),
        ServerState(1, np.zeros(LENGTH, np.float32)),
        training=training,
        evaluation=evaluation(site_a=(0.5,)),
        seconds=1.0,
    )
    weights = {site: entry["weight"] for site, entry in report.sites.items()}
    assert weights == {"site_a": 0.25, "site_b": 0.75, "site_c": 0.0}
    assert report.sites["site_c"]["reason"] == "timeout"
    assert report.sites["site_a"]["train"]["bytes_up"] == 20
    assert json.loads(json.dumps(state.history[-1], allow_nan=False)) == state.history[-1]


def test_a_round_needs_the_quorum_of_the_sites_that_were_asked(tmp_path: Path) -> None:
    study = make_study(tmp_path, federation={"minimum_sites": 1, "quorum": 0.6})
    two = checked(
        delivered(trained("site_a")),
        delivered(trained("site_b")),
        Delivery("site_c", None, "timeout", 9.0, 10),
    )
    check_enough(study, two, asked=3, round_number=4, folder=tmp_path)
    with pytest.raises(RoundFailedError, match=r"2 usable replies of 4 .* expected 3") as raised:
        check_enough(study, two, asked=4, round_number=4, folder=tmp_path)
    assert "site_c (timeout)" in str(raised.value)
    assert raised.value.faulty == frozenset()
    one = checked(delivered(trained("site_a")), delivered(trained("site_b", float("nan"))))
    with pytest.raises(RoundFailedError) as raised:
        check_enough(study, one, asked=2, round_number=4, folder=tmp_path)
    assert raised.value.faulty == {"site_b"}
    assert f"--resume {tmp_path}" in str(raised.value)


def test_a_site_at_fault_in_three_rounds_is_asked_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study = make_study(tmp_path)
    state = ServerState(0, np.zeros(LENGTH, np.float32))
    for number, bad in enumerate((True, True, False, True), 1):
        value = float("nan") if bad else 1.0
        training = checked(delivered(trained("site_a")), delivered(trained("site_b", value)))
        assert barred_sites(study, state) == {}
        state, _ = finish_round(
            study,
            replace(state, round_number=number),
            training=training,
            evaluation=evaluation(site_a=(0.5,)),
            seconds=1.0,
        )
    assert state.strikes == {"site_b": 3}
    assert barred_sites(study, state) == {"site_b": "quarantined"}
    assert caplog.text.count("site_b is quarantined") == 1


def test_updates_are_compared_with_those_that_counted_in_the_last_rounds(tmp_path: Path) -> None:
    start = ServerState(0, np.full(LENGTH, 3.0, np.float32))
    assert recent_norms(start) == (6.0,)
    training = checked(delivered(trained("site_a")), delivered(trained("site_b", float("nan"))))
    state, _ = finish_round(
        make_study(tmp_path),
        replace(start, round_number=1),
        training=training,
        evaluation=evaluation(site_a=(0.5,)),
        seconds=1.0,
    )
    assert recent_norms(state) == (2.0,)


def test_the_weights_keep_in_mind_since_when_they_hold_something_of_a_site(tmp_path: Path) -> None:
    state = ServerState(3, np.zeros(LENGTH, np.float32), lineage={"site_a": 1, "parent": 0})
    after, _ = finish_round(
        make_study(tmp_path),
        state,
        training=checked(delivered(trained("site_a")), delivered(trained("site_b"))),
        evaluation=evaluation(site_a=(1.0,), site_c=(0.5,)),
        seconds=1.0,
    )
    assert after.lineage == {"parent": 0, "site_a": 1, "site_b": 3}
    assert after.contributors_at(0) == ("parent",)
    assert after.contributors_at(2) == ("parent", "site_a")
    assert after.contributors_at(3) == ("parent", "site_a", "site_b")
    assert state.lineage == {"site_a": 1, "parent": 0}
