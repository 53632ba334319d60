"""Secure aggregation: `study.yaml` says how updates are summed, `site.yaml` whom the site believes.

With it the coordinator learns the sum of the sites' updates and no single one (docs/privacy.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from nognet.config.base import DEFAULT_MAX_DELTA, ConfigModel
from nognet.config.federation import FederationConfig
from nognet.config.personalisation import PersonalisationConfig
from nognet.config.strategies import STRATEGIES_OF_THE_MEAN, StrategyConfig

_LEAST_SITES = 3


class SecureAggregationConfig(ConfigModel):
    """How updates are summed so that the coordinator sees the sum alone (Bonawitz et al. 2017)."""

    threshold: float = Field(default=2 / 3, ge=0.5, lt=1)
    """More than this share of the sites that begin a round must stay to its end, and never fewer
    than three; so many must work with the coordinator to uncover an update. At 2/3 three sites
    allow none to leave, four one, seven two."""
    bits: int = Field(default=20, ge=8, le=32)
    """Of each number of an update; the grid's step is about ``2 clip_value / 2^bits``."""
    clip_value: float = Field(default=0.5, gt=0, le=1000)
    """Numbers of an update beyond plus or minus this are clipped, and counted."""
    clip_norm: float | None = Field(default=None, gt=0)
    """The longest update (L2) of a site; a longer one is shortened at the site, and counted."""
    max_weight: int = Field(default=500, ge=1, le=1_000_000)
    """Pairs or patients above which a site counts no more."""
    rounding: Literal["nearest", "stochastic"] = "nearest"
    """To the nearest step of the grid; or up or down by chance, right on average (for few bits)."""
    step_timeout_s: float = Field(default=120.0, gt=0)
    """How long a site may take for each of the four short messages around its training."""


class SitePeersConfig(ConfigModel):
    """Whom a site believes in a secure sum; with this section it takes part in no other kind."""

    peers: Path | None = None
    """Folder of the other sites' public keys, `<site name>.pub`, handed over as the CA was: not by
    the coordinator alone, and with fingerprints compared."""
    trust_coordinator: bool = False
    """Take the other sites' keys as the coordinator relays them. It could then make sites up, and
    see this site's update: secure aggregation against a coordinator that is honest but curious."""
    required: bool = True
    """Refuse studies without secure aggregation, and to give a model of this site's own."""
    max_site_epsilon: float | None = Field(default=None, gt=0)
    """What all noised updates of this site (`central_privacy`) may cost together, over all studies
    and runs; without it, the `max_epsilon` of each study that asks. With it the site takes part in
    no study in which the sites make no noise, for that has no epsilon."""
    max_site_delta: float = Field(default=DEFAULT_MAX_DELTA, gt=0, lt=0.5)
    """The delta at which `max_site_epsilon` holds, or the study's where that is smaller: a study of
    a larger delta isn't refused for it, but its epsilon is computed at this one."""

    @model_validator(mode="after")
    def _keys_come_from_one_place(self) -> SitePeersConfig:
        if (self.peers is None) != self.trust_coordinator:
            raise ValueError(
                "give the folder `peers` of the other sites' public keys, or say "
                "`trust_coordinator: true`; not both"
            )
        return self

    @model_validator(mode="after")
    def _a_delta_is_of_an_epsilon(self) -> SitePeersConfig:
        if self.max_site_epsilon is None and self.max_site_delta != DEFAULT_MAX_DELTA:
            raise ValueError(
                "max_site_delta limits nothing by itself, it is where max_site_epsilon is "
                "computed; add max_site_epsilon, or leave max_site_delta out"
            )
        return self


def unfit_for_secure_aggregation(
    strategy: StrategyConfig,
    federation: FederationConfig,
    personalisation: PersonalisationConfig,
) -> str:
    """Say what in the rest of a study secure aggregation can't go with; empty when all fits."""
    return "; ".join(_faults(strategy, federation, personalisation))


def _faults(
    strategy: StrategyConfig, federation: FederationConfig, personalisation: PersonalisationConfig
) -> Iterator[str]:
    if not strategy.needs_only_the_mean:
        yield (
            f"strategy {strategy.name} looks at each site's update, and secure_aggregation gives "
            f"the coordinator their sum alone; take one of {', '.join(STRATEGIES_OF_THE_MEAN)}"
        )
    if federation.minimum_sites < _LEAST_SITES:
        yield (
            f"federation.minimum_sites is {federation.minimum_sites}; secure_aggregation needs "
            f"{_LEAST_SITES} or more: of a sum of two, each of the two sites knows the other's part"
        )
    if federation.stragglers != "left_out":
        yield (
            "federation.stragglers is next_round, but an update is masked for one round; set "
            "left_out"
        )
    if personalisation.cross_site != "none":
        yield (
            "personalisation.cross_site lets each site's own model travel, which tells what "
            "secure_aggregation hides; set cross_site: none"
        )
