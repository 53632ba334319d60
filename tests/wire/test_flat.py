from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nognet.config import NetworkConfig
from nognet.errors import WireError
from nognet.fit.weights import TensorSpec, initial_weights, weight_spec
from nognet.wire.flat import flat_length, pack, unpack

SPEC = (TensorSpec("conv.weight", (2, 3)), TensorSpec("gain", ()), TensorSpec("bias", (4,)))


def weights_for(spec: tuple[TensorSpec, ...]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {item.name: torch.randn(item.shape, generator=generator) for item in spec}


def test_packing_lays_tensors_in_the_order_of_the_specification() -> None:
    weights = weights_for(SPEC)
    expected = np.concatenate([weights[item.name].numpy().reshape(-1) for item in SPEC])
    backwards = dict(reversed(weights.items()))
    assert np.array_equal(pack(backwards, SPEC), expected)


@given(st.lists(st.lists(st.integers(0, 3), max_size=3).map(tuple), min_size=1, max_size=5))
def test_unpacking_undoes_packing_bit_for_bit(shapes: list[tuple[int, ...]]) -> None:
    spec = tuple(TensorSpec(f"p{i}", shape) for i, shape in enumerate(shapes))
    weights = weights_for(spec)
    flat = pack(weights, spec)
    back = unpack(flat, spec)
    assert flat.shape == (flat_length(spec),)
    assert list(back) == [item.name for item in spec]
    assert all(torch.equal(back[name], weights[name]) for name in weights)


def test_the_real_network_survives_the_way_through_the_vector() -> None:
    config = NetworkConfig(width=4, embedding_width=8, time_features=2, attention_heads=2)
    spec, weights = weight_spec(config), initial_weights(config, seed=3)
    back = unpack(pack(weights, spec), spec)
    assert all(torch.equal(back[name], weights[name]) for name in weights)


def test_unpacked_tensors_do_not_share_memory_with_the_vector() -> None:
    flat = pack(weights_for(SPEC), SPEC)
    before = flat.copy()
    unpack(flat, SPEC)["bias"].add_(1.0)
    assert np.array_equal(flat, before)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"bias": torch.zeros(5)}, "shape"),
        ({"bias": torch.zeros(4, dtype=torch.float64)}, "dtype"),
        ({"bias": torch.tensor([0.0, float("nan"), 0.0, 0.0])}, "non-finite"),
        ({"bias": torch.tensor([0.0, float("inf"), 0.0, 0.0])}, "non-finite"),
        ({"extra": torch.zeros(1)}, "names"),
    ],
)
def test_packing_refuses_what_does_not_fit(change: dict[str, torch.Tensor], code: str) -> None:
    with pytest.raises(WireError) as caught:
        pack({**weights_for(SPEC), **change}, SPEC)
    assert caught.value.code == code


def test_packing_names_a_missing_parameter() -> None:
    weights = weights_for(SPEC)
    del weights["gain"]
    with pytest.raises(WireError, match=r"missing \['gain'\]"):
        pack(weights, SPEC)


@pytest.mark.parametrize(
    ("flat", "code"),
    [
        (np.zeros(10, np.float32), "shape"),
        (np.zeros((11, 1), np.float32), "shape"),
        (np.zeros(11, np.float64), "dtype"),
        (np.full(11, np.nan, np.float32), "non-finite"),
        (np.full(11, 3e38, np.float32), "too-large"),
    ],
)
def test_unpacking_refuses_what_does_not_fit(flat: np.ndarray, code: str) -> None:
    with pytest.raises(WireError) as caught:
        unpack(flat, SPEC)
    assert caught.value.code == code
