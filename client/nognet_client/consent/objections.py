"""What a study asks for outside a site's consent: values in, objections out.

An objection has a code, which is all that the coordinator learns, and words for the site's log:
what was asked, what is accepted, what to change. A few stand whatever site.yaml says, for no study
asks for such things: a round beyond the study's own, a study that changed within a run, figures of
training patients, a personal model made before the end or more than once, training after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

import nognet
from nognet.config import ConsentConfig
from nognet.config.consent import LOSS
from nognet.errors import ConsentError
from nognet.privacy.accounting import PrivacyHistory
from nognet.wire.contract import PROTOCOL_VERSION
from nognet.wire.records import EvaluateTask
from nognet_client.consent.served import Book, Kind, Served
from nognet_client.request import Request

_RELEASE = re.compile(r"[A-Za-z0-9.+_-]{1,64}")


@dataclass(frozen=True)
class Objection:
    """One thing outside the consent.

    Attributes:
        code: What leaves the site.
        asked: What was asked, in words that stay.
        accepted: What is accepted.
        setting: The key below `consent` that would accept it; None where none does.
    """

    code: str
    asked: str
    accepted: str
    setting: str | None = None

    @property
    def words(self) -> str:
        """Say what was asked, what is accepted and what to change."""
        change = (
            f"consent.{self.setting} in site.yaml says so"
            if self.setting
            else "no setting accepts more; ask the coordinator what it is for"
        )
        return f"asked: {self.asked}; accepted: {self.accepted} ({change})"


def about_study(request: Request, now: datetime) -> Iterator[Objection]:
    """Object to the study as such: who, with which software, until when, how it trains."""
    yield from _about_name(request)
    yield from _about_software(request)
    yield from _about_training(request)
    yield from _about_privacy(request)
    last = request.consent.expires
    if last is not None and _local(request.consent, now).date() > last:
        today = _local(request.consent, now).date().isoformat()
        yield Objection("consent-expired", f"work on {today}", f"until {last}", "expires")


def _about_name(request: Request) -> Iterator[Objection]:
    consent, name = request.consent, request.study.name
    if consent.studies is None:
        return
    known = consent.accepts(name)
    if known is None:
        names = ", ".join(study.name for study in consent.studies)
        yield Objection("consent-study", f"study '{name}'", names, "studies")
    elif known.sha256 not in {None, request.digest}:
        asked = f"study '{name}' of sha256 {request.digest}"
        yield Objection("consent-study-digest", asked, f"sha256 {known.sha256}", "studies")


def _about_software(request: Request) -> Iterator[Objection]:
    consent = request.consent
    for whose, release in (("here", nognet.__version__), ("at the coordinator", request.release)):
        if consent.releases is not None and release not in consent.releases:
            shown = _release_words(release)
            asked, accepted = f"release {shown} {whose}", ", ".join(consent.releases)
            yield Objection("consent-release", asked, accepted, "releases")
            break
    if consent.protocol not in {None, PROTOCOL_VERSION}:
        asked, accepted = f"protocol {PROTOCOL_VERSION}", f"protocol {consent.protocol}"
        yield Objection("consent-protocol", asked, accepted, "protocol")
    if consent.contract_hash not in {None, request.contract_hash}:
        asked = f"a contract of hash {request.contract_hash}"
        yield Objection("consent-contract", asked, str(consent.contract_hash), "contract_hash")


def readable(release: str | None) -> str | None:
    """Give a release as it is noted: one of at most 64 characters that versions have, or none."""
    return release if release is not None and _RELEASE.fullmatch(release) else None


def _release_words(release: str | None) -> str:
    if release is None:
        return "that was never told, since this site didn't join the run,"
    return readable(release) or "that can't be read"


def _about_training(request: Request) -> Iterator[Objection]:
    study, consent = request.study, request.consent
    training = study.training
    if consent.max_rounds is not None and study.rounds > consent.max_rounds:
        accepted = f"at most {consent.max_rounds}"
        yield Objection("consent-max-rounds", f"{study.rounds} rounds", accepted, "max_rounds")
    least, most = consent.min_batch_size, consent.max_steps_per_round
    if least is not None and training.batch_size < least:
        asked = f"batches of {training.batch_size}"
        yield Objection("consent-batch-size", asked, f"{least} or more", "min_batch_size")
    if most is not None and training.steps_per_round > most:
        asked = f"{training.steps_per_round} steps a round"
        yield Objection("consent-steps", asked, f"at most {most}", "max_steps_per_round")
    if study.strategy.sends_start_loss and not consent.lets_out(LOSS):
        asked = f"the loss of training patients, which strategy {study.strategy.name} needs"
        yield Objection("consent-metrics", asked, "figures without 'loss'", "metrics")


def _about_privacy(request: Request) -> Iterator[Objection]:
    consent, privacy = request.consent, request.privacy
    if consent.require_privacy and privacy is None:
        asked, accepted = "training without privacy", "only training under privacy"
        yield Objection("consent-privacy", asked, accepted, "require_privacy")
    if consent.max_epsilon is None:
        return
    accepted = f"at most {consent.max_epsilon:g}"
    planned, delta = request.noised(request.study.rounds), request.consent_delta
    if delta is None:
        asked = "training without privacy, whose epsilon has no bound"
        yield Objection("consent-max-epsilon", asked, accepted, "max_epsilon")
    elif planned is not None:
        epsilon = PrivacyHistory((planned,)).epsilon(delta)
        if epsilon > consent.max_epsilon:
            asked = f"epsilon {epsilon:.3f} at delta {delta:g}, all rounds together"
            yield Objection("consent-max-epsilon", asked, accepted, "max_epsilon")


def about_run(request: Request, book: Book) -> Iterator[Objection]:
    """Object to a study that is not the one with which the run was joined."""
    before = book.runs.get(request.run_token)
    if before is not None and before.digest != request.digest:
        asked = f"study '{request.study.name}' of sha256 {request.digest}"
        accepted = f"sha256 {before.digest}, with which the run began"
        yield Objection("consent-study-changed", asked, accepted)


def about_round(request: Request, number: int, *, least: int) -> Iterator[Objection]:
    """Object to a round that the study doesn't have."""
    rounds = request.study.rounds
    if not least <= number <= rounds:
        accepted = f"{least} to {rounds}, as the study says"
        yield Objection("consent-round", f"round {number}", accepted)


def about_hours(request: Request, now: datetime) -> Iterator[Objection]:
    """Object to training that would begin outside the hours."""
    hours = request.consent.open_hours
    if hours is None:
        return
    begin, end = hours
    local = _local(request.consent, now)
    clock = local.time()
    is_open = begin <= clock < end if begin < end else clock >= begin or clock < end
    if not is_open:
        asked = f"training at {clock:%H:%M} {local.tzname()}"
        yield Objection(ConsentError.outside_hours, asked, str(request.consent.hours), "hours")


def about_evaluation(task: EvaluateTask) -> Iterator[Objection]:
    """Object to an evaluation that no study asks for."""
    if task.split == "train":
        accepted = "figures of validation and test patients"
        yield Objection("consent-split", "figures of training patients", accepted)
    if task.personalise and task.split != "test":
        asked = f"this site's own model to be made for {task.split}"
        yield Objection("consent-personalise", asked, "once, for the test at a run's end")


def about_own_model(book: Book, run_token: str, digest: str) -> Iterator[Objection]:
    """Object to a second personal model in a run: the same task may come again, no other."""
    before = book.runs.get(run_token)
    if before is not None and before.personalised not in {None, digest}:
        asked = "this site's own model of other weights than it was made of in this run"
        yield Objection("consent-personalise", asked, "once, for the test at a run's end")


def about_ended(book: Book, run_token: str) -> Iterator[Objection]:
    """Object to training in a run whose end the site has seen: its own model is made."""
    before = book.runs.get(run_token)
    if before is not None and before.personalised is not None:
        accepted = "none in this run, whose final test made this site's own model"
        yield Objection("consent-personalise", "one more round of training", accepted)


def about_count(request: Request, served: Served, kind: Kind) -> Iterator[Objection]:
    """Object to one task more than the site agreed to, all runs of the study together."""
    consent = request.consent
    most = consent.max_rounds if kind == "rounds" else consent.evaluations_allowed
    done = getattr(served, kind)
    if most is not None and done >= most:
        setting = f"max_{kind}"
        asked = f"one more after {done} {kind} of study '{request.study.name}'"
        yield Objection(f"consent-max-{kind}", asked, f"at most {most} in all its runs", setting)


def about_spending(request: Request, served: Served) -> Iterator[Objection]:
    """Object to a round whose noised steps pass `max_epsilon`, all runs of the study together."""
    most, delta, planned = request.consent.max_epsilon, request.consent_delta, request.noised(1)
    if most is None or delta is None or planned is None:
        return
    epsilon = served.noised.then(planned).epsilon(delta)
    if epsilon > most:
        asked = (
            f"epsilon {epsilon:.3f} at delta {delta:g} with this round, all runs of the study "
            "together"
        )
        yield Objection("consent-max-epsilon", asked, f"at most {most:g}", "max_epsilon")


def _local(consent: ConsentConfig, now: datetime) -> datetime:
    return now.astimezone(ZoneInfo(consent.timezone) if consent.timezone else None)
