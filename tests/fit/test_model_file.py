from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from nognet.config import NetworkConfig, RoiConfig
from nognet.errors import WireError
from nognet.fit.model_file import load_model, save_model
from nognet.fit.weights import Weights, check_weights, initial_weights, network_with, weight_spec

NETWORK = NetworkConfig(width=4)


@pytest.fixture
def weights() -> Weights:
    return initial_weights(NETWORK, 1)


def test_a_model_comes_back_as_it_was_written(tmp_path: Path, weights: Weights) -> None:
    path = tmp_path / "model.nognet"
    roi = RoiConfig(size_vox=64)
    save_model(path, weights, network=NETWORK, roi=roi, provenance={"round": 3, "site": "ä"})
    model = load_model(path)
    assert list(model.weights) == list(weights)
    assert all(torch.equal(model.weights[name], weights[name]) for name in weights)
    assert (model.network, model.roi) == (NETWORK, roi)
    assert model.provenance == {"round": 3, "site": "ä"}


def test_safetensors_alone_can_read_it(tmp_path: Path, weights: Weights) -> None:
    path = tmp_path / "model.nognet"
    save_model(path, weights, network=NETWORK, roi=RoiConfig(), provenance={})
    assert set(safetensors.torch.load_file(path)) == set(weights)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "damaged"),
        (b"\x80\x04\x95 a pickle", "damaged"),
        (None, "no such model"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "model.nognet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WireError, match=said):
        load_model(path)


def test_a_truncated_file_is_refused(tmp_path: Path, weights: Weights) -> None:
    path = tmp_path / "model.nognet"
    save_model(path, weights, network=NETWORK, roi=RoiConfig(), provenance={})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WireError, match="damaged"):
        load_model(path)


@pytest.mark.parametrize("header", [None, "{}", "no json", json.dumps({"schema_version": 1})])
def test_a_safetensors_file_of_somebody_else_is_refused(tmp_path: Path, header: str | None) -> None:
    path = tmp_path / "other.nognet"
    metadata = {"nognet": header} if header is not None else {"format": "pt"}
    safetensors.torch.save_file({"a": torch.zeros(2)}, path, metadata=metadata)
    with pytest.raises(WireError, match="not a nognet model"):
        load_model(path)


def test_weights_that_do_not_fit_are_never_written(tmp_path: Path, weights: Weights) -> None:
    path = tmp_path / "model.nognet"
    wider = NetworkConfig(width=8)
    with pytest.raises(WireError):
        save_model(path, weights, network=wider, roi=RoiConfig(), provenance={})
    assert not path.exists()


def test_the_first_difference_of_weights_is_named(weights: Weights) -> None:
    spec = weight_spec(NETWORK)
    name = spec[3].name
    check_weights(weights, spec)
    with pytest.raises(WireError, match=name):
        check_weights({**weights, name: weights[name].double()}, spec)
    with pytest.raises(WireError, match="differ in"):
        check_weights({key: value for key, value in weights.items() if key != name}, spec)


def test_the_specification_is_that_of_the_initial_weights(weights: Weights) -> None:
    assert [(s.name, s.shape) for s in weight_spec(NETWORK)] == [
        (name, tuple(tensor.shape)) for name, tensor in weights.items()
    ]
    assert sum(s.count for s in weight_spec(NETWORK)) == sum(t.numel() for t in weights.values())


def test_a_network_holds_copies_and_not_the_weights_themselves(weights: Weights) -> None:
    network = network_with(NETWORK, weights, torch.device("cpu"))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    fresh = initial_weights(NETWORK, 1)
    assert all(torch.equal(weights[name], fresh[name]) for name in weights)
