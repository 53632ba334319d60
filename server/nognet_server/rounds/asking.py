"""Ask the sites to train and to evaluate; keep in mind whose answer is still awaited."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from flwr.app import Message, MessageType

from nognet.types import Split
from nognet.wire.flat import FlatWeights
from nognet.wire.records import EvaluateTask, TrainTask
from nognet_server.grid import exchange
from nognet_server.phases import tell_phase
from nognet_server.roster import Member
from nognet_server.rounds.loop import RoundFailedError, reasons_text, recent_norms
from nognet_server.rounds.messages import (
    OFFLINE,
    STILL_AT_WORK,
    Delivery,
    Envelope,
    Exchange,
    Pending,
)
from nognet_server.rounds.replies import (
    LATE,
    Asked,
    Evaluation,
    Training,
    check_evaluation,
    check_training,
)
from nognet_server.rounds.update_lengths import leave_out_long_updates
from nognet_server.runs.opening import Run
from nognet_server.runs.state import ServerState
from nognet_server.strategies import reply_form, train_messages

_log = logging.getLogger("nognet.server")
Late = Mapping[str, tuple[Pending, Asked]]


@dataclass(frozen=True)
class Trained:
    """A round's training, and the messages to be waited for in the next.

    Attributes:
        training: The usable updates.
        asked: Sites that were asked, those of an earlier round's message among them.
        late: Site -> its message under way, and what it was asked; see `federation.stragglers`.
    """

    training: Training
    asked: int
    late: Late


def ask_to_train(
    run: Run, state: ServerState, here: Mapping[str, Member], late: Late, absent: Mapping[str, str]
) -> Trained:
    """Let the strategy configure the round, send, wait, check.

    Args:
        run: The run.
        state: Before the round.
        here: Sites to ask.
        late: Messages of the round before whose answers count in this one.
        absent: Members that are not here, and why; reported as left out.
    """
    now = Asked(state.round_number + 1, state.weights)
    carried = {site: late[site] for site in here if site in late}
    fresh = {site: member for site, member in here.items() if site not in carried}
    asked = {**dict.fromkeys(fresh, now), **{site: what for site, (_, what) in carried.items()}}
    tell_phase("training", round_number=now.round_number)
    _log.info(
        "round %d of %d: training at %s%s",
        now.round_number,
        run.study.rounds,
        ", ".join(fresh) or "no site",
        f"; still awaited: {', '.join(carried)}" if carried else "",
    )
    done = deliver(
        run,
        _train_envelopes(run, state, fresh),
        f"round {now.round_number}",
        "train",
        carried=[item for item, _ in carried.values()],
    )
    training = check_training(done.deliveries, asked, now, form=reply_form(run.study))
    if run.study.central_privacy is None:  # else one site's length would decide about another
        training = leave_out_long_updates(training, run.study.federation, recent_norms(state))
    training = replace(training, left_out={**absent, **training.left_out})
    keeps = run.study.federation.stragglers == "next_round"
    still = {item.site: (item, asked[item.site]) for item in done.unanswered} if keeps else {}
    return Trained(training, len(here), still)


def away_or_at_work(trained: Trained) -> dict[str, str]:
    """Give the sites that can't evaluate after a round's training, and why.

    A site works on one message at a time: who is still training, or was lost while it did, would
    begin to evaluate only after that, and the round would wait for a training that is not used.
    """
    gone = (*STILL_AT_WORK, OFFLINE)
    given_up = {site: why for site, why in trained.training.left_out.items() if why in gone}
    return {**given_up, **dict.fromkeys(trained.late, LATE)}


def ask_to_evaluate(
    run: Run,
    here: Mapping[str, Member],
    weights: FlatWeights,
    *,
    split: Split,
    round_number: int,
    busy: Mapping[str, str] | None = None,
) -> Evaluation:
    """Evaluate global weights at every site that is here and not busy.

    On test patients, which is once, at the end, each site makes and evaluates its own model beside
    the global one, as the study says.

    Raises:
        RoundFailedError: no site gave usable statistics, and not because all withhold theirs.
    """
    tell_phase("testing" if split == "test" else "evaluating", round_number=round_number)
    busy = {site: why for site, why in (busy or {}).items() if site in here}
    content = EvaluateTask(
        round_number=round_number,
        split=split,
        study_json=run.identity.study_json,
        contract_hash=run.identity.contract_hash,
        run_token=run.identity.run_token,
        weights=weights,
        personalise=split == "test",
    ).to_content()
    envelopes = [
        Envelope(name, Message(content, member.node_id, MessageType.EVALUATE))
        for name, member in here.items()
        if name not in busy
    ]
    done = deliver(run, envelopes, f"round {round_number}", f"evaluate on {split}")
    found = check_evaluation(done.deliveries, split=split, round_number=round_number)
    evaluation = replace(found, left_out={**found.left_out, **busy})
    if not evaluation.is_possible:
        raise RoundFailedError(
            f"round {round_number}: no site gave usable {split} figures "
            f"({reasons_text(evaluation.left_out)}); the run goes on with --resume "
            f"{run.folder.path}",
            code="no-usable-reply",
            faulty=evaluation.faulty,
        )
    return evaluation


def _train_envelopes(run: Run, state: ServerState, fresh: Mapping[str, Member]) -> list[Envelope]:
    if not fresh:
        return []
    number = state.round_number + 1
    task = TrainTask(
        round_number=number,
        study_json=run.identity.study_json,
        contract_hash=run.identity.contract_hash,
        run_token=run.identity.run_token,
        weights=state.weights,
    )
    nodes = {name: member.node_id for name, member in fresh.items()}
    messages = train_messages(run.study, state.strategy, task, nodes)
    return [Envelope(name, message) for name, message in messages.items()]


def deliver(
    run: Run,
    envelopes: Sequence[Envelope],
    label: str,
    what: str,
    *,
    carried: Sequence[Pending] = (),
) -> Exchange:
    """Send a round's messages, wait as the study says, and log each delivery."""

    def told(delivery: Delivery, awaited: Sequence[str]) -> None:
        rest = f"; waiting for {', '.join(awaited)}" if awaited else ""
        done = delivery.reason or "done"
        _log.info(
            "%s, %s: %s %s after %.1f s%s",
            label,
            what,
            delivery.site,
            done,
            delivery.seconds,
            rest,
        )

    return exchange(run.grid, envelopes, run.patience, carried=carried, what=what, on_delivery=told)
