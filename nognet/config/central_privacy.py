"""`study.yaml`'s ``central_privacy``: noise on the sum, so that the model hides each site.

The coordinator makes it or, with ``secure_aggregation``, the sites, each its share.

The unit is a whole site. Two runs are neighbours when they are alike but for one site, whose whole
contribution, in all rounds, is there in one and absent (counts as nothing) in the other. Which
sites take part, and when they answer, counts as public.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from nognet.config.base import ConfigModel
from nognet.config.federation import FederationConfig
from nognet.config.personalisation import PersonalisationConfig
from nognet.config.strategies import STRATEGIES_OF_THE_MEAN, StrategyConfig


class FixedClipping(ConfigModel):
    """Updates are clipped to `clip_norm` in every round."""

    name: Literal["fixed"] = "fixed"


class AdaptiveClipping(ConfigModel):
    """The clip norm follows a quantile of the updates' lengths (Andrew et al. 2021)."""

    name: Literal["adaptive"]
    target_quantile: float = Field(default=0.5, gt=0, lt=1)
    """Share of the updates that should be left as they are."""
    learning_rate: float = Field(default=0.2, gt=0, le=1)
    """How fast the clip norm moves: by a factor of at most ``e^rate`` a round."""
    count_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of the budget (of 1 / noise_multiplier^2) that the count of such updates is given; the
    updates themselves get the rest."""


class UniformWeights(ConfigModel):
    """Every site counts alike; needs `strategy.weighting: equal`."""

    name: Literal["uniform"] = "uniform"


class BoundedWeights(ConfigModel):
    """A site counts by its pairs or patients, up to a most."""

    name: Literal["bounded"]
    max_weight: int = Field(ge=1)
    """Pairs or patients, as `strategy.weighting` says, above which a site counts no more. The noise
    is made for a site that has so many."""


Clipping = Annotated[FixedClipping | AdaptiveClipping, Field(discriminator="name")]
Weights = Annotated[UniformWeights | BoundedWeights, Field(discriminator="name")]
CLIPPING_NAMES = ("adaptive", "fixed")
WEIGHTS_NAMES = ("bounded", "uniform")


class CentralPrivacyConfig(ConfigModel):
    """Site-level differential privacy of the global weights (McMahan et al. 2018)."""

    noise_multiplier: float | None = Field(default=None, gt=0, le=1000)
    """Standard deviation of the noise over the most that one site adds to the sum."""
    target_epsilon: float | None = Field(default=None, gt=0)
    """Epsilon of the whole run, from which the noise is found; give this or noise_multiplier."""
    clip_norm: float = Field(gt=0)
    """L2 norm to which each site's update is clipped; if that is adaptive, in the first round."""
    clipping: Clipping = FixedClipping()
    weights: Weights = UniformWeights()
    delta: float = Field(gt=0, lt=0.5)
    """Failure probability; must be below 1 / (2 expected_sites)."""
    max_epsilon: float | None = Field(default=None, gt=0)
    """A study that would spend more is refused; a round that would is not begun."""
    colluding_sites: int | None = Field(default=None, ge=0)
    """With secure_aggregation, where the sites make the noise: of how many the noise doesn't count,
    as they may tell it the coordinator, or subtract their own. By default 1: every site gets the
    global weights and knows its own noise. 0 promises nothing against another site."""
    unit: Literal["site"] = "site"
    """What is hidden: whether, and with what, one site took part."""

    @field_validator("clipping", "weights", mode="before")
    @classmethod
    def _may_be_a_name(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _noise_is_given_once(self) -> CentralPrivacyConfig:
        if (self.noise_multiplier is None) == (self.target_epsilon is None):
            raise ValueError("give exactly one of noise_multiplier and target_epsilon")
        return self

    @property
    def colluders(self) -> int:
        """Sites whose noise doesn't count."""
        return 1 if self.colluding_sites is None else self.colluding_sites

    @property
    def max_weight(self) -> int:
        """The most that a site counts by."""
        return self.weights.max_weight if isinstance(self.weights, BoundedWeights) else 1


def unfit_for_central_privacy(
    privacy: CentralPrivacyConfig,
    strategy: StrategyConfig,
    federation: FederationConfig,
    personalisation: PersonalisationConfig,
    *,
    sums_securely: bool = False,
) -> str:
    """Say what in the rest of a study central privacy can't go with; empty when all fits."""
    return "; ".join(
        (
            *_strategy_faults(privacy, strategy),
            *_site_faults(privacy, federation),
            *_personal_faults(personalisation),
            *_colluder_faults(privacy, sums_securely=sums_securely),
        )
    )


def _strategy_faults(privacy: CentralPrivacyConfig, strategy: StrategyConfig) -> Iterator[str]:
    if not strategy.needs_only_the_mean:
        yield (
            f"central_privacy noises the mean of the sites' updates, strategy {strategy.name} "
            f"needs each by itself; take one of {', '.join(STRATEGIES_OF_THE_MEAN)}"
        )
        return
    counts_alike = strategy.counts_by == "equal"
    if counts_alike != (privacy.weights.name == "uniform"):
        yield (
            f"central_privacy.weights is {privacy.weights.name}, strategy.weighting is "
            f"{strategy.counts_by}; expected uniform with equal, or {{name: bounded, max_weight: "
            "...}} with pairs or patients"
        )


def _site_faults(privacy: CentralPrivacyConfig, federation: FederationConfig) -> Iterator[str]:
    sites = federation.expected_sites
    if sites is None:
        yield (
            "central_privacy divides by a number of sites that doesn't depend on who answers; set "
            "federation.expected_sites to how many take part"
        )
    elif privacy.delta >= 1 / (2 * sites):
        yield (
            f"central_privacy.delta is {privacy.delta:g}, but for {sites} sites it must be below "
            f"1 / (2 x {sites}) = {1 / (2 * sites):.3g}"
        )


def _personal_faults(personalisation: PersonalisationConfig) -> Iterator[str]:
    if personalisation.cross_site != "none":
        yield (
            "personalisation.cross_site lets each site's own model travel, which central_privacy "
            "doesn't cover; set cross_site: none"
        )


def _colluder_faults(privacy: CentralPrivacyConfig, *, sums_securely: bool) -> Iterator[str]:
    if privacy.colluding_sites is not None and not sums_securely:
        yield (
            "central_privacy.colluding_sites is about noise that the sites make, and without "
            "secure_aggregation the coordinator makes it; leave it out, or add secure_aggregation"
        )
