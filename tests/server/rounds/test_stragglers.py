from __future__ import annotations

import math

import pytest
from flwr.app import ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from nognet_server.rounds.messages import Delivery, Patience, Pending
from nognet_server.rounds.stragglers import straggler_limit_s

pytestmark = pytest.mark.usefixtures("flower_task")
PATIENCE = Patience(deadline_s=43_200.0, straggler_factor=3.0, straggler_grace_s=0.1)


def reply(**numbers: float | list[float]) -> RecordDict:
    return RecordDict({"metrics": MetricRecord(numbers)})


def came(seconds: float, content: RecordDict | None = None, *, carried: bool = False) -> Delivery:
    return Delivery("site", content or reply(), None, seconds, 10, is_carried=carried)


def gave_up(reason: str) -> Delivery:
    return Delivery("site", None, reason, 0.01, 10)


def awaited(*, carried: bool = False) -> Pending:
    message = Message(reply(), 1, MessageType.TRAIN)
    return Pending("site", message, ("m1",), "first", 0.0, 0.0, 10, is_carried=carried)


def test_the_limit_is_so_many_times_the_median_sites_seconds() -> None:
    done = [came(1.0), came(2.0), came(9.0)]
    assert straggler_limit_s(done, [awaited()], PATIENCE) == 6.0
    assert straggler_limit_s([came(0.01)], [awaited()], PATIENCE) == 0.1
    assert straggler_limit_s(done, [awaited()], Patience(deadline_s=9.0)) == math.inf


def test_a_carried_reply_says_nothing_of_how_long_a_site_takes() -> None:
    assert straggler_limit_s([came(0.05, carried=True)], [awaited()], PATIENCE) == math.inf
    done = [came(0.05, carried=True), came(1.0)]
    assert straggler_limit_s(done, [awaited()], PATIENCE) == 3.0
    assert straggler_limit_s([came(1.0)], [awaited(carried=True)] * 3, PATIENCE) == 3.0


def test_a_kept_reply_counts_with_the_seconds_that_it_states() -> None:
    kept = came(0.0, reply(seconds=20.0))
    assert straggler_limit_s([kept], [awaited()], PATIENCE) == 60.0
    assert straggler_limit_s([came(30.0, reply(seconds=20.0))], [awaited()], PATIENCE) == 90.0


@pytest.mark.parametrize(
    "content",
    [
        RecordDict({}),
        RecordDict({"metrics": ConfigRecord({"seconds": "x"})}),
        reply(seconds=math.nan),
        reply(seconds=math.inf),
        reply(seconds=-5.0),
        reply(seconds=[1.0, 2.0]),
    ],
)
def test_nonsense_in_place_of_seconds_states_none(content: RecordDict) -> None:
    assert straggler_limit_s([came(1.0, content)], [awaited()], PATIENCE) == 3.0


@pytest.mark.parametrize("reason", ["ConsentError:consent-hours", "TrainingError:no-pairs"])
def test_sites_that_declined_or_failed_are_not_part_of_the_half(reason: str) -> None:
    done = [came(1.0), gave_up(reason), gave_up(reason)]
    assert straggler_limit_s(done, [awaited()], PATIENCE) == 3.0


def test_sites_that_were_too_slow_are_part_of_the_half() -> None:
    done = [came(1.0), gave_up("timeout")]
    assert straggler_limit_s(done, [awaited()], PATIENCE) == math.inf
