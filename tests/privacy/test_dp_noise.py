"""The noise of DP-SGD: how much, how often, and from where."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from nognet.privacy.dp_sgd import Mechanism, PrivateSteps
from nognet.privacy.patient_gradients import LossesOf
from tests.builders.private_steps import (
    alone,
    flat_gradient,
    losses_of,
    make_examples,
    make_net,
    private_steps,
)

MIN_P = 1e-4


def noise_of(n: int, *, noise: float, clip: float, expected: float, key: int) -> np.ndarray:
    """What is left of a step when the clipped mean of its patients is taken away."""
    net = nn.Linear(400, 50)
    clean = copy.deepcopy(net)
    examples = torch.randn(n, 400, generator=torch.Generator().manual_seed(5))

    def loss_with(module: nn.Module) -> LossesOf[Tensor]:
        return lambda samples: module(torch.stack(list(samples))).square().mean(1)

    private_steps(clean, clip=clip, expected=expected).noised_gradient(
        alone(examples), loss_with(clean)
    )
    noisy = private_steps(net, noise=noise, clip=clip, expected=expected, key=key)
    noisy.noised_gradient(alone(examples), loss_with(net))
    return (flat_gradient(net).double() - flat_gradient(clean).double()).numpy()


@pytest.mark.parametrize("n", [0, 1, 8])
@pytest.mark.parametrize(("noise", "clip", "expected"), [(1.0, 1.0, 4.0), (2.5, 0.1, 8.0)])
def test_noise_is_added_once_whatever_the_batch(
    n: int, noise: float, clip: float, expected: float
) -> None:
    left = noise_of(n, noise=noise, clip=clip, expected=expected, key=n)
    std = noise * clip / expected
    chi_square = float((left**2).sum() / std**2)
    law = stats.chi2(left.size)  # 20 050 degrees: twice the noise would be off by a factor of 2
    assert MIN_P < law.cdf(chi_square) < 1 - MIN_P
    assert stats.kstest(left / std, "norm").pvalue > MIN_P


def test_noise_differs_between_steps_and_between_parameters() -> None:
    net = nn.ModuleList([nn.Linear(30, 30, bias=False), nn.Linear(30, 30, bias=False)])
    steps = private_steps(net, noise=1.0)
    drawn = []
    for _ in range(2):
        steps.noised_gradient([], lambda _: torch.zeros(()))
        drawn += [p.grad.flatten().numpy().copy() for p in net.parameters() if p.grad is not None]
    correlations = np.corrcoef(drawn)[np.triu_indices(4, 1)]
    assert len(correlations) == 6
    assert np.abs(correlations).max() < 4 / math.sqrt(900)


def test_two_runs_with_the_default_source_never_share_their_noise() -> None:
    drawn = []
    for _ in range(2):
        net = nn.Linear(10, 10)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        PrivateSteps(net, optimizer, Mechanism(1.0, 1.0, 4.0)).noised_gradient(
            [], lambda _: torch.zeros(())
        )
        drawn.append(flat_gradient(net))
    assert not torch.any(drawn[0] == drawn[1])


def test_torchs_global_generator_neither_determines_nor_feels_the_noise() -> None:
    state = torch.random.get_rng_state()
    net = make_net()
    private_steps(net, noise=1.0).noised_gradient(alone(make_examples(2)), losses_of(net))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_empty_batch_is_a_noised_step_that_moves_the_weights() -> None:
    net = make_net()
    before = [p.detach().clone() for p in net.parameters()]
    report = private_steps(net, noise=1.0).step([], losses_of(net))
    assert (report.n_patients, report.mean_loss) == (0, None)
    assert all(torch.any(p != b) for p, b in zip(net.parameters(), before, strict=True))


def test_an_unused_parameter_gets_noise_and_no_error() -> None:
    net = make_net()
    private_steps(net, noise=1.0).noised_gradient(alone(make_examples(2)), losses_of(net))
    assert net.unused.grad is not None
    assert torch.all(net.unused.grad != 0)
