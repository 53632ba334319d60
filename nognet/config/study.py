"""`study.yaml`: what a coordinator decides for all sites of one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from nognet.config.base import (
    Address,
    ConfigModel,
    Name,
    PrivacyConfig,
    RoiConfig,
    resolve_paths,
)

MetricName = Literal[
    "psnr",
    "psnr_nodule",
    "ssim",
    "ssim_nodule",
    "dsc",
    "volume_error",
    "log_volume_error",
    "growth_auc",
]


class NetworkConfig(ConfigModel):
    """The architecture of MT-NoGNet; it fixes names and shapes of all parameters."""

    width: int = Field(default=12, ge=4, le=64, multiple_of=4)
    """Channels at the finest scale of the encoder; they double at each of 3 coarser scales."""
    stem: Literal["full", "space_to_depth"] = "space_to_depth"
    """Run at full resolution, or fold 2 x 2 x 2 voxels into channels first (about 6x faster)."""
    time_features: int = Field(default=6, ge=1, le=16)
    """Frequencies of the sine and cosine embedding of the interval."""
    embedding_width: int = Field(default=64, ge=8, le=512)
    """Width of the interval embedding that conditions every block."""
    attention: bool = True
    """Cross-task attention, both ways, at the two coarsest scales."""
    attention_heads: int = Field(default=4, ge=1, le=16)
    adaptive_norm: bool = True
    """Scale and shift of the texture decoder's norms from interval and deformation features."""
    max_log_growth_per_year: float = Field(default=3.0, gt=0, le=20)
    """Bound of the growth-rate head: natural logarithm of the volume ratio, a year."""


class LossConfig(ConfigModel):
    """Weights of the terms of the loss; each term is a mean over samples."""

    image_l1: float = Field(default=1.0, ge=0)
    image_mse: float = Field(default=20.0, ge=0)
    """Over the whole ROI."""
    region_l1: float = Field(default=1.0, ge=0)
    """Regional focus: L1 in the dilated union of baseline and follow-up nodule."""
    dice: float = Field(default=1.0, ge=0)
    """Soft Dice of the predicted follow-up mask."""
    growth_rate: float = Field(default=2.0, ge=0)
    """Smooth L1 of the predicted log volume ratio."""
    smoothness: float = Field(default=0.05, ge=0)
    """Mean squared spatial gradient of the displacement."""
    residual: float = Field(default=0.05, ge=0)
    """Mean absolute texture residual."""
    deep_supervision: float = Field(default=0.3, ge=0)
    """The image and Dice terms again at 1/2 and 1/4 scale."""


class TrainingConfig(ConfigModel):
    """How each site trains in a round."""

    steps_per_round: int = Field(default=25, ge=1, le=100_000)
    batch_size: int = Field(default=4, ge=1, le=1024)
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    final_learning_rate_fraction: float = Field(default=0.1, gt=0, le=1)
    """The learning rate of the last round as a fraction of the first (cosine over rounds)."""
    warmup_steps: int = Field(default=10, ge=0)
    """Linear warm-up at the start of every round (the optimiser starts anew in each)."""
    weight_decay: float = Field(default=1e-4, ge=0)
    gradient_clip_norm: float = Field(default=1.0, gt=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    augment: bool = True
    """Random flips and 90-degree rotations, and a small shift of the ROI's intensities."""


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


class FederationConfig(ConfigModel):
    """Who takes part and how long is waited."""

    minimum_sites: int = Field(default=2, ge=1)
    """A round counts when at least so many sites gave a usable reply."""
    expected_sites: int | None = Field(default=None, ge=1)
    """Wait for so many sites before the first round; by default `minimum_sites`."""
    join_timeout_s: float = Field(default=600.0, gt=0)
    round_timeout_s: float = Field(default=43_200.0, gt=0)

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
