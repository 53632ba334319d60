"""Joining: who takes part, by name, once site and study agree on what the numbers mean."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace

from flwr.app import Message, MessageType
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid

from nognet.errors import ContractError, FederationError, NognetError, WireError
from nognet.wire.contract import check_same, item_code
from nognet.wire.records import FAULTS, JoinReply, JoinTask
from nognet.wire.software import differing_software, software_versions
from nognet_server.grid import exchange, online_nodes
from nognet_server.phases import tell_phase
from nognet_server.roster import Member, Question, Refusal, Roster, label_of, silent_for
from nognet_server.rounds.messages import Delivery, Envelope, Patience, declined_code

_log = logging.getLogger("nognet.server.joining")
_TELL_S = 10.0
_SILENT_S = 20.0
"""A site that has not answered for so long is named; starting its task alone takes seconds."""
_LOOK_S = 1.0
"""While sites are waited for, so long at most until who has come is looked at again."""


@dataclass(frozen=True)
class Wanted:
    """How many sites a wait is for, and until when.

    Attributes:
        sites: The wait ends when so many are online.
        minimum: With a closed roster, so many are enough once everybody has answered.
        timeout_s: The longest wait.
        closed_roster: Simulation: so many sites exist; 0 where sites come and go.
    """

    sites: int
    minimum: int
    timeout_s: float
    closed_roster: int = 0


def wait_for_sites(
    grid: Grid,
    task: JoinTask,
    roster: Roster,
    patience: Patience,
    wanted: Wanted,
    *,
    busy: Container[int] = (),
) -> Roster:
    """Admit sites until enough of them are online.

    A site that is asked and silent holds nobody up. With a closed roster (simulation) nobody else
    will come: each site is asked once, and the run goes on with those that joined, if they are
    enough.

    Raises:
        FederationError: too few sites joined in time; names who did, and who was refused and why.
    """
    deadline = time.monotonic() + wanted.timeout_s
    shortly = replace(patience, deadline_s=min(patience.deadline_s, _LOOK_S))
    told = ""
    while True:
        retry = wanted.closed_roster == 0
        roster = admit(grid, task, roster, shortly, retry=retry, busy=busy)
        here = present(grid, roster)
        left_s = deadline - time.monotonic()
        is_closed = wanted.closed_roster > 0
        nobody_else_comes = is_closed and (
            left_s <= 0 or len(roster.heard_of) >= wanted.closed_roster
        )
        enough = wanted.minimum if nobody_else_comes else wanted.sites
        if len(here) >= enough:
            return roster
        if nobody_else_comes or left_s <= 0:
            raise _too_few(list(here), roster, wanted, timed_out=left_s <= 0)
        status = f"{len(here)} of {wanted.sites} sites are here ({', '.join(here) or 'none yet'})"
        if silent := silent_for(roster, _SILENT_S):
            status += f"; no answer yet from {', '.join(silent)}"
        if status != told:
            tell_phase("waiting", text=status)
            _log.info("waiting for sites: %s; at most %.0f s more", status, left_s)
            told = status
        time.sleep(patience.poll_s)


def present(grid: Grid, roster: Roster) -> dict[str, Member]:
    """Give the members that are online now and may be asked, sorted by name."""
    nodes = set(online_nodes(grid)) - set(roster.unanswered)
    return {n: roster.members[n] for n in roster.asked if roster.members[n].node_id in nodes}


def admit(
    grid: Grid,
    task: JoinTask,
    roster: Roster,
    patience: Patience,
    *,
    retry: bool,
    busy: Container[int] = (),
) -> Roster:
    """Ask every node that is new or was restarted who it is, and admit it or refuse it.

    Who has not answered by the deadline (it may be preparing its data) is neither: the question
    stays under way, and a later call takes the answer if it is there.

    Args:
        grid: Flower's grid.
        task: The question.
        roster: Who takes part so far.
        patience: How long new questions are waited for.
        retry: Whether those that were refused are asked again, after a while.
        busy: Nodes that are at work for the run, where a question would only queue.
    """
    nodes = online_nodes(grid)
    earlier = {i: q for i, q in roster.unanswered.items() if _is_the_same(q.node, nodes.get(i))}
    roster = replace(roster, unanswered=earlier)
    new = {
        i: nodes[i]
        for i in sorted(nodes)
        if i not in earlier and i not in busy and _is_to_ask(roster, nodes[i], retry=retry)
    }
    asked = {**{i: question.node for i, question in earlier.items()}, **new}
    if not asked:
        return roster
    told = {i: _refusal_code(roster, i, node.last_activated_at) for i, node in asked.items()}
    started = time.monotonic()
    found = exchange(
        grid,
        [_question(task, node_id) for node_id in new],
        replace(patience, site_deadlines_s={str(i): 0.0 for i in earlier}),
        carried=[question.pending for question in earlier.values()],
        what="join",
    )
    since = {**dict.fromkeys(new, started), **{i: q.since for i, q in earlier.items()}}
    silent = {int(item.site): item for item in found.unanswered}
    under_way = {i: Question(asked[i], item, since[i]) for i, item in silent.items()}
    roster = replace(roster, unanswered=under_way)
    for delivery in found.deliveries:
        if int(delivery.site) not in silent:
            roster = _decide(roster, asked[int(delivery.site)], delivery, task)
    _tell_refused(grid, task, roster, patience, told)
    return roster


def _is_the_same(node: NodeInfo, now: NodeInfo | None) -> bool:
    """Tell whether a node is online as it was; a question died with an earlier life of it."""
    return now is not None and node.last_activated_at == now.last_activated_at


def _question(task: JoinTask, node_id: int, refusal: str = "") -> Envelope:
    content = replace(task, refusal=refusal).to_content()
    return Envelope(str(node_id), Message(content, node_id, MessageType.QUERY))


def _refusal_code(roster: Roster, node_id: int, activated_at: str) -> str:
    refusal = roster.refused.get(node_id)
    return refusal.code if refusal is not None and refusal.activated_at == activated_at else ""


def _tell_refused(
    grid: Grid, task: JoinTask, roster: Roster, patience: Patience, told: Mapping[int, str]
) -> None:
    """Tell each site why it is not used, once since it started; what it answers is moot."""
    refused = {i: roster.refused[i].code for i in told if i in roster.refused}
    new = {i: code for i, code in refused.items() if code and code != told[i]}
    shortly = Patience(
        min(patience.deadline_s, _TELL_S), min(patience.lost_after_s, _TELL_S), patience.poll_s
    )
    if new:
        exchange(grid, [_question(task, *told) for told in new.items()], shortly, what="be told")


def _is_to_ask(roster: Roster, node: NodeInfo, *, retry: bool) -> bool:
    node_id, activated_at = int(node.node_id), node.last_activated_at
    if any(
        m.node_id == node_id and m.activated_at == activated_at for m in roster.members.values()
    ):
        return False
    refusal = roster.refused.get(node_id)
    if refusal is None or refusal.activated_at != activated_at:
        return True
    return retry and refusal.is_due


def _decide(roster: Roster, node: NodeInfo, delivery: Delivery, task: JoinTask) -> Roster:
    """Admit or refuse one node by what it answered."""
    label = label_of(node)
    if code := declined_code(delivery.reason):
        reason = f"declined the study ({code}); its own log says what it accepts"
        return _refuse(roster, node, label, reason, declined=True)
    try:
        reply = _checked(delivery, node, task)
        label = reply.site
        _check_may_take_part(roster, reply.site, int(node.node_id))
    except NognetError as err:
        knows = delivery.content is None or isinstance(err, ContractError)
        code = "" if knows else item_code(err.code)  # a site compares contracts itself
        return _refuse(roster, node, label, str(err), code=code)
    others = {name: m for name, m in roster.members.items() if m.node_id != int(node.node_id)}
    member = Member(
        reply.site,
        int(node.node_id),
        node.last_activated_at,
        reply.versions,
        reply.counts,
        reply.shares_models,
        reply.min_patients,
    )
    refused = {i: r for i, r in roster.refused.items() if i != int(node.node_id)}
    for name, versions in differing_software(software_versions(), reply.versions).items():
        _log.warning("%s has another %s: %s", reply.site, name, versions)
    pairs = {split: reply.counts[split]["pairs"] for split in ("train", "validation", "test")}
    _log.info(
        "%s joined: %s training, %s validation, %s test pairs",
        reply.site,
        *("too few to tell" if found is None else found for found in pairs.values()),
    )
    return replace(roster, members={**others, reply.site: member}, refused=refused)


def _checked(delivery: Delivery, node: NodeInfo, task: JoinTask) -> JoinReply:
    if delivery.content is None:
        raise FederationError(f"gave no answer ({delivery.reason}); its own log says why")
    reply = JoinReply.from_content(delivery.content)
    if node.name and node.name != reply.site:
        raise FederationError(
            f"calls itself '{reply.site}' but its key is registered for '{node.name}'; make `name` "
            "in site.yaml the registered one",
            code="registered-name",
        )
    _check_faults(reply, task)
    check_same(task.contract, reply.contract)
    if reply.counts["train"]["patients"] is None:
        raise WireError(
            f"has fewer than {reply.min_patients} training patients (egress.min_patients at the "
            "site), so it can't train",
            code="too-few-patients",
        )
    if reply.counts["train"]["pairs"] == 0:
        raise WireError(
            "has no training pairs; `nognet check` at the site says why", code="no-training-pairs"
        )
    return reply


def _check_faults(reply: JoinReply, task: JoinTask) -> None:
    """Let no site fail on purpose in a real run, whatever it thinks the study is; say it aloud."""
    faults = reply.versions.get(FAULTS)
    if faults is None:
        return
    if json.loads(task.study_json).get("rehearsal") is not True:
        raise FederationError(
            f"fails on purpose ({faults}), and the study is no rehearsal; start its client without "
            "--chaos",
            code="fails-on-purpose",
        )
    _log.warning("REHEARSAL: %s fails on purpose: %s", reply.site, faults)


def _check_may_take_part(roster: Roster, name: str, node_id: int) -> None:
    if name in roster.barred:
        why = roster.barred[name]
        raise FederationError(f"is {why} in this run and is asked no more", code=why)
    holder = roster.members.get(name)
    if holder is not None and holder.node_id != node_id:
        raise FederationError(
            f"two sites call themselves '{name}'; names must be unique: change `name` in one "
            "site.yaml",
            code="name-taken",
        )


def _refuse(
    roster: Roster,
    node: NodeInfo,
    label: str,
    reason: str,
    *,
    declined: bool = False,
    code: str = "",
) -> Roster:
    _log.warning("%s is not used: %s", label, reason)
    refusal = Refusal(label, reason, node.last_activated_at, time.monotonic(), declined, code)
    members = {name: m for name, m in roster.members.items() if m.node_id != int(node.node_id)}
    return replace(roster, members=members, refused={**roster.refused, int(node.node_id): refusal})


def _too_few(
    here: list[str], roster: Roster, wanted: Wanted, *, timed_out: bool
) -> FederationError:
    refused = roster.refusals_text()
    wait = f" within {wanted.timeout_s:.0f} s" if timed_out else ""
    return FederationError(
        f"{len(here)} of the {wanted.sites} sites awaited joined{wait} "
        f"({', '.join(here) or 'none'})"
        + (f"; not used: {refused}" if refused else "")
        + "; start the missing sites' clients, or lower federation.expected_sites",
        code="too-few-sites",
    )
