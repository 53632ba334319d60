"""`privacy:` of study.yaml and site.yaml: patient-level differential privacy of what is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from nognet.config.base import ConfigModel

Admission = Literal["run", "round"]
PairsOfPatient = Literal["one", "all"]


class PrivacyConfig(ConfigModel):
    """Patient-level DP-SGD (Abadi et al. 2016) during local training.

    The noise is given as it is (`noise_multiplier`), or found at each site (`target_epsilon`).
    """

    noise_multiplier: float | None = Field(default=None, gt=0, le=1000)
    """Standard deviation of the Gaussian noise as a multiple of the clip norm."""
    target_epsilon: float | None = Field(default=None, gt=0)
    """Epsilon of one whole run, from which each site finds the noise: for all rounds and steps of
    the study, its own number of patients and batch. A round with which the run would have spent
    more is refused, also one that is asked for again. What other runs spent is not in it: that is
    what `max_epsilon` limits."""
    clip_norm: float = Field(default=1.0, gt=0)
    """L2 norm to which each patient's gradient is clipped."""
    delta: float = Field(gt=0, lt=0.5)
    """Failure probability; must be below 1 / (2 n patients)."""
    max_epsilon: float | None = Field(default=None, gt=0)
    """No patient may be charged more than this, all rounds, runs and studies at the site added up:
    what would pass it is refused before it trains."""
    admit: Admission | None = None
    """What has to fit into `max_epsilon` before anything starts: the `run` with all its rounds
    (where nothing is said), or each `round` alone, so that a site takes part as long as the budget
    lasts. Of study and site, `run` wins."""
    pairs_of_patient: PairsOfPatient | None = None
    """What a drawn patient gives in a step: `one` of its pairs by chance (where nothing is said),
    or `all` of them, their losses averaged before the gradient is clipped. Either way the patient
    is one unit. Of study and site, `one` wins."""

    @model_validator(mode="after")
    def _noise_is_given_in_one_way(self) -> PrivacyConfig:
        if (self.noise_multiplier is None) == (self.target_epsilon is None):
            found = "neither" if self.noise_multiplier is None else "both"
            raise ValueError(
                f"found {found} of noise_multiplier and target_epsilon; give exactly one: the "
                "noise itself, or the epsilon that it is found for"
            )
        return self
