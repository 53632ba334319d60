from __future__ import annotations

import time
from collections.abc import Iterable

import pytest
from flwr.app import ConfigRecord, Error, Message, MessageType, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from nognet_server.grid import exchange
from nognet_server.rounds.messages import Envelope, Exchange, Patience
from nognet_server.rounds.sendings import MAX_SENDINGS

from tests.builders.fake_grid import FakeGrid, FakeNode

pytestmark = pytest.mark.usefixtures("flower_task")
KEPT = "a reply it has kept is sent again, nothing is trained twice"
QUICK = Patience(deadline_s=5.0, lost_after_s=0.3, poll_s=0.005)


def content(text: str) -> RecordDict:
    return RecordDict({"config": ConfigRecord({"text": text})})


def envelopes(grid: FakeGrid) -> list[Envelope]:
    return [
        Envelope(node.name, Message(content("task"), node_id, MessageType.TRAIN))
        for node_id, node in grid.nodes.items()
    ]


def answers(text: str) -> FakeNode:
    return FakeNode(f"site_{text}", lambda _: content(text))


def texts(found: Exchange) -> dict[str, object]:
    return {
        d.site: d.reason if d.content is None else d.content["config"]["text"]  # type: ignore[index]  # content was looked at
        for d in found.deliveries
    }


def test_each_site_gets_its_own_reply_sorted_by_name() -> None:
    grid = FakeGrid({30: answers("a"), 10: answers("c"), 20: answers("b")})
    told: list[str] = []
    found = exchange(grid, envelopes(grid), QUICK, on_delivery=lambda d, _: told.append(d.site))
    deliveries = found.deliveries
    assert texts(found) == {"site_a": "a", "site_b": "b", "site_c": "c"}
    assert [d.site for d in deliveries] == ["site_a", "site_b", "site_c"]
    assert sorted(told) == ["site_a", "site_b", "site_c"]
    assert all(d.bytes_down > 0 and d.bytes_up > 0 for d in deliveries)


def test_a_silent_site_is_given_up_at_the_deadline() -> None:
    grid = FakeGrid({1: answers("a"), 2: FakeNode("site_b", lambda _: None)})
    started = time.monotonic()
    patience = Patience(deadline_s=0.2, lost_after_s=9.0, poll_s=0.005)
    assert texts(exchange(grid, envelopes(grid), patience)) == {
        "site_a": "a",
        "site_b": "timeout",
    }
    assert time.monotonic() - started < 2.0


def test_a_site_that_goes_offline_and_stays_away_is_given_up() -> None:
    grid = FakeGrid({1: answers("a"), 2: FakeNode("site_b", lambda _: None, offline=(3, 10**9))})
    assert texts(exchange(grid, envelopes(grid), QUICK)) == {
        "site_a": "a",
        "site_b": "offline",
    }


def test_a_site_that_is_away_for_long_is_not_given_up_while_others_work() -> None:
    due = time.monotonic() + 3 * QUICK.lost_after_s
    slow = FakeNode("site_a", lambda _: content("a") if time.monotonic() > due else None)
    away = answers("b")
    grid = FakeGrid({1: slow, 2: away})

    class Away(FakeNode):
        def is_online(self, _: int) -> bool:
            return time.monotonic() > due - QUICK.lost_after_s

    grid.nodes[2] = Away("site_b", away.answer)
    assert texts(exchange(grid, envelopes(grid), QUICK)) == {"site_a": "a", "site_b": "b"}


def test_a_site_that_comes_back_in_time_is_not_given_up() -> None:
    node = FakeNode("site_a", lambda _: content("late") if grid.poll > 20 else None, offline=(3, 9))
    grid = FakeGrid({1: node})
    assert texts(exchange(grid, envelopes(grid), QUICK)) == {"site_a": "late"}
    assert len(node.received) == 1


def test_a_restarted_site_gets_its_message_again_and_counts_once() -> None:
    node = FakeNode("site_a", lambda _: content("done") if grid.poll > 12 else None, restarts_at=8)
    grid = FakeGrid({1: node})
    found = exchange(grid, envelopes(grid), QUICK)
    deliveries = found.deliveries
    assert texts(found) == {"site_a": "done"}
    assert len(node.received) == 2
    assert deliveries[0].bytes_down == 2 * deliveries[0].bytes_up


@pytest.mark.parametrize(
    "code",
    [
        ErrorCode.NODE_UNAVAILABLE,
        ErrorCode.MESSAGE_UNAVAILABLE,
        ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
    ],
)
def test_a_message_that_flower_lost_is_sent_again(code: int) -> None:
    def answer(_: Message) -> RecordDict | Error:
        return Error(code, "lost") if len(node.received) == 1 else content("done")

    node = FakeNode("site_a", answer)
    grid = FakeGrid({1: node})
    assert texts(exchange(grid, envelopes(grid), QUICK)) == {"site_a": "done"}
    assert len(node.received) == 2


def test_a_message_that_is_lost_again_and_again_is_given_up() -> None:
    node = FakeNode("site_a", lambda _: Error(ErrorCode.NODE_UNAVAILABLE, "lost"))
    grid = FakeGrid({1: node})
    assert texts(exchange(grid, envelopes(grid), QUICK)) == {"site_a": "offline"}
    assert len(node.received) == MAX_SENDINGS


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (ErrorCode.REPLY_MESSAGE_UNAVAILABLE, "lost its reply (reply-lost: it never came whole)"),
        (ErrorCode.MESSAGE_UNAVAILABLE, "lost the message (message-lost)"),
        (ErrorCode.NODE_UNAVAILABLE, "held it for offline (offline)"),
    ],
)
def test_what_flower_lost_is_told_by_what_it_lost(
    code: int, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(_: Message) -> RecordDict | Error:
        return Error(code, "lost") if len(node.received) == 1 else content("done")

    node = FakeNode("site_a", answer)
    grid = FakeGrid({1: node})
    exchange(grid, envelopes(grid), QUICK)
    assert caplog.messages == [
        f"site_a: Flower {words}; the message is sent again (2 of 20); {KEPT}"
    ]


def test_a_supernode_that_began_anew_is_told_so(caplog: pytest.LogCaptureFixture) -> None:
    node = FakeNode("site_a", lambda _: content("done") if grid.poll > 12 else None, restarts_at=8)
    grid = FakeGrid({1: node})
    exchange(grid, envelopes(grid), QUICK)
    assert caplog.messages == [
        f"site_a: its SuperNode came online anew; the message is sent again; {KEPT}"
    ]


def test_a_site_that_was_offline_when_it_was_asked_comes_online(
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = FakeNode("site_a", lambda _: content("done") if grid.poll > 8 else None, offline=(0, 4))
    grid = FakeGrid({1: node})
    assert texts(exchange(grid, envelopes(grid), QUICK)) == {"site_a": "done"}
    assert caplog.messages == ["site_a: came online; the message is sent again"]


def test_a_sending_that_was_not_taken_is_tried_again_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Refusing(FakeGrid):
        def push_messages(self, messages: Iterable[Message]) -> list[str]:
            return [] if 8 <= self.poll < 20 else super().push_messages(messages)

    node = FakeNode("site_a", lambda _: content("done"), restarts_at=8)
    node.answer = lambda _: content("done") if len(node.received) == 2 else None
    grid = Refusing({1: node})
    found = exchange(grid, envelopes(grid), QUICK)
    assert texts(found) == {"site_a": "done"}
    assert found.deliveries[0].bytes_down == 2 * found.deliveries[0].bytes_up
    assert [line.split("; ")[1] for line in caplog.messages] == [
        "Flower does not take the message again",
        "the message is sent again",
    ]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Error(2, "TrainingError:no-pairs"), "TrainingError:no-pairs"),
        (Error(2, "KeyError: 'Miller, Anna' in /data/x.dcm"), "client-app-failed"),
        (Error(8, "killed by signal 9"), "client-app-crashed"),
        (Error(7, None), "bundle-refused"),
        (Error(99, "odd"), "flower-error-99"),
    ],
)
def test_of_a_sites_error_only_class_and_code_are_taken(error: Error, reason: str) -> None:
    grid = FakeGrid({1: FakeNode("site_a", lambda _: error)})
    assert texts(exchange(grid, envelopes(grid), QUICK)) == {"site_a": reason}


def test_a_message_that_was_not_taken_is_said_so() -> None:
    class Full(FakeGrid):
        def push_messages(self, messages: object) -> list[str]:  # noqa: ARG002  the grid's signature
            return []

    grid = Full({1: answers("a")})
    assert texts(exchange(grid, envelopes(grid), QUICK)) == {"site_a": "not-sent"}


def test_nothing_to_send_gives_nothing() -> None:
    assert exchange(FakeGrid({}), [], QUICK) == Exchange(())


def test_a_site_far_behind_the_others_is_given_up_before_the_deadline() -> None:
    grid = FakeGrid({1: answers("a"), 2: answers("b"), 3: FakeNode("site_c", lambda _: None)})
    patience = Patience(deadline_s=60.0, poll_s=0.005, straggler_factor=3.0, straggler_grace_s=0.1)
    found = exchange(grid, envelopes(grid), patience)
    assert texts(found) == {"site_a": "a", "site_b": "b", "site_c": "straggler"}
    assert found.deliveries[2].seconds < 5.0


def test_a_late_answer_makes_no_site_a_straggler() -> None:
    late = FakeNode("site_b", lambda _: content("late") if grid.poll > 60 else None)
    healthy = FakeNode("site_a", lambda _: None)
    grid = FakeGrid({2: late})
    first = exchange(grid, envelopes(grid), Patience(deadline_s=0.1, poll_s=0.005))
    grid.nodes[1] = healthy
    due = time.monotonic() + 1.0
    healthy.answer = lambda _: content("a") if time.monotonic() > due else None
    patience = Patience(deadline_s=60.0, poll_s=0.005, straggler_factor=3.0, straggler_grace_s=0.1)
    asked = [e for e in envelopes(grid) if e.site == "site_a"]
    found = exchange(grid, asked, patience, carried=first.unanswered)
    assert texts(found) == {"site_a": "a", "site_b": "late"}


def test_a_reply_that_was_kept_makes_no_site_a_straggler() -> None:
    kept = content("kept")
    kept["metrics"] = MetricRecord({"seconds": 20.0})
    slow = FakeNode("site_b", lambda _: None)
    grid = FakeGrid({1: FakeNode("site_a", lambda _: kept), 2: slow})
    due = time.monotonic() + 0.5
    slow.answer = lambda _: content("b") if time.monotonic() > due else None
    patience = Patience(deadline_s=60.0, poll_s=0.005, straggler_factor=3.0, straggler_grace_s=0.1)
    assert texts(exchange(grid, envelopes(grid), patience)) == {"site_a": "kept", "site_b": "b"}


def test_sites_that_declined_do_not_keep_a_silent_one_waited_for() -> None:
    declined = "ConsentError:consent-max-rounds"
    decline = {n: FakeNode(f"site_{n}", lambda _: Error(2, declined)) for n in (2, 3)}
    grid = FakeGrid({1: answers("a"), **decline, 4: FakeNode("site_4", lambda _: None)})
    patience = Patience(deadline_s=60.0, poll_s=0.005, straggler_factor=3.0, straggler_grace_s=0.1)
    assert texts(exchange(grid, envelopes(grid), patience)) == {
        "site_2": declined,
        "site_3": declined,
        "site_4": "straggler",
        "site_a": "a",
    }


def test_nobody_is_a_straggler_before_half_of_the_sites_have_answered() -> None:
    silent = {n: FakeNode(f"site_{n}", lambda _: None) for n in (2, 3)}
    grid = FakeGrid({1: answers("a"), **silent})
    patience = Patience(deadline_s=0.3, poll_s=0.005, straggler_factor=3.0, straggler_grace_s=0.01)
    assert texts(exchange(grid, envelopes(grid), patience)) == {
        "site_2": "timeout",
        "site_3": "timeout",
        "site_a": "a",
    }


def test_a_site_has_its_own_deadline() -> None:
    silent = {n: FakeNode(f"site_{n}", lambda _: None) for n in (1, 2)}
    grid = FakeGrid({**silent})
    patience = Patience(deadline_s=0.4, poll_s=0.005, site_deadlines_s={"site_1": 0.1})
    seconds = {d.site: d.seconds for d in exchange(grid, envelopes(grid), patience).deliveries}
    assert seconds["site_1"] < 0.3
    assert seconds["site_2"] >= 0.4


def test_a_late_answer_is_taken_in_the_next_exchange_without_asking_anew() -> None:
    slow = FakeNode("site_b", lambda _: content("late") if grid.poll > 60 else None)
    grid = FakeGrid({1: answers("a"), 2: slow})
    first = exchange(grid, envelopes(grid), Patience(deadline_s=0.1, poll_s=0.005))
    assert texts(first) == {"site_a": "a", "site_b": "timeout"}
    assert [item.site for item in first.unanswered] == ["site_b"]
    patience = Patience(deadline_s=9.0, poll_s=0.005)
    again = exchange(grid, [], patience, carried=first.unanswered)
    assert texts(again) == {"site_b": "late"}
    assert len(slow.received) == 1


def test_an_offline_site_is_no_longer_awaited() -> None:
    grid = FakeGrid({2: FakeNode("site_b", lambda _: None, offline=(3, 10**9))})
    assert exchange(grid, envelopes(grid), QUICK).unanswered == ()
