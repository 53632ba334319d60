"""`study.yaml`: what a coordinator decides for all sites of one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from nognet.config.base import (
    Address,
    ConfigModel,
    Name,
    RoiConfig,
    resolve_paths,
)
from nognet.config.central_privacy import CentralPrivacyConfig, unfit_for_central_privacy
from nognet.config.federation import FederationConfig
from nognet.config.init import (
    InitConfig,
    RandomInit,
    init_with_path_from,
    named_init,
    without_path,
)
from nognet.config.learning import (
    LossConfig,
    MetricName,
    NetworkConfig,
    TrainingConfig,
    UncertaintyConfig,
)
from nognet.config.personalisation import PersonalisationConfig
from nognet.config.privacy import PrivacyConfig
from nognet.config.secure_aggregation import (
    SecureAggregationConfig,
    unfit_for_secure_aggregation,
)
from nognet.config.shared_noise import unfit_for_shared_noise
from nognet.config.strategies import FedAvgConfig, StrategyConfig


class SelectionConfig(ConfigModel):
    """Which round's global model is kept as the best one, by validation."""

    metric: MetricName = "dsc"
    """Averaged over sites, weighted by their validation pairs."""


class ServerConfig(ConfigModel):
    """Where the deployed coordinator listens and what it shows; not used in simulation."""

    listen: Address
    """The public address that the sites dial; only Flower's fleet API and /health answer there."""
    control_port: int = Field(default=9444, ge=1, le=65535)
    """Loopback port of the control API."""
    ca: Path
    certificate: Path
    key: Path
    sites: Path
    """Folder of registered public keys, one `<site name>.pub` a site."""
    state: Path = Path("server-state")
    bundle_signature: Path | None = None
    """Made by `nognet-server sign`, for sites that name trusted keys."""


class StudyConfig(ConfigModel):
    """Everything that defines a run; the same file in simulation and deployed."""

    name: Name
    seed: int = Field(default=1, ge=0, lt=2**63)
    rounds: int = Field(default=10, ge=1, le=100_000)
    roi: RoiConfig = RoiConfig()
    network: NetworkConfig = NetworkConfig()
    init: InitConfig = RandomInit()
    loss: LossConfig = LossConfig()
    training: TrainingConfig = TrainingConfig()
    strategy: StrategyConfig = FedAvgConfig()
    federation: FederationConfig = FederationConfig()
    selection: SelectionConfig = SelectionConfig()
    uncertainty: UncertaintyConfig = UncertaintyConfig()
    privacy: PrivacyConfig | None = None
    central_privacy: CentralPrivacyConfig | None = None
    secure_aggregation: SecureAggregationConfig | None = None
    """The coordinator sees the sum of the sites' updates alone; by default it sees each."""
    personalisation: PersonalisationConfig = PersonalisationConfig()
    rehearsal: bool = False
    """A trial, whose sites may fail on purpose (`--chaos`); only sites that say the same take part,
    and its model is marked."""
    runs: Path = Path("runs")
    """Folder of run folders."""
    server: ServerConfig | None = None

    @field_validator("strategy", mode="before")
    @classmethod
    def _strategy_may_be_a_name(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("init", mode="before")
    @classmethod
    def _init_may_be_a_name(cls, value: object) -> object:
        return named_init(value)

    @model_validator(mode="after")
    def _strategy_fits(self) -> StudyConfig:
        name, needed = self.strategy.name, self.strategy.sites_needed
        minimum = self.federation.minimum_sites
        if minimum < needed:
            raise ValueError(
                f"strategy {name} with these settings needs {needed} replies in every round, "
                f"federation.minimum_sites is {minimum}; set it to {needed} or more, or take a "
                "strategy that needs fewer"
            )
        if self.privacy is not None and not self.strategy.private:
            raise ValueError(
                f"strategy {name} sends more of each site than its noised update, which privacy "
                "doesn't cover; take another strategy, or leave privacy out"
            )
        return self

    @model_validator(mode="after")
    def _no_model_visits_under_privacy(self) -> StudyConfig:
        if self.privacy is not None and self.personalisation.cross_site != "none":
            raise ValueError(
                "personalisation.cross_site lets each site's own model travel, which privacy "
                "doesn't cover; set cross_site: none, or leave privacy out"
            )
        return self

    @model_validator(mode="after")
    def _central_privacy_fits(self) -> StudyConfig:
        if self.central_privacy is not None:
            faults = unfit_for_central_privacy(
                self.central_privacy,
                self.strategy,
                self.federation,
                self.personalisation,
                sums_securely=self.secure_aggregation is not None,
            )
            if faults:
                raise ValueError(faults)
        return self

    @model_validator(mode="after")
    def _secure_aggregation_fits(self) -> StudyConfig:
        if self.secure_aggregation is not None:
            faults = unfit_for_secure_aggregation(
                self.strategy, self.federation, self.personalisation
            ) or unfit_for_shared_noise(
                self.secure_aggregation, self.federation, self.central_privacy
            )
            if faults:
                raise ValueError(faults)
        return self

    @model_validator(mode="after")
    def _all_parts_begin_alike(self) -> StudyConfig:
        if self.init.name != "random" and self.personalisation.local != "none":
            raise ValueError(
                f"init: {self.init.name} gives the weights that travel, but those that stay at the "
                f"sites (personalisation.local: {self.personalisation.local}) would begin at "
                "random, which don't belong to them; set personalisation.local: none (fine-tuning "
                "and Ditto work with any init), or init: random"
            )
        return self

    @classmethod
    def with_paths_from(cls, base: Path, values: dict[str, Any]) -> dict[str, Any]:
        """Make the paths of the raw YAML values absolute, relative ones from folder `base`."""
        resolved = resolve_paths(base, {"runs": "runs", **values}, "runs")
        if "init" in resolved:
            resolved["init"] = init_with_path_from(base, resolved["init"])
        if isinstance(resolved.get("server"), dict):
            server = {"state": "server-state", **resolved["server"]}
            resolved["server"] = resolve_paths(
                base, server, "ca", "certificate", "key", "sites", "state", "bundle_signature"
            )
        return resolved

    def for_sites(self) -> str:
        """JSON of what a site needs to know: everything but paths of the coordinator."""
        hidden = {"server": None, "runs": Path("runs"), "init": without_path(self.init)}
        return self.model_copy(update=hidden).canonical_json()
