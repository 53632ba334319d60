"""The model file: one safetensors file whose metadata holds a JSON text. No pickle anywhere."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from pydantic import ValidationError

from nognet.config import NetworkConfig, RoiConfig
from nognet.errors import WireError
from nognet.files import atomic_path
from nognet.fit.weights import Weights, check_weights, weight_spec

SCHEMA_VERSION = 1
_KEY = "nognet"


@dataclass(frozen=True)
class SavedModel:
    """A model as read: weights, what they are for, and where they come from."""

    weights: Weights
    network: NetworkConfig
    roi: RoiConfig
    provenance: Mapping[str, Any]


def save_model(
    path: Path,
    weights: Weights,
    *,
    network: NetworkConfig,
    roi: RoiConfig,
    provenance: Mapping[str, Any],
    mode: int = 0o644,
) -> None:
    """Write a model in one step.

    Args:
        path: Usually ends in ``.nognet``; safetensors libraries read it too.
        weights: Must fit `network`.
        network: The architecture.
        roi: Size and HU window of the ROIs it was trained on.
        provenance: JSON values: run, round, sites' counts, metrics ...
        mode: Who may read the file.

    Raises:
        WireError: the weights don't fit the architecture.
        OSError: the file can't be written.
    """
    check_weights(weights, weight_spec(network))
    header = {
        "schema_version": SCHEMA_VERSION,
        "network": network.model_dump(mode="json"),
        "roi": roi.model_dump(mode="json"),
        "provenance": dict(provenance),
    }
    text = json.dumps(header, sort_keys=True, allow_nan=False)
    contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
    with atomic_path(path, mode=mode) as temporary:
        try:
            safetensors.torch.save_file(contiguous, temporary, metadata={_KEY: text})
        except safetensors.SafetensorError as err:  # its own name for a full disk
            raise OSError(errno.EIO, str(err)) from err


def load_model(path: Path) -> SavedModel:
    """Read a model and hold it against its own architecture.

    Raises:
        WireError: the file is missing, damaged, or of another form.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  no dict
    except FileNotFoundError as err:
        raise WireError(f"{path}: no such model file", code="no-model") from err
    except (safetensors.SafetensorError, OSError) as err:
        raise WireError(
            f"{path}: not a safetensors file or damaged ({type(err).__name__}); fetch it again",
            code="bad-model",
        ) from err
    header = _read_header(path, metadata)
    spec = weight_spec(header[0])
    weights = {item.name: tensors[item.name] for item in spec if item.name in tensors}
    check_weights(weights if len(weights) == len(tensors) else tensors, spec)
    return SavedModel(weights, *header)


def _read_header(
    path: Path, metadata: Mapping[str, str]
) -> tuple[NetworkConfig, RoiConfig, Mapping[str, Any]]:
    try:
        header = json.loads(metadata[_KEY])
        version = header["schema_version"]
        network = NetworkConfig.model_validate(header["network"])
        roi = RoiConfig.model_validate(header["roi"])
        provenance = dict(header["provenance"])
    except (KeyError, ValueError, TypeError, ValidationError) as err:
        raise WireError(
            f"{path}: a safetensors file, but not a nognet model ({type(err).__name__} in its "
            "metadata); expected one written by nognet",
            code="bad-model",
        ) from err
    if version != SCHEMA_VERSION:
        raise WireError(
            f"{path}: written with model schema {version}, this nognet reads {SCHEMA_VERSION}",
            code="bad-model",
        )
    return network, roi, provenance
