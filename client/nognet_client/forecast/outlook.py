"""The whole study at this site, from what was measured: a value that a table or JSON is made of."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nognet.config import SiteConfig, StudyConfig
from nognet.data.store import PreparedSite
from nognet.fit.alone import check_same_roi
from nognet.fit.budget import ledger_of, private_plan
from nognet.privacy.accounting import PrivacyHistory
from nognet.privacy.ledger_entries import histories_of
from nognet.privacy.policy import BudgetForecast, forecast, unlimited_words
from nognet.wire.contract import contract, contract_hash
from nognet_client.consent.door import forecast_objections
from nognet_client.consent.objections import Objection
from nognet_client.forecast.measured import Measured, measure
from nognet_client.forecast.refusals import Refusal, other_refusals, without_impossible_privacy
from nognet_client.forecast.sizes import (
    Messages,
    Traffic,
    folder_bytes,
    kept_replies_bytes,
    personal_bytes,
)
from nognet_client.request import Request


@dataclass(frozen=True)
class Compute:
    """Seconds of computation at this site.

    Attributes:
        training_s: Of a round's training, Ditto's personal model included.
        evaluation_s: Of a round's validation.
        end_s: After the last round: the test, fine-tuning.
        total_s: Of all rounds and the end.
    """

    training_s: float
    evaluation_s: float
    end_s: float
    total_s: float


@dataclass(frozen=True)
class Disk:
    """Bytes on disk: the cache as it is, what a run adds at most, and what is free.

    Attributes:
        cache: Prepared pairs.
        kept_replies: Replies kept to be given again.
        own_models: Local parameters and personal models.
        free: Where the state folder is.
    """

    cache: int
    kept_replies: int
    own_models: int
    free: int


@dataclass(frozen=True)
class Epsilon:
    """What the study would spend of the patients' privacy; `None` limits are no limits.

    Attributes:
        noise_multiplier: Of the stricter settings.
        clip_norm: Of the stricter settings.
        delta: Of the stricter settings.
        sample_rate: Chance of a patient to take part in a step.
        steps: Of the whole study.
        study: Epsilon of the study alone.
        consent_delta: Where `consent.max_epsilon` is computed: of the settings' delta and
            `consent.max_delta` the smaller.
        consent_epsilon: Epsilon of the study alone at that delta.
        consent_limit: `consent.max_epsilon`.
        before: Epsilon that earlier studies and rounds have spent.
        after: Epsilon of both together.
        limit: `privacy.max_epsilon`.
        rounds_within: Rounds that the limit leaves; the study's own number where it holds all.
        unlimited: What to do where a target bounds each run and nothing all of them.
    """

    noise_multiplier: float
    clip_norm: float
    delta: float
    sample_rate: float
    steps: int
    study: float
    consent_delta: float
    consent_epsilon: float
    consent_limit: float | None
    before: float
    after: float
    limit: float | None
    rounds_within: int
    unlimited: str | None


@dataclass(frozen=True)
class Outlook:
    """All that a study would cost this site.

    Attributes:
        study: What is asked.
        site: What the site says.
        prepared: Its pairs.
        request: Both together.
        measured: On this machine.
        compute: From it.
        training: Payload of the last round's training.
        evaluation: Payload of a round's validation.
        rounds: Payload of all rounds, validation included.
        total: And of joining, the test, and models that visit.
        disk: What is used.
        epsilon: What is spent; None without privacy.
        objections: What would be declined, or refused by the site's other rules.
    """

    study: StudyConfig
    site: SiteConfig
    prepared: PreparedSite
    request: Request
    measured: Measured
    compute: Compute
    training: Traffic
    evaluation: Traffic
    rounds: Traffic
    total: Traffic
    disk: Disk
    epsilon: Epsilon | None
    objections: tuple[Objection | Refusal, ...]

    @property
    def is_accepted(self) -> bool:
        """Whether the site would take part in all rounds."""
        cut_short = self.epsilon is not None and self.epsilon.rounds_within < self.study.rounds
        return not self.objections and not cut_short


def foresee(study: StudyConfig, site: SiteConfig, prepared: PreparedSite) -> Outlook:
    """Measure a batch here and say what the study would cost.

    Args:
        study: Of the coordinator.
        site: This site.
        prepared: Its pairs.

    Raises:
        ConfigError: the pairs were prepared for another ROI; or as `measure`.
        ConsentError: the record of what was done for each study can't be read.
        PrivacyError: delta is too large for so few patients, the target can't be met, or the ledger
            can't be used.
        TrainingError, SiteDataError: as `measure`.
    """
    check_same_roi(study, prepared)
    request = Request(study, contract_hash(contract(study)), "0" * 32, site, prepared)
    objections: tuple[Objection | Refusal, ...]
    objections = (*forecast_objections(request), *other_refusals(request))  # they may fail: first
    epsilon = _epsilon(request)
    measured = measure(*without_impossible_privacy(request), prepared)
    messages = Messages(study, site, prepared, measured.statistics)
    return Outlook(
        study=study,
        site=site,
        prepared=prepared,
        request=request,
        measured=measured,
        compute=_compute(study, prepared, measured),
        training=messages.training(study.rounds),
        evaluation=messages.evaluation(),
        rounds=messages.rounds(),
        total=_traffic(study, site, messages),
        disk=_disk(study, site, messages),
        epsilon=epsilon,
        objections=objections,
    )


def _compute(study: StudyConfig, prepared: PreparedSite, measured: Measured) -> Compute:
    steps, wanted = study.training.steps_per_round, study.personalisation
    extra_s = measured.round_extra_s
    training_s = extra_s + steps * measured.step_s
    if wanted.ditto_lambda is not None:
        training_s += extra_s + steps * measured.own_step_s
    pairs = {split: len(prepared.records(split)) for split in ("validation", "test")}
    evaluation_s = measured.evaluation_extra_s + pairs["validation"] * measured.pair_s
    models = 2 if wanted.tunes else 1
    # Test: its pairs, and the validation pairs once more, which calibrate the intervals.
    end_s = measured.evaluation_extra_s + models * sum(pairs.values()) * measured.pair_s
    if wanted.fine_tune_steps:
        end_s += extra_s + wanted.fine_tune_steps * measured.own_step_s
    total_s = study.rounds * (training_s + evaluation_s) + end_s
    return Compute(training_s, evaluation_s, end_s, total_s)


def _traffic(study: StudyConfig, site: SiteConfig, messages: Messages) -> Traffic:
    """Joining, all rounds, the test; and models that visit, from as many sites as are awaited."""
    total = messages.joining() + messages.rounds() + messages.evaluation()
    if study.personalisation.cross_site != "none" and site.share_models:
        total += messages.sharing(study.federation.sites_awaited - 1)
    return total


def _disk(study: StudyConfig, site: SiteConfig, messages: Messages) -> Disk:
    return Disk(
        cache=folder_bytes(site.cache),
        kept_replies=kept_replies_bytes(messages),
        own_models=personal_bytes(study),
        free=shutil.disk_usage(_existing(site.state)).free,
    )


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _epsilon(request: Request) -> Epsilon | None:
    """Give what the study would spend; None without privacy.

    Raises:
        PrivacyError: privacy can't be met here, or the ledger can't be used.
    """
    plan = private_plan(request.study, request.config, request.prepared)
    delta = request.consent_delta
    if plan is None or delta is None:
        return None
    settings, rounds = plan.settings, request.study.rounds
    histories = histories_of(ledger_of(request.config).entries(), plan.data)

    def cost_of(number: int) -> BudgetForecast:
        return forecast(settings, histories, plan.steps_of(number))

    whole = plan.steps_of(rounds)
    cost = cost_of(rounds)
    return Epsilon(
        noise_multiplier=whole.noise_multiplier,
        clip_norm=settings.clip_norm,
        delta=settings.delta,
        sample_rate=whole.sample_rate,
        steps=whole.steps,
        study=PrivacyHistory((whole,)).epsilon(settings.delta),
        consent_delta=delta,
        consent_epsilon=PrivacyHistory((whole,)).epsilon(delta),
        consent_limit=request.consent.max_epsilon,
        before=cost.epsilon_before,
        after=cost.epsilon_after,
        limit=cost.max_epsilon,
        rounds_within=_rounds_within(rounds, cost_of) if cost.is_over else rounds,
        unlimited=unlimited_words(settings),
    )


def _rounds_within(rounds: int, cost_of: Callable[[int], BudgetForecast]) -> int:
    """Count the rounds that the limit leaves, by bisection: epsilon grows with rounds."""
    fits, fails = 0, rounds
    while fails - fits > 1:
        middle = (fits + fails) // 2
        fits, fails = (fits, middle) if cost_of(middle).is_over else (middle, fails)
    return fits
