"""Who takes part in a study, how long is waited, and what a reply must be like to count."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from nognet.config.base import ConfigModel, Name

Seconds = Annotated[float, Field(gt=0)]


class FederationConfig(ConfigModel):
    """Who takes part, how long is waited, and which replies count."""

    minimum_sites: int = Field(default=2, ge=1)
    """A round counts when at least so many sites gave a usable reply."""
    quorum: float = Field(default=0.5, gt=0, le=1)
    """And at least this share of the sites that were asked."""
    expected_sites: int | None = Field(default=None, ge=1)
    """Wait for so many sites before the first round; by default `minimum_sites`."""
    join_timeout_s: Seconds = 600.0
    round_timeout_s: Seconds = 43_200.0
    """A site that takes longer to train, or to evaluate, is not waited for."""
    site_timeouts_s: dict[Name, Seconds] = Field(default_factory=dict)
    """Other limits for single sites, by name."""
    straggler_factor: float | None = Field(default=None, gt=1)
    """Once half of the sites have answered, the others have so many times the median site's time.
    By default only the limits above hold: hospitals have very different machines."""
    straggler_grace_s: Seconds = 60.0
    """And at least so long."""
    stragglers: Literal["left_out", "next_round"] = "left_out"
    """A site that is not waited for is left out; or it goes on, and its update counts in the round
    in which it arrives."""
    max_update_ratio: float | None = Field(default=10.0, gt=1)
    """An update longer than so many times the median of its round is left out; with fewer than
    three updates, the median of the last rounds. None: lengths are not looked at."""
    quarantine_after: int = Field(default=3, ge=1)
    """A site that sent unusable replies in so many rounds is asked no more."""

    @model_validator(mode="after")
    def _expected_covers_minimum(self) -> FederationConfig:
        if self.expected_sites is not None and self.expected_sites < self.minimum_sites:
            raise ValueError(
                f"expected_sites ({self.expected_sites}) can't be below minimum_sites "
                f"({self.minimum_sites})"
            )
        return self

    @property
    def sites_awaited(self) -> int:
        """How many sites to wait for before the first round."""
        return self.expected_sites or self.minimum_sites
