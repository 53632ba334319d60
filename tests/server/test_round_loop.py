from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nognet_server.grid import Delivery
from nognet_server.round_loop import (
    Evaluation,
    after_training,
    check_evaluation,
    check_training,
    finish_round,
)
from nognet_server.state import Best, ServerState

from nognet.metrics.statistics import PairRow, SiteStatistics
from nognet.wire.records import EvaluateReply, TrainReply
from tests.builders.federation import make_study

LENGTH = 4


def delivered(reply: TrainReply | EvaluateReply, *, site: str | None = None) -> Delivery:
    return Delivery(site or reply.site, reply.to_content(), None, 1.0, 10, 20)


def trained(site: str, value: float = 1.0, *, pairs: int = 2) -> TrainReply:
    weights = np.full(LENGTH, value, np.float32)
    return TrainReply(site, 1, weights, pairs, 1, 5, 0.5, 2.0)


def statistics(*values: float) -> SiteStatistics:
    return SiteStatistics.from_pairs(
        PairRow("federated", f"p{i}", "stable", {"dsc": value}, 1.0)
        for i, value in enumerate(values)
    )


def evaluated(site: str, *values: float) -> EvaluateReply:
    return EvaluateReply(site, 1, "validation", statistics(*values).to_flat(), 0.5)


def evaluation(**values: tuple[float, ...]) -> Evaluation:
    sites = {site: statistics(*of_site) for site, of_site in values.items()}
    return Evaluation(sites, dict.fromkeys(sites, 0.5), {})


def test_replies_are_taken_in_order_of_names_whoever_came_first() -> None:
    deliveries = [delivered(trained(site)) for site in ("site_c", "site_a", "site_b")]
    training = check_training(deliveries, length=LENGTH, round_number=1)
    assert [reply.site for reply in training.replies] == ["site_a", "site_b", "site_c"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (delivered(trained("site_b", float("nan"))), "WireError:non-finite"),
        (delivered(replace(trained("site_b"), weights=np.ones(9, np.float32))), "WireError:shape"),
        (delivered(replace(trained("site_b"), n_pairs=0, n_patients=0)), "WireError:no-examples"),
        (delivered(replace(trained("site_b"), round_number=7)), "WireError:round"),
        (delivered(trained("site_a"), site="site_b"), "WireError:site"),
        (Delivery("site_b", None, "timeout", 9.0, 10), "timeout"),
        (Delivery("site_b", None, "TrainingError:no-pairs", 9.0, 10), "TrainingError:no-pairs"),
    ],
)
def test_a_bad_reply_is_left_out_by_name_and_reason(bad: Delivery, reason: str) -> None:
    training = check_training([bad, delivered(trained("site_a"))], length=LENGTH, round_number=1)
    assert [reply.site for reply in training.replies] == ["site_a"]
    assert training.left_out == {"site_b": reason}


def test_bad_statistics_are_left_out_by_name_and_reason() -> None:
    other_split = replace(evaluated("site_b", 0.5), split="test")
    odd = replace(evaluated("site_c", 0.5), statistics={"federated|dsc|all|total": 1.0})
    found = check_evaluation(
        [delivered(other_split), delivered(odd), delivered(evaluated("site_a", 0.5))],
        split="validation",
        round_number=1,
    )
    assert sorted(found.statistics) == ["site_a"]
    assert found.left_out == {"site_b": "WireError:split", "site_c": "WireError:keys"}


def test_sums_that_would_overflow_are_left_out_and_dont_end_the_run() -> None:
    flat = dict(evaluated("site_b", 0.5, 0.5).statistics)
    flat["federated|dsc|all|total_squares"] = flat["federated|dsc|stable|total_squares"] = 1.7e308
    huge = [replace(evaluated(site, 0.5), statistics=flat) for site in ("site_b", "site_c")]
    found = check_evaluation(
        [*map(delivered, huge), delivered(evaluated("site_a", 0.5))],
        split="validation",
        round_number=1,
    )
    assert found.left_out == dict.fromkeys(("site_b", "site_c"), "WireError:inconsistent")
    assert found.pooled().figures()["federated"]["dsc"]["mean"] == 0.5


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
        training=check_training([delivered(trained("site_a"))], length=LENGTH, round_number=1),
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
        training=check_training([delivered(trained("site_a"))], length=LENGTH, round_number=1),
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
        training=check_training([delivered(trained("site_a"))], length=LENGTH, round_number=1),
        evaluation=evaluation(site_a=(0.5, 0.6)),
        seconds=1.0,
    )
    assert (state.best, report.value, report.is_best) == (None, None, False)


def test_the_reports_weights_are_the_shares_of_the_usable_sites(tmp_path: Path) -> None:
    training = check_training(
        [
            delivered(trained("site_a", pairs=1)),
            delivered(trained("site_b", pairs=3)),
            Delivery("site_c", None, "timeout", 9.0, 10),
        ],
        length=LENGTH,
        round_number=1,
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
