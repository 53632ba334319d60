"""`study.yaml`: what a coordinator decides for all sites of one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from nognet.config.base import (
    Address,
    ConfigModel,
    Name,
    PrivacyConfig,
    RoiConfig,
    resolve_paths,
)
from nognet.config.federation import FederationConfig
from nognet.config.learning import (
    LossConfig,
    MetricName,
    NetworkConfig,
    TrainingConfig,
    UncertaintyConfig,
)


class FedAvgConfig(ConfigModel):
    """Federated averaging (McMahan et al. 2017)."""

    name: Literal["fedavg"] = "fedavg"
    weighting: Literal["pairs", "patients", "equal"] = "pairs"


class FedProxConfig(ConfigModel):
    """FedAvg with a proximal term at the sites (Li et al. 2020)."""

    name: Literal["fedprox"]
    weighting: Literal["pairs", "patients", "equal"] = "pairs"
    proximal_mu: float = Field(default=0.01, ge=0)


class FedAdamConfig(ConfigModel):
    """Adam at the server on the averaged update (Reddi et al. 2021)."""

    name: Literal["fedadam"]
    weighting: Literal["pairs", "patients", "equal"] = "pairs"
    server_learning_rate: float = Field(default=1e-2, gt=0)
    beta_1: float = Field(default=0.9, ge=0, lt=1)
    beta_2: float = Field(default=0.99, ge=0, lt=1)
    tau: float = Field(default=1e-3, gt=0)


StrategyConfig = Annotated[
    FedAvgConfig | FedProxConfig | FedAdamConfig, Field(discriminator="name")
]


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


class StudyConfig(ConfigModel):
    """Everything that defines a run; the same file in simulation and deployed."""

    name: Name
    seed: int = Field(default=1, ge=0, lt=2**63)
    rounds: int = Field(default=10, ge=1, le=100_000)
    roi: RoiConfig = RoiConfig()
    network: NetworkConfig = NetworkConfig()
    loss: LossConfig = LossConfig()
    training: TrainingConfig = TrainingConfig()
    strategy: StrategyConfig = FedAvgConfig()
    federation: FederationConfig = FederationConfig()
    selection: SelectionConfig = SelectionConfig()
    uncertainty: UncertaintyConfig = UncertaintyConfig()
    privacy: PrivacyConfig | None = None
    runs: Path = Path("runs")
    """Folder of run folders."""
    server: ServerConfig | None = None

    @field_validator("strategy", mode="before")
    @classmethod
    def _strategy_may_be_a_name(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @classmethod
    def with_paths_from(cls, base: Path, values: dict[str, Any]) -> dict[str, Any]:
        """Make the paths of the raw YAML values absolute, relative ones from folder `base`."""
        resolved = resolve_paths(base, {"runs": "runs", **values}, "runs")
        if isinstance(resolved.get("server"), dict):
            server = {"state": "server-state", **resolved["server"]}
            resolved["server"] = resolve_paths(
                base, server, "ca", "certificate", "key", "sites", "state"
            )
        return resolved

    def for_sites(self) -> str:
        """JSON of what a site needs to know: everything but paths of the coordinator."""
        return self.model_copy(update={"server": None, "runs": Path("runs")}).canonical_json()
