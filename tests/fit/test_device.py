from __future__ import annotations

import pytest
import torch
from torch import nn

from nognet.config import NetworkConfig
from nognet.errors import ConfigError
from nognet.fit.device import autocast, check_precision, reproducible, resolve_device
from nognet.network import MTNoGNet, build_network

CPU = torch.device("cpu")


def _network(**changes: object) -> MTNoGNet:
    small = {"width": 4, "time_features": 2, "embedding_width": 8, "attention_heads": 2}
    config = NetworkConfig.model_validate({**small, **changes})
    return build_network(config, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("stem", ["full", "space_to_depth"])
def test_bf16_is_refused_where_a_convolution_would_see_a_depth_of_2(stem: str) -> None:
    with pytest.raises(ConfigError, match="depth of 2") as caught:
        check_precision(CPU, "bf16", _network(stem=stem), 16)
    assert caught.value.code == "precision-depth"
    assert "ROI of 32 voxels or more" in str(caught.value)
    check_precision(CPU, "fp32", _network(stem=stem), 16)


@pytest.mark.parametrize("stem", ["full", "space_to_depth"])
@pytest.mark.parametrize("size", [32, 48])
def test_every_roi_that_the_configuration_admits_may_train_in_bf16(stem: str, size: int) -> None:
    network = _network(stem=stem)
    check_precision(CPU, "bf16", network, size)
    with pytest.raises(ConfigError, match="depth of 2"):  # and the guard would have seen it
        check_precision(CPU, "bf16", network, 16)


def test_the_check_leaves_no_hook_and_no_gradient() -> None:
    network = _network()
    check_precision(CPU, "bf16", network, 32)
    assert not any(module._forward_pre_hooks for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_at_a_depth_of_4_the_bf16_gradient_is_the_fp32_one() -> None:
    generator = torch.Generator().manual_seed(0)
    convolution = nn.Conv3d(16, 16, 3, 1, 1)
    x = torch.randn((2, 16, 4, 4, 4), generator=generator)
    gradients = []
    for precision in ("bf16", "fp32"):
        convolution.zero_grad()
        with autocast(CPU, precision):
            y = convolution(x)
        y.float().square().mean().backward()
        gradients.append(convolution.weight.grad.clone())
    assert (gradients[0] - gradients[1]).norm() < 0.05 * gradients[1].norm()


def test_a_bf16_round_at_the_smallest_roi_has_the_gradient_of_fp32() -> None:
    gradients = []
    for precision in ("bf16", "fp32"):
        network = _network()
        volume = torch.rand((2, 1, 32, 32, 32), generator=torch.Generator().manual_seed(1))
        with autocast(CPU, precision):
            found = network(volume, (volume > 0.9).float(), torch.tensor([100.0, 300.0]), None)
        (found.image.square().mean() + found.residual.mean()).backward()
        gradients.append(
            torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
        )
    assert torch.isfinite(gradients[0]).all()
    assert (gradients[0] - gradients[1]).norm() < 0.1 * gradients[1].norm()


@pytest.mark.parametrize("kind", ["cpu", "mps"])
def test_fp16_is_for_cuda_alone(kind: str) -> None:
    with pytest.raises(ConfigError, match="fp16 needs CUDA") as caught:
        check_precision(torch.device(kind), "fp16")
    assert caught.value.code == "precision"


def test_bf16_is_refused_where_the_device_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *_: False)
    with pytest.raises(ConfigError, match="mps device has no bf16"):
        check_precision(torch.device("mps"), "bf16")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(ConfigError, match="fp32 or fp16"):
        check_precision(torch.device("cuda"), "bf16")


def test_cudnn_is_deterministic_in_the_block_alone() -> None:
    before = torch.backends.cudnn.deterministic
    with reproducible():
        assert torch.backends.cudnn.deterministic
    assert torch.backends.cudnn.deterministic == before


def test_a_device_that_is_not_there_is_refused() -> None:
    missing = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(ConfigError, match="finds only"):
        resolve_device(missing)
    assert resolve_device("cpu") == CPU
