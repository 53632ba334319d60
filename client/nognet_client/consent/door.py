"""A site's consent (`consent:` in site.yaml) at its door: what is outside is declined.

Each check raises all that `objections` finds as one `ConsentError`. The coordinator is told the
first code and nothing else, and goes on without the site; the site lives on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

import nognet
from nognet.audit.log import AuditLog, egress_folder
from nognet.config import ConsentConfig
from nognet.errors import ConsentError
from nognet.metrics.definitions import GROWTH_AUC
from nognet.metrics.moments import Concordance
from nognet.metrics.statistics import PredictorStatistics, SiteStatistics
from nognet.wire.records import EvaluateTask
from nognet_client.consent.objections import (
    Objection,
    about_count,
    about_ended,
    about_evaluation,
    about_hours,
    about_own_model,
    about_round,
    about_run,
    about_spending,
    about_study,
    readable,
)
from nognet_client.consent.served import Book, Kind, Run, ServedRecord, runs_on_disk, with_run
from nognet_client.egress.room import with_room
from nognet_client.request import Request

_log = logging.getLogger("nognet.client.consent")


def check_joining(request: Request, *, now: datetime | None = None) -> None:
    """Hold a study against the consent before the site joins, and note it as the run's.

    The coordinator's release, which only this message names, is noted with the run and holds for
    all its tasks. A known run has it noted also where it is declined: a coordinator whose new
    release was declined isn't served on its old one's account.

    Raises:
        ConsentError: it is outside; or the run was joined with another study; or all rounds that
            the site agreed to are done.
    """
    record = ServedRecord(request.config.state)
    record.change(lambda book: _with_release(book, request))
    served = record.read().of(request.study.name)
    _check(request, about_count(request, served, "rounds"), now=now)
    most = request.consent.max_rounds
    if most is not None and served.rounds + request.study.rounds > most:
        _log.warning(
            "study '%s': of the %d rounds that this site agreed to %d are done, in this run or in "
            "earlier ones; after %d more it declines (consent.max_rounds in site.yaml)",
            request.study.name,
            most,
            served.rounds,
            most - served.rounds,
        )


def check_training(request: Request, round_number: int, *, now: datetime | None = None) -> None:
    """Hold a round of training against the consent.

    Raises:
        ConsentError: it is outside.
    """
    _check(request, about_round(request, round_number, least=1), now=now)


def check_evaluating(request: Request, task: EvaluateTask, *, now: datetime | None = None) -> None:
    """Hold an evaluation against the consent.

    Raises:
        ConsentError: it is outside.
    """
    round_ = about_round(request, task.round_number, least=0)
    _check(request, (*round_, *about_evaluation(task)), now=now)


def check_sharing(request: Request, round_number: int, *, now: datetime | None = None) -> None:
    """Hold the wish for the site's own model against the consent.

    Raises:
        ConsentError: it is outside.
    """
    _check(request, about_round(request, round_number, least=0), now=now)


def forecast_objections(request: Request, *, now: datetime | None = None) -> tuple[Objection, ...]:
    """Say what of a study that was not asked for yet would be declined; nothing is noted.

    Raises:
        ConsentError: the record of what was done for each study can't be read.
    """
    served = ServedRecord(request.config.state).read().of(request.study.name)
    request = replace(request, release=nognet.__version__)  # nobody has said another one yet
    study = about_study(request, now or datetime.now(UTC))
    return (*study, *about_count(request, served, "rounds"))


def begin(request: Request, kind: Kind, digest: str, *, now: datetime | None = None) -> None:
    """Let a round or an evaluation begin: it is counted before it is worked on.

    A reply that is kept needs no beginning: it may be given again at any hour.

    Args:
        request: What is asked.
        kind: Of the task.
        digest: Of the task; the one that was counted last and died doesn't count again.
        now: The time, for the hours of training.

    Raises:
        ConsentError: all that the site agreed to are done, or they can't be recorded; training
            would begin outside the hours, or after the run's end.
    """
    name, trains = request.study.name, kind == "rounds"
    noised = request.noised(1) if trains else None
    task = f"{request.run_token} {digest}"  # the digest alone is the same in another run
    _decline(request, tuple(about_hours(request, now or datetime.now(UTC))) if trains else ())

    def counted(book: Book) -> Book:
        served = book.of(name)
        _decline(request, tuple(about_ended(book, request.run_token)) if trains else ())
        if served.is_counted(kind, task):
            return book
        spent = about_spending(request, served) if trains else ()
        _decline(request, (*about_count(request, served, kind), *spent))
        return replace(book, studies={**book.studies, name: served.then(kind, task, noised)})

    ServedRecord(request.config.state).change(counted)


def end(request: Request, kind: Kind) -> None:
    """Note that the task that began last is done: only its kept reply is free from now on.

    Raises:
        ConsentError: it can't be recorded.
    """
    name = request.study.name

    def noted(book: Book) -> Book:
        return replace(book, studies={**book.studies, name: book.of(name).done(kind)})

    ServedRecord(request.config.state).change(noted)


def begin_own_model(request: Request, digest: str) -> None:
    """Let the site make its own model, once a run: the task is noted before it is worked on.

    Where the study asks for no such model, none is made of any weights, and nothing is noted.

    Args:
        request: What is asked.
        digest: Of the task alone. The one that is noted may come again, also after a restart.

    Raises:
        ConsentError: another one was noted in this run, or it can't be recorded.
    """
    if not request.study.personalisation.is_on:
        return
    token = request.run_token

    def noted(book: Book) -> Book:
        _decline(request, tuple(about_own_model(book, token, digest)))
        run = replace(book.runs.get(token, Run(request.digest)), personalised=digest)
        return replace(book, runs={**book.runs, token: run})

    ServedRecord(request.config.state).change(noted)


def permitted(statistics: SiteStatistics, consent: ConsentConfig | None) -> SiteStatistics:
    """Withhold the metrics that the site doesn't let out.

    Args:
        statistics: Of a split; not changed.
        consent: The site's; without `metrics` all may leave.

    Returns:
        The same predictors without sums of other metrics; a growth AUC that may not leave is that
        of no pairs.
    """
    if consent is None or consent.metrics is None:
        return statistics
    allowed = frozenset(consent.metrics)
    return SiteStatistics(
        {
            name: PredictorStatistics(
                {metric: sums for metric, sums in found.metrics.items() if metric in allowed},
                found.growth if GROWTH_AUC in allowed else Concordance(),
            )
            for name, found in statistics.predictors.items()
        }
    )


def _check(request: Request, more: Iterable[Objection], *, now: datetime | None) -> None:
    """Decline what is outside; else note which study the run began with."""
    record = ServedRecord(request.config.state)
    book = record.read()
    asked = _as_joined(request, book)
    study = about_study(asked, now or datetime.now(UTC))
    _decline(request, (*about_run(request, book), *study, *more))

    def noted(book: Book) -> Book:
        if request.run_token in book.runs:
            return book
        _log.info("%s: %s", request.config.name, request.words)
        _note_in_audit_log(request)
        kept = runs_on_disk(request.config.state)
        run = Run(request.digest, readable(request.release))
        return with_run(book, request.run_token, run, on_disk=kept)

    record.change(noted)


def _as_joined(request: Request, book: Book) -> Request:
    """Add the coordinator's release to a task, which doesn't name it, as it was at joining."""
    known = book.runs.get(request.run_token)
    if request.release is not None or known is None:
        return request
    return replace(request, release=known.release)


def _with_release(book: Book, request: Request) -> Book:
    """Note the coordinator's release of a run that is known already; its place stays."""
    known = book.runs.get(request.run_token)
    if known is None or known.digest != request.digest:
        return book
    run = replace(known, release=readable(request.release))
    return replace(book, runs={**book.runs, request.run_token: run})


def _note_in_audit_log(request: Request) -> None:
    """Put on record which study a run is of; what is declined is there by its code already.

    Raises:
        EgressError: the log is not as it was left.
        OSError: it can't be written, which `ServedRecord.change` makes an error of its own.
    """
    folder = egress_folder(request.config.state)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    event = {
        "kind": "consent",
        "decision": "accepted",
        "run": request.run_token,
        "study": request.study.name,
        "study_sha256": request.digest,
        "rounds": request.study.rounds,
        "limited": request.config.consent is not None,
    }
    with_room(folder, lambda: AuditLog(folder).append(event))


def _decline(request: Request, found: tuple[Objection, ...]) -> None:
    if not found:
        return
    reasons = "; ".join(objection.words for objection in found)
    raise ConsentError(
        f"{request.config.name} declines study '{request.study.name}', run "
        f"{request.run_token[:8]}: {reasons}. Nothing was trained or sent. A changed site.yaml "
        "holds from the next task on",
        code=found[0].code,
    )
