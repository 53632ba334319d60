"""A pre-training of a tiny network that takes a second."""

from __future__ import annotations

from typing import Any

from nognet.config import LossConfig, NetworkConfig, PhantomInit, RoiConfig
from nognet.fit.pretraining.train import Pretraining

TINY = {"width": 4, "time_features": 2, "embedding_width": 8, "attention_heads": 2}


def tiny_pretraining(**changes: Any) -> Pretraining:
    """Make one of three steps; `changes` replace its settings."""
    settings = PhantomInit.model_validate({"steps": 3, "batch_size": 2, **changes})
    return Pretraining(
        NetworkConfig.model_validate(TINY), RoiConfig(size_vox=32), LossConfig(), settings
    )
