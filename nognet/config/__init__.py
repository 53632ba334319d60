"""Configuration: `study.yaml` and `site.yaml` into frozen, checked models."""

from nognet.config.base import PrivacyConfig, RoiConfig
from nognet.config.federation import FederationConfig
from nognet.config.learning import (
    LossConfig,
    MetricName,
    NetworkConfig,
    TrainingConfig,
    UncertaintyConfig,
)
from nognet.config.load import load_site, load_study, parse_study_json
from nognet.config.site import (
    PreparationConfig,
    RegistrationConfig,
    ServerLinkConfig,
    SiteConfig,
    SplitConfig,
)
from nognet.config.study import (
    FedAdamConfig,
    FedAvgConfig,
    FedProxConfig,
    SelectionConfig,
    ServerConfig,
    StrategyConfig,
    StudyConfig,
)

__all__ = [
    "FedAdamConfig",
    "FedAvgConfig",
    "FedProxConfig",
    "FederationConfig",
    "LossConfig",
    "MetricName",
    "NetworkConfig",
    "PreparationConfig",
    "PrivacyConfig",
    "RegistrationConfig",
    "RoiConfig",
    "SelectionConfig",
    "ServerConfig",
    "ServerLinkConfig",
    "SiteConfig",
    "SplitConfig",
    "StrategyConfig",
    "StudyConfig",
    "TrainingConfig",
    "UncertaintyConfig",
    "load_site",
    "load_study",
    "parse_study_json",
]
