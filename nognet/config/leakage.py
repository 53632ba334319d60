"""`site.yaml`'s ``leakage``: can the model that would leave tell who trained it?"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from nognet.config.base import ConfigModel


class LeakageConfig(ConfigModel):
    """Membership inference at the site, on the weights that would go out; nothing of it leaves."""

    check: Literal["never", "last", "every"] = "never"
    """After which rounds the site attacks its own model, before it sends it: none, the study's last
    one, or each. A run that ends early has no last round: `refuse_auc` wants `every`."""
    warn_auc: float = Field(default=0.6, ge=0.5, le=1)
    """Warned of when the whole interval of an attack's AUC lies above this."""
    refuse_auc: float | None = Field(default=None, ge=0.5, le=1)
    """The reply is withheld when the whole interval lies above this; by default never."""

    @model_validator(mode="after")
    def _a_warning_comes_before_a_refusal(self) -> LeakageConfig:
        if self.refuse_auc is not None and self.refuse_auc < self.warn_auc:
            raise ValueError(
                f"refuse_auc ({self.refuse_auc:g}) is below warn_auc ({self.warn_auc:g})"
            )
        return self

    @model_validator(mode="after")
    def _a_refusal_can_not_be_evaded(self) -> LeakageConfig:
        if self.refuse_auc is not None and self.check != "every":
            raise ValueError(
                f"refuse_auc with check: {self.check} refuses nothing of a run that ends early, "
                "which the coordinator may choose; set check: every, or leave refuse_auc out"
            )
        return self
