"""`study.yaml`'s ``strategy``: how the sites' replies of a round become new global weights.

A model a strategy, told apart by its name. A new one is a class here, named in `StrategyConfig`,
and its rule in `nognet_server.strategies`.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from nognet.config.base import ConfigModel

Weighting = Literal["pairs", "patients", "equal"]


class _Strategy(ConfigModel):
    """What all strategies have in common."""

    sends_control: ClassVar[bool] = False
    """Replies carry a second vector, the site's control variate."""
    sends_start_loss: ClassVar[bool] = False
    """Replies carry the loss of the global weights, before training."""
    needs_only_the_mean: ClassVar[bool] = False
    """New weights follow from the weighted mean of the replies alone, so it may be noised first."""

    @property
    def counts_by(self) -> Weighting:
        """What a site's reply counts by; robust rules believe no site's own numbers."""
        return "equal"

    @property
    def sites_needed(self) -> int:
        """Fewest replies with which the rule keeps what it promises."""
        return 1

    @property
    def private(self) -> bool:
        """Whether all that leaves a site is covered by differential privacy, where it is on."""
        return not (self.sends_control or self.sends_start_loss)


class _Averaged(_Strategy):
    """Strategies in which a site counts by its number of pairs or patients, or as one."""

    weighting: Weighting = "pairs"
    """What a site counts by."""

    @property
    def counts_by(self) -> Weighting:
        """What the study says."""
        return self.weighting


class _OfTheMean(_Averaged):
    """Strategies that look at nothing but the weighted mean."""

    needs_only_the_mean: ClassVar[bool] = True


class FedAvgConfig(_OfTheMean):
    """Federated averaging (McMahan et al. 2017)."""

    name: Literal["fedavg"] = "fedavg"


class FedProxConfig(_OfTheMean):
    """FedAvg with a proximal term at the sites (Li et al. 2020)."""

    name: Literal["fedprox"]
    proximal_mu: float = Field(default=0.01, ge=0)
    """The term is ``mu / 2 ||w - w_global||^2``."""


class FedAvgMConfig(_OfTheMean):
    """FedAvg with momentum at the server (Hsu et al. 2019)."""

    name: Literal["fedavgm"]
    server_learning_rate: float = Field(default=1.0, gt=0)
    server_momentum: float = Field(default=0.9, ge=0, lt=1)


class _Adaptive(_OfTheMean):
    """Adaptive steps at the server on the averaged update (Reddi et al. 2021, algorithm 2)."""

    server_learning_rate: float = Field(default=1e-2, gt=0)
    tau: float = Field(default=1e-3, gt=0)
    """The step shrinks with updates below about this size; the larger, the less adaptive."""


class FedAdagradConfig(_Adaptive):
    """Adagrad at the server: second moments add up (Reddi et al. 2021)."""

    name: Literal["fedadagrad"]
    beta_1: float = Field(default=0.0, ge=0, lt=1)


class FedAdamConfig(_Adaptive):
    """Adam at the server: second moments are averaged (Reddi et al. 2021)."""

    name: Literal["fedadam"]
    beta_1: float = Field(default=0.9, ge=0, lt=1)
    beta_2: float = Field(default=0.99, ge=0, lt=1)


class FedYogiConfig(_Adaptive):
    """Yogi at the server: second moments grow and shrink slowly (Reddi et al. 2021)."""

    name: Literal["fedyogi"]
    beta_1: float = Field(default=0.9, ge=0, lt=1)
    beta_2: float = Field(default=0.99, ge=0, lt=1)


class FedMedianConfig(_Strategy):
    """Median of the sites, number by number (Yin et al. 2018); fewer than half may be bad."""

    name: Literal["fedmedian"]

    @property
    def sites_needed(self) -> int:
        """Of two sites the median is the mean: it holds nobody off."""
        return 3


class FedTrimmedAvgConfig(_Strategy):
    """Mean without the largest and smallest share, number by number (Yin et al. 2018)."""

    name: Literal["fedtrimmedavg"]
    beta: float = Field(default=0.2, gt=0, lt=0.5)
    """Share that is cut off at each end, rounded down to whole sites; so many may be bad."""

    @property
    def sites_needed(self) -> int:
        """Fewest replies of which at least one is cut off at each end."""
        return math.ceil(1 / self.beta - 1e-9)

    def cut(self, replies: int) -> int:
        """Count the replies that are cut off at each end.

        >>> FedTrimmedAvgConfig(name="fedtrimmedavg", beta=0.2).cut(5)
        1
        """
        return math.floor(self.beta * replies + 1e-9)


class KrumConfig(_Strategy):
    """The one reply that is nearest to the others (Blanchard et al. 2017)."""

    name: Literal["krum"]
    malicious_sites: int = Field(default=1, ge=0)
    """So many bad sites are held off; needs twice as many and three more sites in each round."""

    @property
    def sites_needed(self) -> int:
        """``2 f + 3``."""
        return 2 * self.malicious_sites + 3


class MultiKrumConfig(_Strategy):
    """Plain mean of the replies that are nearest to the others (Blanchard et al. 2017)."""

    name: Literal["multikrum"]
    malicious_sites: int = Field(default=1, ge=0)
    """So many bad sites are held off; needs twice as many and three more sites in each round."""
    sites_to_select: int | None = Field(default=None, ge=1)
    """Replies that are averaged; by default all but the bad sites and two."""

    @property
    def sites_needed(self) -> int:
        """``2 f + 3``, and ``m + f + 2`` to select m."""
        return self.malicious_sites + max(self.malicious_sites + 3, (self.sites_to_select or 1) + 2)

    def selected(self, replies: int) -> int:
        """Count the replies that are averaged: m, by default ``n - f - 2``."""
        return self.sites_to_select or replies - self.malicious_sites - 2


class BulyanConfig(_Strategy):
    """Krum again and again, then a mean around the median (El Mhamdi et al. 2018)."""

    name: Literal["bulyan"]
    malicious_sites: int = Field(default=1, ge=0)
    """So many bad sites are held off; needs four times as many and three more in each round."""

    @property
    def sites_needed(self) -> int:
        """``4 f + 3``."""
        return 4 * self.malicious_sites + 3


class QFedAvgConfig(_Averaged):
    """Sites with a larger loss count more, to be fairer (Li et al. 2020); not under privacy."""

    name: Literal["qfedavg"]
    sends_start_loss: ClassVar[bool] = True
    q: float = Field(default=0.2, ge=0, le=10)
    """0 is FedAvg; the larger, the more a large loss counts."""
    lipschitz: float = Field(default=1.0, gt=0)
    """The paper's L, there 1 / learning rate of plain SGD. The larger, the smaller the step where
    updates are long or losses small (docs/decisions/0010)."""


class ScaffoldConfig(_Averaged):
    """Local steps corrected by control variates (Karimireddy et al. 2020); not under privacy."""

    name: Literal["scaffold"]
    sends_control: ClassVar[bool] = True
    server_learning_rate: float = Field(default=1.0, gt=0)
    """Of the averaged update; 1 takes it as it is."""


StrategyConfig = Annotated[
    FedAvgConfig
    | FedProxConfig
    | FedAvgMConfig
    | FedAdagradConfig
    | FedAdamConfig
    | FedYogiConfig
    | FedMedianConfig
    | FedTrimmedAvgConfig
    | KrumConfig
    | MultiKrumConfig
    | BulyanConfig
    | QFedAvgConfig
    | ScaffoldConfig,
    Field(discriminator="name"),
]
_MODELS: dict[str, type[_Strategy]] = {
    get_args(model.model_fields["name"].annotation)[0]: model
    for model in get_args(get_args(StrategyConfig)[0])
}
STRATEGY_NAMES: tuple[str, ...] = tuple(_MODELS)
"""All strategies, by the names that `study.yaml` knows them by."""
STRATEGIES_OF_THE_MEAN: tuple[str, ...] = tuple(
    name for name, model in _MODELS.items() if model.needs_only_the_mean
)
"""Those that central privacy may stand before."""
