"""Networks, losses and gradients that would break the promise are refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nognet.errors import PrivacyError, TrainingError
from nognet.privacy.guards import (
    GradientMethod,
    buffer_state,
    check_buffers,
    check_gradients,
    check_loss,
    check_module,
)


class _OwnParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(1))


REFUSED: list[tuple[nn.Module, GradientMethod, str]] = [
    (nn.BatchNorm3d(4), "batch-of-one", "use GroupNorm"),
    (nn.SyncBatchNorm(4), "batch-of-one", "use GroupNorm"),
    (nn.InstanceNorm3d(4, affine=True, track_running_stats=True), "batch-of-one", "running stat"),
    (nn.Conv3d(1, 1, 3, padding=1, padding_mode="replicate"), "hooks", "silently wrong"),
    (nn.MultiheadAttention(4, 2), "hooks", "no per-sample gradient"),
    (_OwnParameter(), "hooks", "parameters of its own"),
]
ACCEPTED: list[tuple[nn.Module, GradientMethod]] = [
    (nn.Conv3d(1, 2, 3, padding=1, padding_mode="replicate"), "batch-of-one"),
    (nn.MultiheadAttention(4, 2), "batch-of-one"),
    (_OwnParameter(), "batch-of-one"),
    (nn.InstanceNorm3d(4, affine=True), "batch-of-one"),
    (nn.Sequential(nn.Conv3d(1, 4, 3), nn.GroupNorm(2, 4), nn.Linear(2, 2)), "hooks"),
]


@pytest.mark.parametrize(("layer", "method", "words"), REFUSED)
def test_a_layer_that_would_be_wrong_is_refused_by_its_path(
    layer: nn.Module, method: GradientMethod, words: str
) -> None:
    network = nn.Sequential(nn.Conv3d(1, 4, 3), nn.Sequential(layer))
    with pytest.raises(PrivacyError, match=words) as caught:
        check_module(network, method=method)
    assert f"1.0: {type(layer).__name__}" in str(caught.value)
    assert caught.value.public_code == "PrivacyError:network-not-private"


@pytest.mark.parametrize(("layer", "method"), ACCEPTED)
def test_a_layer_that_is_right_passes(layer: nn.Module, method: GradientMethod) -> None:
    check_module(layer, method=method)


def test_every_fault_is_listed_at_once() -> None:
    network = nn.Sequential(nn.BatchNorm3d(2), nn.Conv3d(2, 2, 1), nn.BatchNorm1d(3))
    with pytest.raises(PrivacyError) as caught:
        check_module(network)
    assert "0: BatchNorm3d" in str(caught.value)
    assert "2: BatchNorm1d" in str(caught.value)


def test_a_network_with_nothing_to_train_is_refused() -> None:
    with pytest.raises(PrivacyError, match="no parameter requires a gradient"):
        check_module(nn.Conv3d(1, 1, 1).requires_grad_(requires_grad=False))


class _Counter(nn.Module):
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(2))


def test_a_buffer_written_in_place_or_replaced_is_found_and_a_read_one_is_not() -> None:
    module = _Counter()
    before = buffer_state(module)
    _ = module.seen + 1
    check_buffers(module, before)
    module.seen += 1
    with pytest.raises(PrivacyError, match="changed a buffer"):
        check_buffers(module, before)
    before = buffer_state(module)
    kept = module.seen  # the old one lives on, so that its identity can't be used again
    module.seen = kept + 1
    with pytest.raises(PrivacyError, match="changed a buffer"):
        check_buffers(module, before)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_or_gradient_that_is_not_finite_is_an_error(value: float) -> None:
    with pytest.raises(TrainingError, match="loss is not finite"):
        check_loss(torch.tensor(value))
    with pytest.raises(TrainingError, match="gradient is not finite"):
        check_gradients((torch.zeros(3), torch.tensor([0.0, value])))


@pytest.mark.parametrize("shape", [(2,), (0,), (1, 3)])
def test_a_loss_of_several_numbers_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(PrivacyError, match="expected one number"):
        check_loss(torch.zeros(shape))


def test_ordinary_losses_and_gradients_pass() -> None:
    check_loss(torch.tensor(0.5))
    check_loss(torch.tensor([0.5]))
    check_gradients((torch.zeros(2), torch.full((1,), 1e30)))
