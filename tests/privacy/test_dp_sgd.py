"""DP-SGD against naive loops, its sensitivity, and what it refuses."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from nognet.config import PairsOfPatient
from nognet.errors import PrivacyError, TrainingError
from nognet.privacy.dp_sgd import Mechanism, PrivateSteps
from nognet.privacy.sampling import group_by_patient
from nognet.privacy.secret import SecretStream
from tests.builders.private_steps import (
    alone,
    flat_gradient,
    loss_of,
    losses_of,
    make_examples,
    make_net,
    naive_mean,
    own_gradient,
    private_steps,
    relative_error,
)


@pytest.mark.parametrize("clip", [1e-3, 0.05, 0.3, 100.0])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_without_noise_it_equals_a_naive_loop_over_patients(clip: float, n: int) -> None:
    net, examples = make_net(), make_examples(n)
    private_steps(net, clip=clip).noised_gradient(alone(examples), losses_of(net))
    assert relative_error(flat_gradient(net), naive_mean(net, examples, clip, 4.0)) < 1e-5


def test_a_clip_norm_between_the_patients_norms_clips_some_and_not_others() -> None:
    net, examples = make_net(), make_examples(6)
    norms = sorted(float(own_gradient(net, example).norm()) for example in examples)
    clip = (norms[2] + norms[3]) / 2
    private_steps(net, clip=clip).noised_gradient(alone(examples), losses_of(net))
    assert relative_error(flat_gradient(net), naive_mean(net, examples, clip, 4.0)) < 1e-5


def test_unclipped_and_without_noise_a_step_is_plain_sgd_on_the_mean() -> None:
    private, plain, examples = make_net(), make_net(), make_examples(4)
    private_steps(private, clip=1e6).step(alone(examples), losses_of(private))
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    torch.stack([loss_of(plain, e) for e in examples]).mean().backward()
    optimizer.step()
    for ours, theirs in zip(private.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_the_sum_is_divided_by_the_expected_and_not_by_the_drawn_number() -> None:
    few, many = make_net(), make_net()
    example = make_examples(1)
    private_steps(few, expected=1.0).noised_gradient(alone(example), losses_of(few))
    private_steps(many, expected=8.0).noised_gradient(alone(example), losses_of(many))
    torch.testing.assert_close(flat_gradient(few), 8 * flat_gradient(many))


@settings(max_examples=30, deadline=None)
@given(
    clip=st.floats(1e-3, 10),
    scale=st.floats(1e-3, 1e3),
    seed=st.integers(0, 1000),
)
def test_one_patients_part_never_exceeds_the_clip_norm(
    clip: float, scale: float, seed: int
) -> None:
    net = make_net(seed)
    examples = make_examples(1, seed, scale)
    private_steps(net, clip=clip, expected=1.0).noised_gradient(alone(examples), losses_of(net))
    assert float(flat_gradient(net).double().norm()) <= clip * (1 + 1e-5)


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(0, 4), clip=st.floats(1e-2, 1), scale=st.floats(0.1, 100), at=st.integers(0, 4)
)
def test_sums_of_neighbouring_batches_differ_by_at_most_the_clip_norm(
    n: int, clip: float, scale: float, at: int
) -> None:
    without = make_examples(n)
    joined = make_examples(1, seed=99, scale=scale)
    with_patient = [*without[:at], *joined, *without[at:]]
    sums = []
    for examples in (without, with_patient):
        net = make_net()
        steps = private_steps(net, clip=clip, expected=1.0)
        steps.noised_gradient(alone(examples), losses_of(net))
        sums.append(flat_gradient(net).double())
    assert float((sums[1] - sums[0]).norm()) <= clip * (1 + 1e-4)


def test_a_patient_with_twenty_pairs_moves_the_sum_no_further_than_one_with_one() -> None:
    others, clip = make_examples(3), 0.05
    choices: list[tuple[int, PairsOfPatient]] = [(1, "one"), (20, "one"), (20, "all")]
    for n_pairs, choice in choices:
        extra = make_examples(n_pairs, seed=50, scale=10.0)
        patients = ["a", "b", "c"] + ["crowded"] * n_pairs
        both = []
        for pairs, ids in ((others, patients[:3]), (others + extra, patients)):
            net = make_net()
            groups = group_by_patient(range(len(pairs)), ids)
            batch = groups.draw(1.0, SecretStream.for_tests(4), pairs=choice)
            steps = private_steps(net, clip=clip, expected=1.0)
            steps.noised_gradient([[pairs[i] for i in drawn] for drawn in batch], losses_of(net))
            both.append(flat_gradient(net).double())
        moved = float((both[1] - both[0]).norm())
        assert moved == pytest.approx(clip, rel=1e-4)  # clipped, and once: 20 pairs would be 20 C


def test_steps_do_not_add_up_what_was_before() -> None:
    net, examples = make_net(), make_examples(3)
    steps = private_steps(net)
    for p in net.parameters():
        p.grad = torch.full_like(p, 1e3)  # left behind by somebody else
    steps.noised_gradient(alone(make_examples(5, seed=9)), losses_of(net))
    steps.noised_gradient(alone(examples), losses_of(net))
    assert relative_error(flat_gradient(net), naive_mean(net, examples, 1.0, 4.0)) < 1e-5


def test_adamw_takes_a_private_step_from_the_gradient_left_for_it() -> None:
    net, twin, examples = make_net(), make_net(), make_examples(3)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.1)
    steps = PrivateSteps(net, optimizer, Mechanism(0.5, 1.0, 4.0), secret=SecretStream.for_tests(8))
    reference = torch.optim.AdamW(twin.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(3):
        steps.step(alone(examples), losses_of(net))
        for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
            theirs.grad = None if ours.grad is None else ours.grad.clone()
        reference.step()
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_frozen_parameters_stay_as_they_are() -> None:
    net = make_net()
    net.first.requires_grad_(requires_grad=False)
    before = net.first.weight.clone()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    PrivateSteps(net, optimizer, Mechanism(1.0, 1.0, 4.0)).step(
        alone(make_examples(2)), losses_of(net)
    )
    assert torch.equal(net.first.weight, before)
    assert net.first.weight.grad is None


def test_the_report_gives_the_mean_loss_of_the_drawn_patients() -> None:
    net, examples = make_net(), make_examples(3)
    wanted = np.mean([float(loss_of(net, e).detach()) for e in examples])
    report = private_steps(net).noised_gradient(alone(examples), losses_of(net))
    assert report.n_patients == 3
    assert report.mean_loss == pytest.approx(wanted)


def test_examples_are_not_changed_and_may_hold_text() -> None:
    net = make_net()
    examples = [{"image": e, "pair": f"p{i}"} for i, e in enumerate(make_examples(2))]
    before = copy.deepcopy(examples)

    def losses_of(samples: Sequence[dict[str, object]]) -> Tensor:
        (sample,) = samples
        image = sample["image"]
        assert isinstance(image, tuple)
        return loss_of(net, image)

    private_steps(net).noised_gradient(alone(examples), losses_of)
    for found, wanted in zip(examples, before, strict=True):
        assert found["pair"] == wanted["pair"]
        for one, other in zip(found["image"], wanted["image"], strict=True):
            assert torch.equal(one, other)


def test_a_gradient_that_is_not_finite_stops_the_step_and_leaves_no_gradient() -> None:
    net = make_net()
    bad = (torch.full((2, 1, 4, 4, 4), 1e30), torch.ones(1))
    steps = private_steps(net, noise=1.0)
    steps.noised_gradient([], losses_of(net))
    with pytest.raises(TrainingError) as caught:
        steps.step(alone([*make_examples(1), bad]), losses_of(net))
    assert caught.value.public_code == "TrainingError:loss-not-finite"
    assert all(p.grad is None for p in net.parameters())
    net2 = nn.Linear(2, 1)
    with pytest.raises(TrainingError, match="gradient is not finite"):
        # finite loss, infinite slope: d sqrt(x) / dx at 0
        private_steps(net2).step([(0,)], lambda _: (net2.weight * 0).sum().abs().sqrt())


def test_after_a_failed_step_the_next_one_starts_clean() -> None:
    net, examples = make_net(), make_examples(2)
    steps = private_steps(net)
    with pytest.raises(TrainingError):
        steps.step(
            alone(
                [*make_examples(3, seed=7), (torch.full((2, 1, 4, 4, 4), torch.nan), torch.ones(1))]
            ),
            losses_of(net),
        )
    steps.noised_gradient(alone(examples), losses_of(net))
    assert relative_error(flat_gradient(net), naive_mean(net, examples, 1.0, 4.0)) < 1e-5


def test_a_loss_over_a_batch_is_refused() -> None:
    net = make_net()
    with pytest.raises(PrivacyError, match="expected one number each"):
        private_steps(net).step(alone(make_examples(1)), lambda e: loss_of(net, e[0]).repeat(3))


def test_a_network_that_writes_to_a_buffer_is_refused() -> None:
    class _Keeps(nn.Module):
        mean: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))
            self.register_buffer("mean", torch.zeros(1))

        def forward(self, value: Tensor) -> Tensor:
            self.mean.copy_(value.mean())
            return (self.weight * value).sum()

    net = _Keeps()
    with pytest.raises(PrivacyError, match="changed a buffer"):
        private_steps(net).step([(torch.ones(3),)], lambda samples: net(samples[0]))


def test_an_optimizer_that_is_private_already_is_refused() -> None:
    net = make_net()
    wrapped = DPOptimizer(
        torch.optim.SGD(net.parameters(), lr=0.1),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        expected_batch_size=4,
    )
    with pytest.raises(PrivacyError, match="noise would be added twice"):
        PrivateSteps(net, wrapped, Mechanism(1.0, 1.0, 4.0))


@pytest.mark.parametrize("other", [False, True])
def test_an_optimizer_of_other_parameters_is_refused(other: bool) -> None:
    net = make_net()
    held = [*net.parameters(), nn.Parameter(torch.ones(1))] if other else [net.gate]
    with pytest.raises(PrivacyError, match="exactly those of the network"):
        PrivateSteps(net, torch.optim.SGD(held, lr=0.1), Mechanism(1.0, 1.0, 4.0))


@pytest.mark.parametrize(
    "values", [(-1.0, 1.0, 4.0), (1.0, 0.0, 4.0), (1.0, 1.0, 0.0), (math.nan, 1.0, 4.0)]
)
def test_a_mechanism_out_of_range_is_refused(values: tuple[float, float, float]) -> None:
    with pytest.raises(PrivacyError, match="expected noise_multiplier"):
        Mechanism(*values)
