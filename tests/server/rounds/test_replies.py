from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nognet_server.rounds.messages import Delivery
from nognet_server.rounds.replies import (
    Asked,
    Evaluation,
    check_evaluation,
    check_training,
    update_norm,
)

from tests.builders.replies import LENGTH, checked, delivered, evaluated, trained


def test_replies_are_taken_in_order_of_names_whoever_came_first() -> None:
    deliveries = [delivered(trained(site)) for site in ("site_c", "site_a", "site_b")]
    training = checked(*deliveries)
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
    training = checked(bad, delivered(trained("site_a")))
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


def test_a_site_is_at_fault_for_what_it_sent_and_not_for_what_it_did_not_send() -> None:
    training = checked(
        delivered(trained("site_a", float("inf"))),
        Delivery("site_b", None, "timeout", 9.0, 10),
        Delivery("site_c", None, "TrainingError:no-pairs", 9.0, 10),
    )
    assert set(training.left_out) == {"site_a", "site_b", "site_c"}
    assert training.faulty == {"site_a"}


def test_the_length_of_an_update_is_that_of_numpy_in_float64() -> None:
    generator = np.random.default_rng(1)
    start, end = generator.normal(size=(2, 1000)).astype(np.float32)
    expected = sum((float(a) - float(b)) ** 2 for a, b in zip(end, start, strict=True)) ** 0.5
    assert update_norm(end, start) == pytest.approx(expected, rel=1e-12)


def test_a_late_update_departs_from_the_present_weights() -> None:
    then = Asked(1, np.full(LENGTH, 10.0, np.float32))
    now = Asked(2, np.full(LENGTH, 20.0, np.float32))
    late = delivered(trained("site_a", 11.0))
    fresh = delivered(replace(trained("site_b", 22.0), round_number=2))
    training = check_training([late, fresh], {"site_a": then, "site_b": now}, now)
    assert [(r.site, r.round_number, r.weights[0]) for r in training.replies] == [
        ("site_a", 2, 21.0),
        ("site_b", 2, 22.0),
    ]
    assert training.norms == {"site_a": 2.0, "site_b": 4.0}
    assert late.content is not None
    assert late.content.array_records["arrays"]["weights"].numpy()[0] == 11.0


@pytest.mark.parametrize(
    ("left_out", "is_possible"),
    [
        ({"site_a": "withheld"}, True),
        ({"site_a": "withheld", "site_b": "late", "site_c": "offline", "site_d": "timeout"}, True),
        ({"site_a": "withheld", "site_b": "WireError:keys"}, False),
        ({"site_a": "timeout"}, False),
        ({}, False),
    ],
)
def test_a_round_without_figures_is_one_where_sites_withhold_theirs_and_nobody_is_at_fault(
    left_out: dict[str, str], is_possible: bool
) -> None:
    assert Evaluation({}, {}, left_out).is_possible is is_possible
