"""What a study's privacy means at one site: noise, rate, patients, and whether the budget bears it.

Light to import: joining asks for it before anything is trained.
"""

from __future__ import annotations

from dataclasses import dataclass

from nognet.config import SiteConfig, StudyConfig
from nognet.data.site.pseudonym import key_fingerprint
from nognet.data.store import PreparedSite
from nognet.privacy.accounting import NoisedSteps
from nognet.privacy.ledger import Ledger
from nognet.privacy.ledger_entries import DataSet, Purpose, charged_rounds, histories_of
from nognet.privacy.policy import (
    BudgetForecast,
    PrivacySettings,
    admit_run,
    check_delta,
    noise_for_run,
    stricter,
)
from nognet.privacy.sampling import sample_rate

ALONE = ""
"""The run token of training outside of a run."""


@dataclass(frozen=True)
class PrivatePlan:
    """What every round of a study is at this site, under privacy.

    Attributes:
        settings: The stricter of study's and site's.
        data: The training patients.
        round_steps: Noise, rate and steps of one round.
        rounds: Rounds of the study.
    """

    settings: PrivacySettings
    data: DataSet
    round_steps: NoisedSteps
    rounds: int

    def steps_of(self, rounds: int) -> NoisedSteps:
        """Give the steps of so many rounds."""
        one = self.round_steps
        return NoisedSteps(one.noise_multiplier, one.sample_rate, one.steps * rounds)


def ledger_of(site: SiteConfig) -> Ledger:
    """Give the site's ledger: one for all its studies."""
    return Ledger(site.state / "privacy")


def private_plan(
    study: StudyConfig, site: SiteConfig, prepared: PreparedSite
) -> PrivatePlan | None:
    """Work out noise and rate of a study at a site; None where nobody asks for privacy.

    Raises:
        PrivacyError: delta is too large for so few patients, or the target can't be met.
    """
    settings = stricter(study.privacy, site.privacy)
    if settings is None:
        return None
    data = data_set_of(site, prepared)
    check_delta(settings.delta, len(data.patients))
    rate = sample_rate(study.training.batch_size, len(data.patients))
    steps = study.training.steps_per_round
    noise = noise_for_run(settings, rate=rate, steps=steps * study.rounds)
    return PrivatePlan(settings, data, NoisedSteps(noise, rate, steps), study.rounds)


def data_set_of(site: SiteConfig, prepared: PreparedSite) -> DataSet:
    """Give the training patients, whose pseudonyms survive another preparation of the site."""
    patients = frozenset(record.patient_id for record in prepared.records("train"))
    return DataSet(prepared.fingerprint, patients, key_fingerprint(site.state))


def purpose_of(study: StudyConfig, run_token: str, round_number: int) -> Purpose:
    """Say what a round's steps are for."""
    return Purpose(study.name, study.digest(), run_token, round_number)


def has_begun(study: StudyConfig, site: SiteConfig, run_token: str) -> bool:
    """Whether a run needs no admission any more: without privacy, or once a round was charged.

    Raises:
        PrivacyError: the ledger can't be used.
    """
    if stricter(study.privacy, site.privacy) is None:
        return True
    return bool(charged_rounds(ledger_of(site).entries(), run_token))


def admit_study(
    study: StudyConfig, site: SiteConfig, prepared: PreparedSite, run_token: str = ALONE
) -> BudgetForecast | None:
    """Decide, before a site takes part, whether what is left of a run may be spent; give its cost.

    Rounds of the run that were charged already are not planned again, so that a site which comes
    back in the middle is asked for no more than it was at the start.

    Raises:
        PrivacyError: delta is too large for so few patients, the target can't be met, or the ledger
            can't be used.
        PrivacyBudgetError: the run would pass `max_epsilon` (``budget-run``).
    """
    plan = private_plan(study, site, prepared)
    if plan is None:
        return None
    entries = ledger_of(site).entries()
    done = charged_rounds(entries, run_token) if run_token != ALONE else frozenset()
    left = study.rounds - len([n for n in done if 1 <= n <= study.rounds])
    if left == 0:
        return None
    return admit_run(plan.settings, histories_of(entries, plan.data), plan.steps_of(left))
