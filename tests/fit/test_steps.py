from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nognet.config import LossConfig, NetworkConfig, TrainingConfig
from nognet.errors import ConfigError, TrainingError
from nognet.fit.pull import FedProxPull
from nognet.fit.steps import TrainingSteps
from nognet.fit.tensors import stack_pairs
from nognet.network import Batch, MTNoGNet, build_network
from tests.builders.federation import roi_pair

CPU = torch.device("cpu")
SMALL = NetworkConfig(width=4, time_features=2, embedding_width=8, attention_heads=2)
RATE = 1e-3


def _network() -> MTNoGNet:
    return build_network(SMALL, torch.Generator().manual_seed(0))


def _steps(network: MTNoGNet | None = None, **training: Any) -> TrainingSteps:
    config = TrainingConfig.model_validate(training)
    return TrainingSteps(network or _network(), config, LossConfig(), CPU)


@pytest.fixture(scope="module")
def batch() -> Batch:
    return stack_pairs([roi_pair(number, np.random.default_rng(number)) for number in range(4)])


def _weights(steps: TrainingSteps) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in steps.network.parameters()]


def _gap(one: list[Tensor], two: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(one, two, strict=True))


def _spoilt(batch: Batch, sample: int) -> Batch:
    target = batch.target_image.clone()
    target[sample, 0, 0, 0, 0] = torch.nan
    return dataclasses.replace(batch, target_image=target)


@pytest.mark.parametrize("parts", [[[0, 1], [2, 3]], [[0], [1, 2, 3]]])
def test_accumulated_batches_have_the_gradient_of_one_large_one(
    batch: Batch, parts: list[list[int]]
) -> None:
    whole, split = _steps(gradient_clip_norm=1e9), _steps(gradient_clip_norm=1e9)
    loss = whole.step([batch], RATE)
    assert split.step([batch.select(part) for part in parts], RATE) == pytest.approx(loss, abs=1e-6)
    gradients = [
        torch.cat([p.grad.flatten() for p in steps.parameters if p.grad is not None])
        for steps in (whole, split)
    ]
    # float32 sums in another order; a wrong weight of a batch errs by 0.1 and more
    assert (gradients[0] - gradients[1]).norm() < 5e-6 * gradients[0].norm()


def test_the_gradient_is_clipped_to_its_norm(batch: Batch) -> None:
    free, clipped = _steps(gradient_clip_norm=1e9), _steps(gradient_clip_norm=0.01)
    norms = []
    for steps in (free, clipped):
        steps.step([batch], RATE)
        grads = [p.grad.flatten() for p in steps.parameters if p.grad is not None]
        norms.append(float(torch.cat(grads).norm()))
    assert norms[0] > 0.01
    assert norms[1] == pytest.approx(0.01, rel=1e-3)


def test_the_average_is_the_closed_form(batch: Batch) -> None:
    decay = 0.75
    steps = _steps(ema_decay=decay)
    expected = _weights(steps)
    for _ in range(3):
        steps.step([batch], RATE)
        now = _weights(steps)
        expected = [decay * m + (1 - decay) * w for m, w in zip(expected, now, strict=True)]
    with steps.averaged() as network:
        found = [parameter.detach().clone() for parameter in network.parameters()]
    assert _gap(found, expected) < 1e-6
    assert _gap(found, now) > 1e-5


def test_the_weights_come_back_bit_for_bit_after_the_average_was_lent(batch: Batch) -> None:
    steps = _steps(ema_decay=0.9)
    steps.step([batch], RATE)
    before = _weights(steps)
    average = [mean.clone() for mean in steps.average or []]
    with pytest.raises(KeyboardInterrupt), steps.averaged():
        raise KeyboardInterrupt
    assert _gap(before, _weights(steps)) == 0
    assert _gap(average, steps.average or []) == 0


def test_without_an_average_the_network_itself_is_lent() -> None:
    steps = _steps()
    before = _weights(steps)
    with steps.averaged() as network:
        assert network is steps.network
        assert _gap(before, _weights(steps)) == 0


def test_the_average_changes_no_step(batch: Batch) -> None:
    plain, averaged = _steps(), _steps(ema_decay=0.9)
    for steps in (plain, averaged):
        steps.step([batch], RATE)
        steps.step([batch], RATE)
    assert _gap(_weights(plain), _weights(averaged)) == 0


def test_a_loss_that_is_not_finite_names_its_pair_and_leaves_the_weights(batch: Batch) -> None:
    steps = _steps(ema_decay=0.9)
    steps.step([batch], RATE)
    before, average = _weights(steps), [mean.clone() for mean in steps.average or []]
    parts = [batch.select([0, 1]), _spoilt(batch.select([2, 3]), 1)]
    with pytest.raises(TrainingError, match="not finite for pairs d;") as caught:
        steps.step(parts, RATE, ["a", "b", "c", "d"])
    assert caught.value.code == "loss-not-finite"
    assert _gap(before, _weights(steps)) == 0
    assert _gap(average, steps.average or []) == 0
    assert all(parameter.grad is None for parameter in steps.parameters)
    steps.step([batch], RATE)  # and it can go on
    assert all(torch.isfinite(weight).all() for weight in _weights(steps))


def test_without_ids_the_fault_is_still_told(batch: Batch) -> None:
    with pytest.raises(TrainingError, match="the loss is not finite;"):
        _steps().step([_spoilt(batch, 0)], RATE)


def test_a_gradient_that_is_not_finite_leaves_the_weights(batch: Batch) -> None:
    steps = _steps()
    before = _weights(steps)
    steps.losses(batch).mean().backward()
    next(p for p in steps.parameters if p.grad is not None).grad.fill_(torch.nan)
    with pytest.raises(TrainingError, match="gradient is not finite") as caught:
        steps.apply(RATE, ["a"])
    assert caught.value.code == "gradient-not-finite"
    assert _gap(before, _weights(steps)) == 0


def test_bf16_steps_are_near_those_of_fp32(batch: Batch) -> None:
    plain, half = _steps(), _steps(precision="bf16")
    losses = [[steps.step([batch], RATE) for _ in range(3)] for steps in (plain, half)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-2)


def test_bf16_at_an_roi_of_16_is_refused_before_the_first_step(batch: Batch) -> None:
    steps = _steps(precision="bf16")
    before = _weights(steps)
    with pytest.raises(ConfigError, match="depth of 2"):
        steps.step([batch.with_volumes(lambda x: x[..., 8:24, 8:24, 8:24])], RATE)
    assert _gap(before, _weights(steps)) == 0


def test_fp16_on_the_cpu_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match="fp16 needs CUDA"):
        _steps(precision="fp16")


def test_no_batch_is_no_step() -> None:
    with pytest.raises(TrainingError, match="no batch"):
        _steps().step([], RATE)


def test_the_pull_of_fedprox_is_mu_times_the_distance() -> None:
    network = _network()
    training = TrainingConfig(gradient_clip_norm=1e9)
    pull = FedProxPull(list(network.parameters()), 0.5)
    steps = TrainingSteps(network, training, LossConfig(), CPU, pull=pull)
    with torch.no_grad():
        for parameter in steps.parameters:
            parameter.add_(0.25)
            parameter.grad = torch.zeros_like(parameter)
    steps.apply(0.0)
    pulls = torch.cat([p.grad.flatten() for p in steps.parameters if p.grad is not None])
    torch.testing.assert_close(pulls, torch.full_like(pulls, 0.125), atol=1e-6, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_steps_on_cuda_lower_the_loss_as_on_the_cpu(batch: Batch, precision: str) -> None:
    device = torch.device("cuda")
    training = TrainingConfig.model_validate({"precision": precision, "ema_decay": 0.5})
    on_gpu = TrainingSteps(_network().to(device), training, LossConfig(), device)
    on_cpu = _steps()
    found = [on_gpu.step([batch.to(device)], RATE) for _ in range(5)]
    expected = [on_cpu.step([batch], RATE) for _ in range(5)]
    np.testing.assert_allclose(found[:1], expected[:1], rtol=2e-2)
    assert found[-1] < found[0]
