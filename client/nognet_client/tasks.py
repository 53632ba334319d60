"""The site's side of joining and training, and what it works with. Task in, reply out."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from nognet.config import SiteConfig, StudyConfig, parse_study_json
from nognet.data.store import PreparedSite
from nognet.errors import ContractError
from nognet.fit.evaluate import evaluate_split
from nognet.fit.outcome import RoundOutcome
from nognet.fit.train import train_round
from nognet.fit.weights import Weights
from nognet.metrics.statistics import SiteStatistics
from nognet.progress import STEP_DONE, STEPS_LOGGER, Clock, Pace, StepDone
from nognet.types import Split
from nognet.wire.contract import (
    contract,
    contract_hash,
    describe_differences,
)
from nognet.wire.records import (
    EvaluateTask,
    JoinReply,
    JoinTask,
    SecureTask,
    ShareTask,
    TrainReply,
    TrainTask,
)
from nognet_client.admission import admit, admit_unbegun
from nognet_client.consent import door
from nognet_client.egress.counts import check_training_patients, lets_out_loss, released_counts
from nognet_client.leakage import check_leakage
from nognet_client.personal.model import OwnModel
from nognet_client.refusals import refusal_words, unusable
from nognet_client.rehearsal import check_rehearsal
from nognet_client.reply_cache import ReplyCache, task_digest
from nognet_client.request import Request
from nognet_client.site import Site, software_versions
from nognet_client.spent import check_told_is_charged

_log = logging.getLogger("nognet.client")
_steps_log = logging.getLogger(STEPS_LOGGER)
_STATUS_EVERY_S = 15.0
SECONDS_TOLD = 10.0
"""Under privacy a round's seconds leave as multiples of this."""
Progress = Callable[[int, int, float], None]


class TrainFunction(Protocol):
    """`nognet.fit.train.train_round`."""

    def __call__(  # noqa: D102, PLR0913  described by the class, and there
        self,
        study: StudyConfig,
        site: SiteConfig,
        prepared: PreparedSite,
        weights: Weights,
        *,
        round_number: int,
        progress: Progress | None = None,
        correction: Weights | None = None,
        run_token: str = ...,
    ) -> RoundOutcome: ...


class EvaluateFunction(Protocol):
    """`nognet.fit.evaluate.evaluate_split`."""

    def __call__(  # noqa: D102  described by the class
        self,
        study: StudyConfig,
        site: SiteConfig,
        prepared: PreparedSite,
        weights: Weights,
        *,
        split: Split,
        personal: Weights | None = None,
    ) -> SiteStatistics: ...


@dataclass(frozen=True)
class Work:
    """What a site does with a task; tests give it other functions.

    `faults` are the kinds that it inflicts on purpose, in a rehearsal; empty in every real run.
    """

    train: TrainFunction = train_round
    evaluate: EvaluateFunction = evaluate_split
    faults: str = ""


def join(task: JoinTask, site: Site, work: Work) -> JoinReply:
    """Say who the site is and what its numbers mean; warn here if the study's mean another thing.

    Raises:
        ConfigError: the study can't be read by this release, or only one of the two is for trials.
        ConsentError: it is outside what the site accepts.
        PrivacyError, PrivacyBudgetError: the whole run may not be spent on the site's patients.
    """
    study = parse_study_json(task.study_json)
    check_rehearsal(study, site.config)
    asked = contract_hash(task.contract)
    release = task.contract.get("nognet")
    door.check_joining(Request(study, asked, task.run_token, site.config, site.prepared, release))
    mine = contract(study, roi=site.prepared.roi)
    name = site.config.name
    if task.refusal:
        why = refusal_words(task.refusal)
        _log.warning(
            "%s was not used in study '%s' when it last answered (%s); it is asked anew",
            name,
            study.name,
            why,
        )
    if reason := describe_differences(task.contract, mine) or unusable(site):
        _log.error("%s can't take part in study '%s': %s", name, study.name, reason)
    else:
        admit(study, site, task.run_token)
        _log.info("%s asks to join study '%s'", name, study.name)
    least = site.config.egress.min_patients
    return JoinReply(
        site=name,
        versions=software_versions(work.faults),
        contract=mine,
        counts=released_counts(site.prepared, least),
        shares_models=site.config.share_models,
        min_patients=least,
    )


def train(task: TrainTask, site: Site, work: Work) -> TrainReply:
    """Train one round, or give the reply again that was given for this very task.

    Raises:
        ContractError: the study's numbers mean something else than the site's.
        ConsentError: the round is outside what the site accepts.
        EgressError: the site has fewer training patients than `egress.min_patients`.
        TrainingError, PrivacyError: as `nognet.fit.train.train_round`.
        PrivacyBudgetError: nothing was charged to the run yet, and the whole of it may not be.
        PrivacyError: the model tells too well who trained it (`leakage.refuse_auc`).
        WireError: the training diverged; nothing of the round leaves or is kept.
    """
    study = agreed_study(task, site)
    asked = request_of(task, study, site)
    door.check_training(asked, task.round_number)
    check_training_patients(site)
    check_told_is_charged(study, site.config)
    cache, digest = ReplyCache(site.config.state), task_digest(task, *site.facts)
    kept = cache.find(task, digest, TrainReply)
    if kept is not None:
        return kept
    own, name = OwnModel(study, site.config, site.prepared, task.run_token), site.config.name
    start = own.whole_after(task.weights, task.round_number - 1)
    admit_unbegun(study, site, task.run_token)
    door.begin(asked, "rounds", digest)
    _log.info("%s: round %d of %d, training", name, task.round_number, study.rounds)
    personal = own.train_personal(start, task.round_number)
    outcome = work.train(
        study,
        site.config,
        site.prepared,
        start,
        round_number=task.round_number,
        progress=_progress(name, task.round_number, study.rounds),
        correction=own.correction(task.correction),
        run_token=task.run_token,
    )
    leaving = own.shared(outcome.weights)  # checked before anything of the round is kept
    control = None if outcome.control is None else own.shared(outcome.control)
    check_leakage(
        study,
        site.config,
        site.prepared,
        outcome.weights,
        start,
        round_number=task.round_number,
        run_token=task.run_token,
    )
    own.keep(outcome.weights, personal, task.round_number, noised=outcome.epsilon is not None)
    door.end(asked, "rounds")
    reply = TrainReply(
        site=name,
        round_number=task.round_number,
        weights=leaving,
        n_pairs=outcome.n_pairs,
        n_patients=outcome.n_patients,
        steps=outcome.steps,
        mean_loss=outcome.mean_loss if lets_out_loss(site, study) else None,
        seconds=told_seconds(outcome.seconds, private=outcome.epsilon is not None),
        epsilon=outcome.epsilon,
        delta=outcome.delta,
        start_loss=outcome.start_loss,
        control=control,
    )
    cache.keep(task, digest, reply)
    return reply


def told_seconds(seconds: float, *, private: bool) -> float:
    """Give a round's seconds as they may leave: under privacy, rounded up to ten.

    Each noised step takes as long as patients were drawn for it, and who is drawn has to stay a
    secret for epsilon to hold.

    >>> told_seconds(12.3, private=False), told_seconds(12.3, private=True)
    (12.3, 20.0)
    """
    return math.ceil(seconds / SECONDS_TOLD) * SECONDS_TOLD if private else seconds


def agreed_study(
    task: TrainTask | EvaluateTask | ShareTask | SecureTask, site: Site
) -> StudyConfig:
    """Read the task's study and hold its contract against the site's own."""
    study = parse_study_json(task.study_json)
    check_rehearsal(study, site.config)
    if contract_hash(contract(study, roi=site.prepared.roi)) != task.contract_hash:
        raise ContractError(
            f"{site.config.name}: the task's contract is not the site's; the site's release of "
            "nognet or its prepared pairs changed since it joined: restart the client",
            code="contract-changed",
        )
    return study


def request_of(
    task: TrainTask | EvaluateTask | ShareTask | SecureTask, study: StudyConfig, site: Site
) -> Request:
    """Give what a task asks of the site, for its consent."""
    return Request(study, task.contract_hash, task.run_token, site.config, site.prepared)


def _progress(
    site: str, round_number: int, rounds: int, *, clock: Clock = time.monotonic
) -> Progress:
    """Log a line a quarter of a minute: step, loss, how long yet; and each step for a bar."""
    told, pace = clock(), Pace(1, clock)

    def tell(step: int, steps: int, loss: float) -> None:
        nonlocal told
        done = StepDone(site, round_number, rounds, step, steps, loss)
        mark = {STEP_DONE: done}
        _steps_log.debug("%s: round %d, %s", site, round_number, done.words, extra=mark)
        left_s = pace.left_s(step / steps)
        if clock() - told < _STATUS_EVERY_S or step == steps:
            return
        told = clock()
        line = "%s: round %d, %s; %.0f s left"
        _log.info(line, site, round_number, done.words, left_s, extra=mark)

    return tell
