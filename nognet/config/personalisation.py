"""`study.yaml`'s ``personalisation``: what of the model is each site's own."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from nognet.config.base import ConfigModel

LocalParts = Literal["none", "norms", "head", "norms+head"]
CrossSite = Literal["none", "personalised", "local"]


class PersonalisationConfig(ConfigModel):
    """What stays at each site, what it learns for itself, and whether models visit other sites."""

    local: LocalParts = "none"
    """Parameters that never leave a site: `norms` (scale and shift of all normalisation layers, and
    what modulates them; FedBN, Li et al. 2021), `head` (the growth head's output layers), both, or
    none."""
    fine_tune_steps: int = Field(default=0, ge=0, le=100_000)
    """After the last round each site trains the chosen model so many steps further, for itself, at
    the last round's learning rate. 0: it doesn't."""
    ditto_lambda: float | None = Field(default=None, ge=0, le=1e6)
    """In every round each site trains a second, personal model that is pulled to the global one so
    strongly (Ditto, Li et al. 2021): 0 is training alone; at 1 over the learning rate each step
    goes halfway back to the global model; a large number is the global model."""
    cross_site: CrossSite = "none"
    """After the final test, models of the sites with `share_models: true` visit one another: each
    is evaluated on the others' test patients. `personalised`: the site's final model; `local`: its
    weights as it last trained them, before they were averaged."""

    @property
    def tunes(self) -> bool:
        """Whether a site ends with a model of its own beside the federated one."""
        return self.fine_tune_steps > 0 or self.ditto_lambda is not None

    @property
    def is_on(self) -> bool:
        """Whether a site's model differs from the global one."""
        return self.tunes or self.local != "none"

    @model_validator(mode="after")
    def _parts_fit(self) -> PersonalisationConfig:
        if self.fine_tune_steps > 0 and self.ditto_lambda is not None:
            raise ValueError(
                "fine_tune_steps and ditto_lambda each give a site its personal model; set one of "
                "them"
            )
        if self.cross_site == "personalised" and not self.is_on:
            raise ValueError(
                "cross_site: personalised compares the sites' own models, but all have the global "
                "one; set local, fine_tune_steps or ditto_lambda, or cross_site: local"
            )
        return self
