"""Networks, losses and gradients that would break the promise are refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nognet.errors import PrivacyError, TrainingError
from nognet.privacy.guards import (
    buffer_state,
    check_buffers,
    check_gradients,
    check_losses,
    check_module,
)

REFUSED: list[tuple[nn.Module, str]] = [
    (nn.BatchNorm3d(4), "use GroupNorm"),
    (nn.SyncBatchNorm(4), "use GroupNorm"),
    (nn.InstanceNorm3d(4, affine=True, track_running_stats=True), "running stat"),
]
ACCEPTED: list[nn.Module] = [
    nn.Conv3d(1, 2, 3, padding=1, padding_mode="replicate"),
    nn.MultiheadAttention(4, 2),
    nn.InstanceNorm3d(4, affine=True),
    nn.Sequential(nn.Conv3d(1, 4, 3), nn.GroupNorm(2, 4), nn.Linear(2, 2)),
]


@pytest.mark.parametrize(("layer", "words"), REFUSED)
def test_a_layer_that_would_be_wrong_is_refused_by_its_path(layer: nn.Module, words: str) -> None:
    network = nn.Sequential(nn.Conv3d(1, 4, 3), nn.Sequential(layer))
    with pytest.raises(PrivacyError, match=words) as caught:
        check_module(network)
    assert f"1.0: {type(layer).__name__}" in str(caught.value)
    assert caught.value.public_code == "PrivacyError:network-not-private"


@pytest.mark.parametrize("layer", ACCEPTED)
def test_a_layer_that_is_right_passes(layer: nn.Module) -> None:
    check_module(layer)


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
        check_losses(torch.tensor([0.0, value]), 2)
    with pytest.raises(TrainingError, match="gradient is not finite"):
        check_gradients((torch.zeros(3), torch.tensor([0.0, value])))


@pytest.mark.parametrize("shape", [(), (1,), (3,), (0,), (1, 2)])
def test_losses_that_are_not_one_number_a_sample_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(PrivacyError, match="for 2 samples, expected one number each"):
        check_losses(torch.zeros(shape), 2)


def test_ordinary_losses_and_gradients_pass() -> None:
    check_losses(torch.tensor(0.5), 1)
    check_losses(torch.tensor([0.5, -1.0]), 2)
    check_gradients((torch.zeros(2), torch.full((1,), 1e30)))
