from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nognet.config import LossConfig, NetworkConfig, TrainingConfig
from nognet.errors import TrainingError
from nognet.fit.control import ControlVariate
from nognet.fit.steps import TrainingSteps
from nognet.fit.tensors import stack_pairs
from nognet.network import Batch, build_network
from tests.builders.federation import roi_pair

CPU = torch.device("cpu")
SMALL = NetworkConfig(width=4, time_features=2, embedding_width=8, attention_heads=2)


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values))


def steps_with(
    correction: float | None, *, with_control: bool = True, **training: Any
) -> TrainingSteps:
    network = build_network(SMALL, torch.Generator().manual_seed(0))
    parameters = list(network.parameters())
    parts = None if correction is None else [torch.full_like(p, correction) for p in parameters]
    control = ControlVariate(parameters, parts) if with_control else None
    config = TrainingConfig.model_validate(training)
    return TrainingSteps(network, config, LossConfig(), CPU, control=control)


@pytest.fixture(scope="module")
def batch() -> Batch:
    return stack_pairs([roi_pair(number, np.random.default_rng(number)) for number in range(2)])


def test_the_gradient_is_corrected_and_its_mean_is_kept_as_it_was() -> None:
    weights = parameter(1.0, 2.0)
    control = ControlVariate([weights], [torch.tensor([0.5, -1.0])])
    for gradient in ([3.0, 4.0], [5.0, 0.0]):
        weights.grad = torch.tensor(gradient)
        control.take()
        assert weights.grad.tolist() == [gradient[0] + 0.5, gradient[1] - 1.0]
    assert control.mean()[0].tolist() == [4.0, 2.0]


def test_a_parameter_that_only_others_train_follows_them() -> None:
    here, elsewhere, nowhere = parameter(1.0), parameter(1.0), parameter(1.0)
    parts = [torch.tensor([0.0]), torch.tensor([2.0]), torch.tensor([0.0])]
    control = ControlVariate([here, elsewhere, nowhere], parts)
    here.grad = torch.tensor([1.0])
    control.take()
    assert elsewhere.grad is not None
    assert elsewhere.grad.tolist() == [2.0]
    assert nowhere.grad is None
    assert [float(m) for m in control.mean()] == [1.0, 0.0, 0.0]


def test_without_a_step_there_is_no_mean() -> None:
    with pytest.raises(TrainingError, match="no step had a finite gradient"):
        ControlVariate([parameter(1.0)]).mean()


@pytest.mark.parametrize("correction", [None, 0.0])
def test_a_correction_of_zero_changes_no_bit(batch: Batch, correction: float | None) -> None:
    plain, corrected = steps_with(None, with_control=False), steps_with(correction)
    for steps in (plain, corrected):
        for _ in range(3):
            steps.step([batch], 1e-3)
    for one, two in zip(plain.parameters, corrected.parameters, strict=True):
        assert torch.equal(one, two)


def test_what_is_sent_is_not_clipped_and_what_the_optimiser_gets_is(batch: Batch) -> None:
    free = steps_with(0.0, gradient_clip_norm=1e9)
    clipped = steps_with(0.25, gradient_clip_norm=0.01)
    for steps in (free, clipped):
        steps.step([batch], 1e-3)
    assert free.control is not None
    assert clipped.control is not None
    for one, two in zip(free.control.mean(), clipped.control.mean(), strict=True):
        assert torch.equal(one, two)  # the same first gradient, neither corrected nor clipped
    norm = torch.cat([p.grad.flatten() for p in clipped.parameters if p.grad is not None]).norm()
    assert float(norm) == pytest.approx(0.01, rel=1e-3)
