"""What a coordinator asks of a site: the study, the run, and the site's own word beside them."""

from __future__ import annotations

from dataclasses import dataclass

from nognet.config import ConsentConfig, SiteConfig, StudyConfig
from nognet.data.store import PreparedSite
from nognet.privacy.accounting import NoisedSteps
from nognet.privacy.policy import PrivacySettings, noise_for_run, stricter
from nognet.privacy.sampling import sample_rate

_NO_LIMITS = ConsentConfig()


@dataclass(frozen=True)
class Request:
    """What a coordinator asks, and the site that it asks.

    Attributes:
        study: As the site received it.
        contract_hash: As the coordinator computed it.
        run_token: The run.
        config: The site's own word.
        prepared: Its pairs.
        release: The coordinator's release of nognet, where the message names it; a task doesn't,
            and has the one that was noted at joining (`consent.door`).
    """

    study: StudyConfig
    contract_hash: str
    run_token: str
    config: SiteConfig
    prepared: PreparedSite
    release: str | None = None

    @property
    def consent(self) -> ConsentConfig:
        """The site's limits."""
        return self.config.consent or _NO_LIMITS

    @property
    def digest(self) -> str:
        """SHA-256 of the study as sites see it."""
        return study_digest(self.study)

    @property
    def privacy(self) -> PrivacySettings | None:
        """The privacy that holds: the stricter of study's and site's."""
        return stricter(self.study.privacy, self.config.privacy)

    @property
    def consent_delta(self) -> float | None:
        """The delta at which `consent.max_epsilon` holds; None without privacy.

        The site's own where the study's is larger: a coordinator can't choose a weaker promise.
        """
        return None if self.privacy is None else min(self.privacy.delta, self.consent.max_delta)

    @property
    def words(self) -> str:
        """Say in a line what the run is about, as the site's log has it."""
        study, privacy = self.study, self.privacy
        noise = "no privacy" if privacy is None else privacy.noise_words
        return (
            f"run {self.run_token[:8]} of study '{study.name}' (sha256 {self.digest}): "
            f"{study.rounds} rounds of {study.training.steps_per_round} steps, {noise}"
        )

    @property
    def n_patients(self) -> int:
        """Training patients, whom privacy protects."""
        return len({record.patient_id for record in self.prepared.records("train")})

    def noised(self, rounds: int) -> NoisedSteps | None:
        """Give the noised steps of so many rounds here; None without privacy or patients."""
        if self.privacy is None or not self.n_patients:
            return None
        training = self.study.training
        rate = sample_rate(training.batch_size, self.n_patients)
        steps = rounds * training.steps_per_round
        whole = self.study.rounds * training.steps_per_round
        return NoisedSteps(noise_for_run(self.privacy, rate=rate, steps=whole), rate, steps)


def study_digest(study: StudyConfig) -> str:
    """Hash a study as sites see it, without the coordinator's paths."""
    return StudyConfig.model_validate_json(study.for_sites()).digest()
