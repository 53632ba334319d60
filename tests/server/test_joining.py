from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from nognet_server import joining
from nognet_server.joining import Wanted, admit, present, wait_for_sites
from nognet_server.roster import Roster
from nognet_server.rounds.messages import Patience

from nognet.errors import FederationError
from nognet.types import SPLITS, STRATA
from nognet.wire.records import JoinReply, JoinTask
from nognet.wire.software import software_versions
from tests.builders.fake_grid import FakeGrid, FakeNode

pytestmark = pytest.mark.usefixtures("flower_task")
TASK = JoinTask("{}", {"axes": "z, y, x", "roi.size_vox": "48"}, "ab" * 16)
COUNTS = {split: {"patients": 2, "pairs": 3, "strata": {}} for split in SPLITS}
QUICK = Patience(deadline_s=5.0, lost_after_s=0.2, poll_s=0.005)


def reply(name: str) -> JoinReply:
    return JoinReply(name, software_versions(), TASK.contract, COUNTS)


def site(name: str, *, registered: str | None = None, answer: JoinReply | None = None) -> FakeNode:
    content = (answer or reply(name)).to_content()
    return FakeNode(registered if registered is not None else name, lambda _: content)


def wanted(sites: int, *, timeout_s: float = 5.0, closed: int = 0, minimum: int = 1) -> Wanted:
    return Wanted(sites, minimum, timeout_s, closed)


def test_all_sites_join_under_their_names() -> None:
    grid = FakeGrid({3: site("site_b"), 7: site("site_a")})
    roster = wait_for_sites(grid, TASK, Roster(), QUICK, wanted(2))
    assert list(present(grid, roster)) == ["site_a", "site_b"]
    assert roster.members["site_a"].node_id == 7
    assert roster.members["site_a"].counts["train"]["pairs"] == 3


def test_the_wait_ends_when_the_last_site_has_come() -> None:
    late = site("site_b")
    late.offline = (0, 12)
    grid = FakeGrid({3: late, 7: site("site_a")})
    roster = wait_for_sites(grid, TASK, Roster(), QUICK, wanted(2))
    assert sorted(roster.members) == ["site_a", "site_b"]
    assert all(len(node.received) == 1 for node in grid.nodes.values())


def test_too_few_sites_in_time_names_those_that_joined() -> None:
    grid = FakeGrid({7: site("site_a")})
    with pytest.raises(FederationError, match=r"1 of the 2 .* \(site_a\)"):
        wait_for_sites(grid, TASK, Roster(), QUICK, wanted(2, timeout_s=0.2))


def test_a_site_with_another_contract_is_refused_naming_the_item() -> None:
    other = replace(reply("site_b"), contract={**TASK.contract, "roi.size_vox": "32"})
    grid = FakeGrid({3: site("site_b", answer=other), 7: site("site_a")})
    with pytest.raises(FederationError, match=r"site_b: .*roi\.size_vox is 32 at the site, 48"):
        wait_for_sites(grid, TASK, Roster(), QUICK, wanted(2, closed=2, minimum=2))


def test_a_closed_roster_goes_on_without_a_refused_site_if_enough_are_left() -> None:
    other = replace(reply("site_b"), contract={})
    grid = FakeGrid({3: site("site_b", answer=other), 7: site("site_a")})
    roster = wait_for_sites(grid, TASK, Roster(), QUICK, wanted(2, closed=2, minimum=1))
    assert list(roster.members) == ["site_a"]
    assert "axes" in roster.refusals_text()


def test_two_sites_of_one_name_do_not_both_join() -> None:
    grid = FakeGrid({3: site("site_a", registered=""), 7: site("site_a", registered="")})
    roster = admit(grid, TASK, Roster(), QUICK, retry=False)
    assert [m.node_id for m in roster.members.values()] == [3]
    assert "two sites call themselves 'site_a'" in roster.refused[7].reason


def test_a_site_must_use_the_name_its_key_is_registered_for() -> None:
    grid = FakeGrid({3: site("site_b", registered="site_a")})
    roster = admit(grid, TASK, Roster(), QUICK, retry=False)
    assert not roster.members
    assert "registered for 'site_a'" in roster.refused[3].reason


def test_a_site_without_training_pairs_is_refused() -> None:
    empty = {split: {"patients": 0, "pairs": 0, "strata": {}} for split in SPLITS}
    grid = FakeGrid({3: site("site_a", answer=replace(reply("site_a"), counts=empty))})
    roster = admit(grid, TASK, Roster(), QUICK, retry=False)
    assert "no training pairs" in roster.refused[3].reason


NONE = {split: {"patients": 0, "pairs": 0, "strata": {}} for split in SPLITS}
HIDDEN = {"patients": None, "pairs": None, "strata": dict.fromkeys(STRATA)}
WITHHELD = dict.fromkeys(SPLITS, HIDDEN)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"counts": NONE}, "no-training-pairs"),
        ({"counts": WITHHELD, "min_patients": 5}, "too-few-patients"),
        ({"site": "site_x"}, "registered-name"),
        ({"site": "site_c"}, "quarantined"),
        ({"versions": {"faults": "nan"}}, "fails-on-purpose"),
    ],
)
def test_every_site_that_is_refused_is_told_why_at_once_and_anew_once_it_is_restarted(
    changes: dict[str, Any], code: str
) -> None:
    name = "site_c" if code == "quarantined" else "site_b"
    answer = site(name, answer=replace(reply(name), **changes))
    grid = FakeGrid({3: answer, 7: site("site_a")})
    roster = admit(grid, TASK, Roster(barred={"site_c": "quarantined"}), QUICK, retry=True)
    assert list(roster.members) == ["site_a"]
    assert [told_in(message) for message in answer.received] == ["", code]
    assert [told_in(message) for message in grid.nodes[7].received] == [""]
    earlier = replace(roster.refused[3], at=roster.refused[3].at - 60.0)
    admit(grid, TASK, replace(roster, refused={3: earlier}), QUICK, retry=True)
    assert [told_in(message) for message in answer.received] == ["", code, ""]  # it may be mended
    before = replace(earlier, activated_at="before")
    admit(grid, TASK, replace(roster, refused={3: before}), QUICK, retry=True)
    assert [told_in(message) for message in answer.received] == ["", code, "", "", code]


def test_a_site_that_compares_contracts_itself_is_told_nothing_of_them() -> None:
    other = site("site_b", answer=replace(reply("site_b"), contract={**TASK.contract, "axes": "x"}))
    roster = admit(FakeGrid({3: other}), TASK, Roster(), QUICK, retry=True)
    assert "axes" in roster.refusals_text()
    assert [told_in(message) for message in other.received] == [""]


def told_in(message: Message) -> str:
    return JoinTask.from_content(message.content).refusal


def test_a_second_site_of_one_name_is_told_so() -> None:
    grid = FakeGrid({3: site("site_a", registered=""), 7: site("site_a", registered="")})
    admit(grid, TASK, Roster(), QUICK, retry=False)
    assert [told_in(message) for message in grid.nodes[7].received] == ["", "name-taken"]


def test_a_refused_site_that_goes_silent_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "_TELL_S", 0.1)
    content = replace(reply("site_b"), counts=NONE).to_content()
    silent = FakeNode("site_b", lambda task: None if told_in(task) else content)
    grid = FakeGrid({3: silent, 7: site("site_a")})
    started = time.monotonic()
    roster = admit(grid, TASK, Roster(), replace(QUICK, deadline_s=60.0), retry=False)
    assert time.monotonic() - started < 5.0
    assert list(roster.members) == ["site_a"]
    assert roster.refused[3].code == "no-training-pairs"


def test_a_site_that_never_answers_holds_nobody_up_and_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    silent = FakeNode("site_c", lambda _: None)
    grid = FakeGrid({1: site("site_a"), 2: site("site_b"), 3: silent})
    patience = Patience(deadline_s=3600.0, poll_s=0.005)
    started = time.monotonic()
    roster = wait_for_sites(grid, TASK, Roster(), patience, wanted(2))
    assert time.monotonic() - started < 10.0
    assert list(present(grid, roster)) == ["site_a", "site_b"]
    assert "no answer yet" not in caplog.text
    monkeypatch.setattr(joining, "_SILENT_S", 0.5)
    with pytest.raises(FederationError, match=r"site_c: has not answered yet"):
        wait_for_sites(grid, TASK, roster, patience, wanted(3, timeout_s=0.1))
    told = "2 of 3 sites are here (site_a, site_b); no answer yet from site_c"
    assert told in caplog.text
    assert len(silent.received) == 1


def test_a_closed_roster_goes_on_without_a_silent_site_when_the_wait_is_over() -> None:
    grid = FakeGrid({3: FakeNode("site_b", lambda _: None), 7: site("site_a")})
    patience = Patience(deadline_s=3600.0, poll_s=0.005)
    waits = wanted(2, closed=2, minimum=1, timeout_s=0.1)
    assert list(wait_for_sites(grid, TASK, Roster(), patience, waits).members) == ["site_a"]


def test_a_slow_answer_is_taken_when_it_comes_and_asked_for_once() -> None:
    content = reply("site_b").to_content()
    slow = FakeNode("site_b", lambda _: content if grid.poll > 40 else None)
    grid = FakeGrid({3: slow, 7: site("site_a")})
    patience = Patience(deadline_s=0.02, poll_s=0.005)
    roster = wait_for_sites(grid, TASK, Roster(), patience, wanted(2))
    assert list(present(grid, roster)) == ["site_a", "site_b"]
    assert len(slow.received) == 1
    assert not roster.unanswered


def test_a_question_of_an_earlier_call_is_not_waited_for_beside_a_new_one() -> None:
    patience = Patience(deadline_s=0.02, poll_s=0.005)
    grid = FakeGrid({3: FakeNode("site_b", lambda _: None)})
    roster = admit(grid, TASK, Roster(), patience, retry=True)
    assert list(roster.unanswered) == [3]
    grid.nodes[7] = site("site_a")
    started = time.monotonic()
    roster = admit(grid, TASK, roster, replace(patience, deadline_s=60.0), retry=True)
    assert time.monotonic() - started < 5.0
    assert list(roster.members) == ["site_a"]
    assert list(roster.unanswered) == [3]


def test_a_silent_node_that_goes_is_asked_anew_when_it_is_back() -> None:
    patience = Patience(deadline_s=0.02, poll_s=0.005)
    node = FakeNode("site_a", lambda _: None)
    grid = FakeGrid({3: node})
    roster = admit(grid, TASK, Roster(), patience, retry=True)
    node.offline = (0, 10**9)
    roster = admit(grid, TASK, roster, patience, retry=True)
    assert not roster.unanswered
    content = reply("site_a").to_content()
    node.offline, node.answer = (0, 0), lambda _: content
    roster = admit(grid, TASK, roster, patience, retry=True)
    assert list(roster.members) == ["site_a"]


def test_a_silent_node_that_began_anew_unseen_is_asked_anew() -> None:
    content = reply("site_a").to_content()
    node = FakeNode("site_a", lambda _: content if grid.poll > 100 else None, restarts_at=100)
    grid = FakeGrid({3: node})
    patience = Patience(deadline_s=0.02, poll_s=0.005)
    roster = admit(grid, TASK, Roster(), patience, retry=True)
    assert list(roster.unanswered) == [3]
    grid.poll = 110
    roster = admit(grid, TASK, roster, patience, retry=True)
    assert list(roster.members) == ["site_a"]
    assert roster.members["site_a"].activated_at == "second"


def test_an_answer_that_flower_lost_is_asked_for_again() -> None:
    content = reply("site_a").to_content()
    node = FakeNode("site_a", lambda _: None)
    grid = FakeGrid({3: node})
    patience = Patience(deadline_s=0.02, poll_s=0.005)
    roster = admit(grid, TASK, Roster(), patience, retry=True)

    def answer(_: Message) -> RecordDict | Error:
        if len(node.received) == 1:
            return Error(ErrorCode.REPLY_MESSAGE_UNAVAILABLE, "lost")
        return content

    node.answer = answer
    roster = wait_for_sites(grid, TASK, roster, patience, wanted(1))
    assert list(roster.members) == ["site_a"]
    assert len(node.received) == 2


def test_a_member_that_began_anew_is_not_used_before_it_has_answered_and_stays_one() -> None:
    content = reply("site_a").to_content()
    node = FakeNode("site_a", lambda _: content, restarts_at=50)
    grid = FakeGrid({3: node})
    patience = Patience(deadline_s=0.02, poll_s=0.005)
    roster = admit(grid, TASK, Roster(), patience, retry=True)
    grid.poll, node.answer = 60, lambda _: None
    roster = admit(grid, TASK, roster, patience, retry=True)
    assert present(grid, roster) == {}
    assert roster.asked == ("site_a",)
    node.answer = lambda _: content
    roster = admit(grid, TASK, roster, patience, retry=True)
    assert list(present(grid, roster)) == ["site_a"]


def test_a_site_that_is_still_training_is_asked_nothing() -> None:
    node = site("site_a")
    node.restarts_at = 50
    grid = FakeGrid({3: node})
    roster = admit(grid, TASK, Roster(), QUICK, retry=True)
    grid.poll = 60
    roster = admit(grid, TASK, roster, QUICK, retry=True, busy={3})
    assert len(node.received) == 1
    assert list(present(grid, roster)) == ["site_a"]
    admit(grid, TASK, roster, QUICK, retry=True)
    assert len(node.received) == 2


def test_software_that_differs_is_warned_of_by_name_with_both_versions(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ours = software_versions()
    theirs = {**ours, "torch": "1.0.0", "numpy": f"{ours['numpy']}+local"}
    answer = replace(reply("site_a"), versions=theirs)
    grid = FakeGrid({3: site("site_a", answer=answer), 7: site("site_b")})
    roster = admit(grid, TASK, Roster(), QUICK, retry=False)
    assert list(roster.members) == ["site_a", "site_b"]
    warned = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warned == [f"site_a has another torch: {ours['torch']} here, 1.0.0 at the site"]


def test_a_site_that_fails_to_answer_is_refused_with_its_code() -> None:
    def fails(_: Message) -> RecordDict | Error:
        return Error(2, "SiteDataError:no-studies")

    grid = FakeGrid({3: FakeNode("site_a", fails)})
    roster = admit(grid, TASK, Roster(), QUICK, retry=False)
    assert "SiteDataError:no-studies" in roster.refused[3].reason


def test_a_site_that_declines_is_shown_so_and_not_asked_again_soon() -> None:
    def declines(_: Message) -> RecordDict | Error:
        return Error(2, "ConsentError:consent-max-rounds")

    node = FakeNode("site_a", declines)
    grid = FakeGrid({3: node, 7: site("site_b")})
    roster = admit(grid, TASK, Roster(), QUICK, retry=True)
    assert list(roster.members) == ["site_b"]
    assert roster.refusals_text() == (
        "site_a: declined the study (consent-max-rounds); its own log says what it accepts"
    )
    for seconds, asked in ((60.0, 1), (600.0, 2)):
        earlier = {3: replace(roster.refused[3], at=roster.refused[3].at - seconds)}
        admit(grid, TASK, replace(roster, refused=earlier), QUICK, retry=True)
        assert len(node.received) == asked


def test_a_member_is_asked_again_only_after_a_restart() -> None:
    node = site("site_a")
    node.restarts_at = 50
    grid = FakeGrid({3: node})
    roster = admit(grid, TASK, Roster(), QUICK, retry=True)
    roster = admit(grid, TASK, roster, QUICK, retry=True)
    assert len(node.received) == 1
    grid.poll = 60
    roster = admit(grid, TASK, roster, QUICK, retry=True)
    assert len(node.received) == 2
    assert roster.members["site_a"].activated_at == "second"


def test_a_refused_site_that_restarts_mended_is_admitted() -> None:
    bad, good = replace(reply("site_a"), contract={}).to_content(), reply("site_a").to_content()
    node = FakeNode("site_a", lambda _: good if grid.poll > 50 else bad, restarts_at=50)
    grid = FakeGrid({3: node})
    roster = admit(grid, TASK, Roster(), QUICK, retry=False)
    assert not roster.members
    grid.poll = 60
    roster = admit(grid, TASK, roster, QUICK, retry=False)
    assert list(roster.members) == ["site_a"]
    assert not roster.refused


def test_an_offline_member_is_not_present_and_is_again_when_back() -> None:
    node = site("site_a")
    grid = FakeGrid({3: node})
    roster = admit(grid, TASK, Roster(), QUICK, retry=False)
    node.offline = (0, 40)
    assert present(grid, roster) == {}
    grid.poll = 45
    assert list(present(grid, roster)) == ["site_a"]


@pytest.mark.parametrize("study", ['{"rehearsal": true}', '{"rehearsal": false}', "{}"])
def test_who_fails_on_purpose_takes_part_in_rehearsals_alone(
    study: str, caplog: pytest.LogCaptureFixture
) -> None:
    failing = replace(reply("site_a"), versions={"nognet": "0.1.0", "faults": "drop.nan"})
    grid = FakeGrid({7: site("site_a", answer=failing)})
    task = replace(TASK, study_json=study)
    roster = admit(grid, task, Roster(), QUICK, retry=False)
    if "true" in study:
        assert list(roster.members) == ["site_a"]
        assert "REHEARSAL: site_a fails on purpose: drop.nan" in caplog.text
    else:
        assert roster.members == {}
        assert "the study is no rehearsal" in roster.refusals_text()
