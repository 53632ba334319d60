"""A ClientApp for rehearsals: sites fail as `--chaos` says, on purpose and by round.

Never loaded in a real run: `nognet_client.app:app` knows nothing of it. Where it is loaded at a
deployed site, it answers nothing of a study that does not call itself a rehearsal.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from nognet.config import SiteConfig, StudyConfig, parse_study_json
from nognet.config.chaos import Fault, parse_chaos
from nognet.data.store import PreparedSite
from nognet.errors import ProvisionError
from nognet.fit.outcome import RoundOutcome
from nognet.fit.train import train_round
from nognet.fit.weights import Weights
from nognet.pki.clock import clock_words, is_refused
from nognet.wire.records import ROUND_KEY, TrainReply, TrainTask
from nognet_client.app import build_app, site_name_of
from nognet_client.egress.replies import UpdateCheck, checked_update
from nognet_client.egress.updates import UpdateFacts
from nognet_client.flower_adapter import error_reply
from nognet_client.guard import told
from nognet_client.tasks import TrainFunction, Work

_log = logging.getLogger("nognet.chaos")
Sleep = Callable[[float], None]
DROPPED = "SiteDropped:chaos"
CLOCK = f"{ProvisionError.__name__}:clock"
"""What ends a deployed client whose clock is too far off: the coordinator refuses its signature."""
NO_REHEARSAL = "ConfigError:no-rehearsal"
_NO_LIMIT = 1e30


class ChaoticApp(ClientApp):
    """A ClientApp whose messages, too, can be disturbed: dropped, or sent with a wrong clock."""

    def __init__(
        self, inner: ClientApp, faults: Sequence[Fault], *, rehearsals_only: bool = False
    ) -> None:
        super().__init__()
        self.inner, self.faults = inner, tuple(faults)
        self.rehearsals_only = rehearsals_only

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer; or as if the site were gone, or its clock were wrong."""
        site, number = site_name_of(context), _round_of(message)
        if self.rehearsals_only and not _is_rehearsal(message):
            _log.error(
                "%s was started with --chaos and takes no part in a real study: its study.yaml "
                "does not say `rehearsal: true`. Start nognet-client without --chaos",
                site,
            )
            return error_reply(message, told(message, context, NO_REHEARSAL))
        striking = [f for f in self.faults if number is not None and f.strikes(site, number)]
        for fault in striking:
            if fault.kind == "drop":
                _log.warning("chaos: %s is gone in round %d", site, number)
                return error_reply(message, told(message, context, DROPPED))
            if fault.kind == "skew" and is_refused(fault.seconds):
                words = "chaos: %s in round %d is refused: %s"
                _log.warning(words, site, number, clock_words(fault.seconds))
                return error_reply(message, told(message, context, CLOCK))
        reply = self.inner(message, context)
        for fault in striking:
            if fault.kind == "skew":  # as a reply made by such a clock: it ends when the task does
                reply.metadata.created_at += fault.seconds
                reply.metadata.ttl -= fault.seconds
        return reply


def chaotic_app(text: str, work: Work | None = None, *, sleep: Sleep = time.sleep) -> ClientApp:
    """Make the ClientApp of a rehearsal.

    Args:
        text: Faults, as `parse_chaos` reads them.
        work: What the sites do where no fault strikes.
        sleep: Of a slow site.
    """
    faults, usual = parse_chaos(text), work or Work()
    return ChaoticApp(
        build_app(
            Work(train=_disturbed(usual.train, faults, sleep), evaluate=usual.evaluate),
            _ungated(faults),
        ),
        faults,
    )


def deployed_chaotic_app(text: str) -> ClientApp:
    """Make the ClientApp of a deployed site in a rehearsal; of a real study it answers nothing.

    Args:
        text: The site's faults, as `parse_chaos` reads them.
    """
    faults = parse_chaos(text)
    train = _disturbed(train_round, faults, time.sleep)
    inner = build_app(Work(train=train, faults=kinds_text(faults)), _ungated(faults))
    return ChaoticApp(inner, faults, rehearsals_only=True)


def kinds_text(faults: Sequence[Fault]) -> str:
    """Name the kinds of faults as a site tells them to its coordinator."""
    return ".".join(sorted({fault.kind for fault in faults}))


def _ungated(faults: Sequence[Fault]) -> UpdateCheck:
    """Let a poisoned update out however long it is: a hostile site has no gate of its own."""

    def check(
        task: TrainTask, reply: TrainReply, study: StudyConfig, site: SiteConfig
    ) -> UpdateFacts:
        if any(f.kind == "poison" and f.strikes(site.name, task.round_number) for f in faults):
            egress = site.egress.model_copy(update={"max_update_norm": _NO_LIMIT})
            site = site.model_copy(update={"egress": egress})
        return checked_update(task, reply, study, site)

    return check


def _disturbed(train: TrainFunction, faults: Sequence[Fault], sleep: Sleep) -> TrainFunction:
    def disturbed(
        study: StudyConfig,
        site: SiteConfig,
        prepared: PreparedSite,
        weights: Weights,
        *,
        round_number: int,
        **named: Any,  # noqa: ANN401  passed on as they come
    ) -> RoundOutcome:
        striking = [fault for fault in faults if fault.strikes(site.name, round_number)]
        for fault in striking:
            _log.warning("chaos: %s in round %d", fault, round_number)
            if fault.kind == "oom":
                raise MemoryError
        started = time.perf_counter()
        outcome = train(study, site, prepared, weights, round_number=round_number, **named)
        for fault in striking:
            if fault.kind == "slow":
                sleep((fault.times - 1.0) * (time.perf_counter() - started) + fault.seconds)
            elif fault.kind in {"nan", "poison"}:
                outcome = replace(outcome, weights=_spoilt(fault, weights, outcome.weights))
        return outcome

    return disturbed


def _spoilt(fault: Fault, start: Weights, end: Weights) -> Weights:
    """Give weights with a NaN, or with the opposite of the update."""
    if fault.kind == "nan":
        return {name: tensor * float("nan") for name, tensor in end.items()}
    return {name: start[name] - fault.times * (end[name] - start[name]) for name in end}


def _is_rehearsal(message: Message) -> bool:
    """Whether a message is of a study that says so; every message carries its study."""
    for record in message.content.config_records.values():
        if isinstance(study := record.get("study"), str):
            return parse_study_json(study).rehearsal
    return False


def _round_of(message: Message) -> int | None:
    """Give the round of a task; None for the question who a site is."""
    for record in message.content.config_records.values():
        if isinstance(number := record.get(ROUND_KEY), int):
            return number
    return None
