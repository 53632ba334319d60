"""Configuration: `study.yaml` and `site.yaml` into frozen, checked models."""

from nognet.config.base import RoiConfig
from nognet.config.central_privacy import (
    AdaptiveClipping,
    BoundedWeights,
    CentralPrivacyConfig,
)
from nognet.config.consent import AcceptedStudy, ConsentConfig
from nognet.config.egress import EgressConfig
from nognet.config.federation import FederationConfig
from nognet.config.init import CheckpointInit, InitConfig, PhantomInit, RandomInit
from nognet.config.learning import (
    LossConfig,
    MetricName,
    NetworkConfig,
    TrainingConfig,
    UncertaintyConfig,
)
from nognet.config.load import load_config, load_site, load_study, parse_study_json
from nognet.config.personalisation import PersonalisationConfig
from nognet.config.privacy import Admission, PairsOfPatient, PrivacyConfig
from nognet.config.secure_aggregation import SecureAggregationConfig, SitePeersConfig
from nognet.config.site import (
    PreparationConfig,
    RegistrationConfig,
    ServerLinkConfig,
    SiteConfig,
    SplitConfig,
)
from nognet.config.strategies import (
    STRATEGY_NAMES,
    BulyanConfig,
    FedAdagradConfig,
    FedAdamConfig,
    FedAvgConfig,
    FedAvgMConfig,
    FedMedianConfig,
    FedProxConfig,
    FedTrimmedAvgConfig,
    FedYogiConfig,
    KrumConfig,
    MultiKrumConfig,
    QFedAvgConfig,
    ScaffoldConfig,
    StrategyConfig,
    Weighting,
)
from nognet.config.study import SelectionConfig, ServerConfig, StudyConfig

__all__ = [
    "STRATEGY_NAMES",
    "AcceptedStudy",
    "AdaptiveClipping",
    "Admission",
    "BoundedWeights",
    "BulyanConfig",
    "CentralPrivacyConfig",
    "CheckpointInit",
    "ConsentConfig",
    "EgressConfig",
    "FedAdagradConfig",
    "FedAdamConfig",
    "FedAvgConfig",
    "FedAvgMConfig",
    "FedMedianConfig",
    "FedProxConfig",
    "FedTrimmedAvgConfig",
    "FedYogiConfig",
    "FederationConfig",
    "InitConfig",
    "KrumConfig",
    "LossConfig",
    "MetricName",
    "MultiKrumConfig",
    "NetworkConfig",
    "PairsOfPatient",
    "PersonalisationConfig",
    "PhantomInit",
    "PreparationConfig",
    "PrivacyConfig",
    "QFedAvgConfig",
    "RandomInit",
    "RegistrationConfig",
    "RoiConfig",
    "ScaffoldConfig",
    "SecureAggregationConfig",
    "SelectionConfig",
    "ServerConfig",
    "ServerLinkConfig",
    "SiteConfig",
    "SitePeersConfig",
    "SplitConfig",
    "StrategyConfig",
    "StudyConfig",
    "TrainingConfig",
    "UncertaintyConfig",
    "Weighting",
    "load_config",
    "load_site",
    "load_study",
    "parse_study_json",
]
