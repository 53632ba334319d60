"""One attempt at a secure sum: what stays the same through it, and how a short step is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from flwr.app import Message, MessageType

from nognet.config import SecureAggregationConfig
from nognet.errors import NognetError
from nognet.secagg.noised import NoisedCode
from nognet.secagg.quantise import Code
from nognet.secagg.session import Rules, Session
from nognet.wire.records import SECURE_ACTION, Rows, SecureTask, Step, TrainTask
from nognet_server.grid import exchange
from nognet_server.roster import Member
from nognet_server.rounds.loop import RoundFailedError, reasons_text
from nognet_server.rounds.messages import Envelope, Exchange, Patience
from nognet_server.runs.opening import Run
from nognet_server.runs.state import ServerState
from nognet_server.secure_sum.tally import Tally, checked_rows

Given = TypeVar("Given")


@dataclass(frozen=True)
class Attempt:
    """What stays the same through one session."""

    run: Run
    state: ServerState
    here: Mapping[str, Member]
    asked: SecureAggregationConfig
    session: Session

    @property
    def rules(self) -> Rules:
        """How many sites are needed."""
        plan = self.run.central
        if plan is None or plan.share is None:
            return Rules(self.asked.threshold)
        return Rules(self.asked.threshold, self.run.study.federation.minimum_sites)

    @property
    def patience(self) -> Patience:
        """For the short steps: no site trains meanwhile."""
        limit = self.asked.step_timeout_s
        lost = min(limit, self.run.settings.lost_after_s)
        return Patience(limit, lost, self.run.settings.poll_s)

    def code(self, sites: int) -> Code | NoisedCode:
        """How updates are written as words where so many sites began."""
        plan = self.run.central
        if plan is not None and plan.share is not None:
            share = plan.share
            return NoisedCode(share.step, share.largest, sites, plan.sites)
        return Code(self.asked.bits, self.asked.clip_value, self.asked.max_weight, sites)

    @property
    def task(self) -> TrainTask:
        """What all sites are asked to train."""
        identity = self.run.identity
        return TrainTask(
            round_number=self.session.round_number,
            study_json=identity.study_json,
            contract_hash=identity.contract_hash,
            run_token=identity.run_token,
            weights=self.state.weights,
        )


def ask(attempt: Attempt, step: Step, rows: Mapping[str, Rows]) -> Exchange:
    """Send a short step's message to each site that has rows, and wait."""
    identity, session = attempt.run.identity, attempt.session
    kind = f"{MessageType.QUERY}.{SECURE_ACTION}"
    envelopes = []
    for site in sorted(rows):
        task = SecureTask(
            step=step,
            round_number=session.round_number,
            study_json=identity.study_json,
            contract_hash=identity.contract_hash,
            run_token=identity.run_token,
            session=session.nonce,
            rows=rows[site],
        )
        node_id = attempt.here[site].node_id
        envelopes.append(Envelope(site, Message(task.to_content(), node_id, kind)))
    return exchange(attempt.run.grid, envelopes, attempt.patience, what=f"secure sum: {step}")


def each(
    attempt: Attempt,
    done: Exchange,
    step: Step,
    read: Callable[[str, Rows], Given],
    tally: Tally,
) -> tuple[dict[str, Given], Tally]:
    """Check each site's rows; a site whose rows can't be used is left out by name and reason."""
    found: dict[str, Given] = {}
    for delivery in done.deliveries:
        tally = tally.counted(delivery)
        try:
            found[delivery.site] = read(
                delivery.site, checked_rows(delivery, attempt.session, step)
            )
        except (NognetError, KeyError) as err:
            what = f"round {attempt.session.round_number}: secure sum, {step}"
            tally = tally.without(delivery, err, what)
    return found, tally


def check_enough(
    attempt: Attempt, what: str, sites: Mapping[str, object], began: int, tally: Tally
) -> None:
    """Hold a step's sites against the threshold of those that began.

    Raises:
        RoundFailedError: they are too few.
    """
    needed = attempt.rules.needed(began)
    if len(sites) >= needed:
        return
    number = attempt.session.round_number
    raise RoundFailedError(
        f"round {number}: {len(sites)} sites {what}, {needed} are needed for a secure sum "
        f"(secure_aggregation.threshold); left out: {reasons_text(tally.left_out)}. The state "
        f"after round {number - 1} is kept; mend the sites and resume with --resume "
        f"{attempt.run.folder.path}",
        code="secure-too-few",
        faulty=tally.faulty,
    )
