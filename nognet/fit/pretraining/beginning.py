"""The weights that a new run begins with, by the study's `init`, and what is to be told of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nognet.config import CheckpointInit, NetworkConfig, PhantomInit, RoiConfig, StudyConfig
from nognet.errors import ConfigError
from nognet.fit.model_file import load_model
from nognet.fit.pretraining.cache import pretrained
from nognet.fit.pretraining.train import Pretraining, Progress
from nognet.fit.weights import Weights, initial_weights

_TOLD = (
    "study",
    "run",
    "round",
    "sites",
    "rehearsal",
    "predictor",
    "init",
    "digest",
    "began_with",
    "nognet_version",
)
"""Of a model file's own provenance, what goes on into the runs that begin with it."""


@dataclass(frozen=True)
class Beginning:
    """First weights of a run.

    Attributes:
        weights: Of the whole network.
        lineage: What they come from, as JSON values.
    """

    weights: Weights
    lineage: Mapping[str, Any]

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites of which the weights hold something already, sorted."""
        return tuple(sorted(self.lineage.get("model", {}).get("sites", ())))


def beginning(study: StudyConfig, cache: Path, progress: Progress | None = None) -> Beginning:
    """Draw, pre-train or read the first weights of a study.

    Args:
        study: Its network, ROI, loss and `init`.
        cache: Folder of what was pre-trained.
        progress: Told of the steps of a pre-training.

    Raises:
        ConfigError: the model file is of another network or HU window (every difference is named),
            or of a rehearsal.
        WireError: the model file is missing or damaged.
        TrainingError: pre-training went wrong.
        NognetError: what is pre-trained can't be written.
    """
    init = study.init
    if isinstance(init, PhantomInit):
        found = pretrained(pretraining_of(study, init), cache, progress)
        lineage = {"init": "phantom", "pretraining": _told(found.provenance)}
        return _beginning(found.weights, lineage)
    if isinstance(init, CheckpointInit):
        return _from_file(study, init.path)
    return first_weights(study)


def first_weights(study: StudyConfig) -> Beginning:
    """Draw the first weights of a study from its seed."""
    weights = initial_weights(study.network, study.seed)
    return _beginning(weights, {"init": "random", "seed": study.seed})


def pretraining_of(study: StudyConfig, settings: PhantomInit) -> Pretraining:
    """Say what is pre-trained for a study."""
    return Pretraining(study.network, study.roi, study.loss, settings)


def weights_digest(weights: Weights) -> str:
    """SHA-256 over names and bytes of weights: equal for equal bits."""
    digest = hashlib.sha256()
    for name, tensor in weights.items():
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _beginning(weights: Weights, lineage: Mapping[str, Any]) -> Beginning:
    return Beginning(weights, {**lineage, "weights_sha256": weights_digest(weights)})


def _from_file(study: StudyConfig, path: Path) -> Beginning:
    model = load_model(path)
    differences = [
        *_differences("network", model.network, study.network),
        *_differences("roi", model.roi, study.roi),
    ]
    if differences:
        raise ConfigError(
            f"init: {path} is a model of another study, whose weights mean something else here; "
            "take another file, or its settings. What differs:\n" + "\n".join(differences),
            code="init-differs",
        )
    if model.provenance.get("rehearsal") and not study.rehearsal:
        raise ConfigError(
            f"init: {path} comes from a rehearsal, in which sites sent wrong updates on purpose; "
            "take the model of a real run, or make this study a rehearsal too",
            code="init-rehearsal",
        )
    return _beginning(model.weights, {"init": "checkpoint", "model": _told(model.provenance)})


def _differences(
    key: str, found: NetworkConfig | RoiConfig, wanted: NetworkConfig | RoiConfig
) -> list[str]:
    there, here = found.model_dump(mode="json"), wanted.model_dump(mode="json")
    return [
        f"  {key}.{name}: {there[name]} in the file, {here[name]} in the study"
        for name in here
        if there[name] != here[name]
    ]


def _told(provenance: Mapping[str, Any]) -> dict[str, Any]:
    return {key: provenance[key] for key in _TOLD if key in provenance}
