"""DP-SGD against naive loops, its sensitivity, and its noise."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.optimizers import DPOptimizer
from scipy import stats
from torch import Tensor, nn

from nognet.config import PairsOfPatient
from nognet.errors import PrivacyError, TrainingError
from nognet.privacy.dp_sgd import Mechanism, PrivateSteps
from nognet.privacy.patient_gradients import LossesOf, SampleT
from nognet.privacy.sampling import group_by_patient
from nognet.privacy.secret import SecretStream

MIN_P = 1e-4
Example = tuple[Tensor, Tensor]


class _Net(nn.Module):
    """A small 3D network with what MT-NoGNet has too: two inputs, own parameters, norms."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(1, 4, 3, padding=1, padding_mode="replicate")
        self.norm = nn.GroupNorm(2, 4)
        self.last = nn.Conv3d(4, 1, 3, padding=1)
        self.gate = nn.Parameter(torch.full((1,), 0.3))
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, image: Tensor, interval: Tensor) -> Tensor:
        hidden = torch.relu(self.norm(self.first(image)))
        out: Tensor = image + self.gate * interval.view(-1, 1, 1, 1, 1) * self.last(hidden)
        return out


def _net(seed: int = 0) -> _Net:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _Net()


def _examples(n: int, seed: int = 1, scale: float = 1.0) -> list[Example]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (scale * torch.rand(2, 1, 4, 4, 4, generator=generator), torch.rand(1, generator=generator))
        for _ in range(n)
    ]


def _loss(net: nn.Module, example: Example) -> Tensor:
    images, interval = example
    loss: Tensor = (net(images[:1], interval) - images[1:]).square().mean()
    return loss


def _losses(net: nn.Module) -> LossesOf[Example]:
    return lambda examples: torch.stack([_loss(net, example) for example in examples])


def _alone(examples: Iterable[SampleT]) -> list[tuple[SampleT]]:
    """Patients of one sample each."""
    return [(example,) for example in examples]


def _steps(
    net: nn.Module, *, noise: float = 0.0, clip: float = 1.0, expected: float = 4.0, key: int = 0
) -> PrivateSteps:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    mechanism = Mechanism(noise, clip, expected)
    return PrivateSteps(net, optimizer, mechanism, secret=SecretStream.for_tests(key))


def _flat(net: nn.Module) -> Tensor:
    parts = [p.grad.flatten() for p in net.parameters() if p.grad is not None]
    assert len(parts) == len(list(net.parameters()))
    return torch.cat(parts)


def _own_gradient(net: nn.Module, example: Example) -> Tensor:
    """One patient's gradient, flat, by nothing but backward() on a fresh copy."""
    alone = copy.deepcopy(net)
    _loss(alone, example).backward()  # type: ignore[no-untyped-call]  # torch's own
    return torch.cat(
        [torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in alone.parameters()]
    ).double()


def _naive(net: nn.Module, examples: Sequence[Example], clip: float, expected: float) -> Tensor:
    total = torch.zeros(sum(p.numel() for p in net.parameters()), dtype=torch.float64)
    for example in examples:
        gradient = _own_gradient(net, example)
        total += gradient * min(1.0, clip / (float(gradient.norm()) + 1e-6))  # Opacus' guard
    return total / expected


def _relative_error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("clip", [1e-3, 0.05, 0.3, 100.0])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_without_noise_it_equals_a_naive_loop_over_patients(clip: float, n: int) -> None:
    net, examples = _net(), _examples(n)
    _steps(net, clip=clip).noised_gradient(_alone(examples), _losses(net))
    assert _relative_error(_flat(net), _naive(net, examples, clip, 4.0)) < 1e-5


def test_a_clip_norm_between_the_patients_norms_clips_some_and_not_others() -> None:
    net, examples = _net(), _examples(6)
    norms = sorted(float(_own_gradient(net, example).norm()) for example in examples)
    clip = (norms[2] + norms[3]) / 2
    _steps(net, clip=clip).noised_gradient(_alone(examples), _losses(net))
    assert _relative_error(_flat(net), _naive(net, examples, clip, 4.0)) < 1e-5


def test_unclipped_and_without_noise_a_step_is_plain_sgd_on_the_mean() -> None:
    private, plain, examples = _net(), _net(), _examples(4)
    _steps(private, clip=1e6).step(_alone(examples), _losses(private))
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    torch.stack([_loss(plain, e) for e in examples]).mean().backward()
    optimizer.step()
    for ours, theirs in zip(private.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_the_sum_is_divided_by_the_expected_and_not_by_the_drawn_number() -> None:
    few, many = _net(), _net()
    example = _examples(1)
    _steps(few, expected=1.0).noised_gradient(_alone(example), _losses(few))
    _steps(many, expected=8.0).noised_gradient(_alone(example), _losses(many))
    torch.testing.assert_close(_flat(few), 8 * _flat(many))


@settings(max_examples=30, deadline=None)
@given(
    clip=st.floats(1e-3, 10),
    scale=st.floats(1e-3, 1e3),
    seed=st.integers(0, 1000),
)
def test_one_patients_part_never_exceeds_the_clip_norm(
    clip: float, scale: float, seed: int
) -> None:
    net = _net(seed)
    examples = _examples(1, seed, scale)
    _steps(net, clip=clip, expected=1.0).noised_gradient(_alone(examples), _losses(net))
    assert float(_flat(net).double().norm()) <= clip * (1 + 1e-5)


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(0, 4), clip=st.floats(1e-2, 1), scale=st.floats(0.1, 100), at=st.integers(0, 4)
)
def test_sums_of_neighbouring_batches_differ_by_at_most_the_clip_norm(
    n: int, clip: float, scale: float, at: int
) -> None:
    without = _examples(n)
    joined = _examples(1, seed=99, scale=scale)
    with_patient = [*without[:at], *joined, *without[at:]]
    sums = []
    for examples in (without, with_patient):
        net = _net()
        steps = _steps(net, clip=clip, expected=1.0)
        steps.noised_gradient(_alone(examples), _losses(net))
        sums.append(_flat(net).double())
    assert float((sums[1] - sums[0]).norm()) <= clip * (1 + 1e-4)


def test_a_patient_with_twenty_pairs_moves_the_sum_no_further_than_one_with_one() -> None:
    others, clip = _examples(3), 0.05
    choices: list[tuple[int, PairsOfPatient]] = [(1, "one"), (20, "one"), (20, "all")]
    for n_pairs, choice in choices:
        extra = _examples(n_pairs, seed=50, scale=10.0)
        patients = ["a", "b", "c"] + ["crowded"] * n_pairs
        both = []
        for pairs, ids in ((others, patients[:3]), (others + extra, patients)):
            net = _net()
            groups = group_by_patient(range(len(pairs)), ids)
            batch = groups.draw(1.0, SecretStream.for_tests(4), pairs=choice)
            steps = _steps(net, clip=clip, expected=1.0)
            steps.noised_gradient([[pairs[i] for i in drawn] for drawn in batch], _losses(net))
            both.append(_flat(net).double())
        moved = float((both[1] - both[0]).norm())
        assert moved == pytest.approx(clip, rel=1e-4)  # clipped, and once: 20 pairs would be 20 C


def _noise_of(n: int, *, noise: float, clip: float, expected: float, key: int) -> np.ndarray:
    """What is left of a step when the clipped mean of its patients is taken away."""
    net = nn.Linear(400, 50)
    clean = copy.deepcopy(net)
    examples = torch.randn(n, 400, generator=torch.Generator().manual_seed(5))

    def loss_with(module: nn.Module) -> LossesOf[Tensor]:
        return lambda samples: module(torch.stack(list(samples))).square().mean(1)

    _steps(clean, clip=clip, expected=expected).noised_gradient(_alone(examples), loss_with(clean))
    noisy = _steps(net, noise=noise, clip=clip, expected=expected, key=key)
    noisy.noised_gradient(_alone(examples), loss_with(net))
    return (_flat(net).double() - _flat(clean).double()).numpy()


@pytest.mark.parametrize("n", [0, 1, 8])
@pytest.mark.parametrize(("noise", "clip", "expected"), [(1.0, 1.0, 4.0), (2.5, 0.1, 8.0)])
def test_noise_is_added_once_whatever_the_batch(
    n: int, noise: float, clip: float, expected: float
) -> None:
    left = _noise_of(n, noise=noise, clip=clip, expected=expected, key=n)
    std = noise * clip / expected
    chi_square = float((left**2).sum() / std**2)
    law = stats.chi2(left.size)  # 20 050 degrees: twice the noise would be off by a factor of 2
    assert MIN_P < law.cdf(chi_square) < 1 - MIN_P
    assert stats.kstest(left / std, "norm").pvalue > MIN_P


def test_noise_differs_between_steps_and_between_parameters() -> None:
    net = nn.ModuleList([nn.Linear(30, 30, bias=False), nn.Linear(30, 30, bias=False)])
    steps = _steps(net, noise=1.0)
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
        drawn.append(_flat(net))
    assert not torch.any(drawn[0] == drawn[1])


def test_torchs_global_generator_neither_determines_nor_feels_the_noise() -> None:
    state = torch.random.get_rng_state()
    net = _net()
    _steps(net, noise=1.0).noised_gradient(_alone(_examples(2)), _losses(net))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_empty_batch_is_a_noised_step_that_moves_the_weights() -> None:
    net = _net()
    before = [p.detach().clone() for p in net.parameters()]
    report = _steps(net, noise=1.0).step([], _losses(net))
    assert (report.n_patients, report.mean_loss) == (0, None)
    assert all(torch.any(p != b) for p, b in zip(net.parameters(), before, strict=True))


def test_an_unused_parameter_gets_noise_and_no_error() -> None:
    net = _net()
    _steps(net, noise=1.0).noised_gradient(_alone(_examples(2)), _losses(net))
    assert net.unused.grad is not None
    assert torch.all(net.unused.grad != 0)


def test_steps_do_not_add_up_what_was_before() -> None:
    net, examples = _net(), _examples(3)
    steps = _steps(net)
    for p in net.parameters():
        p.grad = torch.full_like(p, 1e3)  # left behind by somebody else
    steps.noised_gradient(_alone(_examples(5, seed=9)), _losses(net))
    steps.noised_gradient(_alone(examples), _losses(net))
    assert _relative_error(_flat(net), _naive(net, examples, 1.0, 4.0)) < 1e-5


def test_adamw_takes_a_private_step_from_the_gradient_left_for_it() -> None:
    net, twin, examples = _net(), _net(), _examples(3)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.1)
    steps = PrivateSteps(net, optimizer, Mechanism(0.5, 1.0, 4.0), secret=SecretStream.for_tests(8))
    reference = torch.optim.AdamW(twin.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(3):
        steps.step(_alone(examples), _losses(net))
        for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
            theirs.grad = None if ours.grad is None else ours.grad.clone()
        reference.step()
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_frozen_parameters_stay_as_they_are() -> None:
    net = _net()
    net.first.requires_grad_(requires_grad=False)
    before = net.first.weight.clone()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    PrivateSteps(net, optimizer, Mechanism(1.0, 1.0, 4.0)).step(_alone(_examples(2)), _losses(net))
    assert torch.equal(net.first.weight, before)
    assert net.first.weight.grad is None


def test_the_report_gives_the_mean_loss_of_the_drawn_patients() -> None:
    net, examples = _net(), _examples(3)
    wanted = np.mean([float(_loss(net, e).detach()) for e in examples])
    report = _steps(net).noised_gradient(_alone(examples), _losses(net))
    assert report.n_patients == 3
    assert report.mean_loss == pytest.approx(wanted)


def test_examples_are_not_changed_and_may_hold_text() -> None:
    net = _net()
    examples = [{"image": e, "pair": f"p{i}"} for i, e in enumerate(_examples(2))]
    before = copy.deepcopy(examples)

    def losses_of(samples: Sequence[dict[str, object]]) -> Tensor:
        (sample,) = samples
        image = sample["image"]
        assert isinstance(image, tuple)
        return _loss(net, image)

    _steps(net).noised_gradient(_alone(examples), losses_of)
    for found, wanted in zip(examples, before, strict=True):
        assert found["pair"] == wanted["pair"]
        for one, other in zip(found["image"], wanted["image"], strict=True):
            assert torch.equal(one, other)


def test_a_gradient_that_is_not_finite_stops_the_step_and_leaves_no_gradient() -> None:
    net = _net()
    bad = (torch.full((2, 1, 4, 4, 4), 1e30), torch.ones(1))
    steps = _steps(net, noise=1.0)
    steps.noised_gradient([], _losses(net))
    with pytest.raises(TrainingError) as caught:
        steps.step(_alone([*_examples(1), bad]), _losses(net))
    assert caught.value.public_code == "TrainingError:loss-not-finite"
    assert all(p.grad is None for p in net.parameters())
    net2 = nn.Linear(2, 1)
    with pytest.raises(TrainingError, match="gradient is not finite"):
        # finite loss, infinite slope: d sqrt(x) / dx at 0
        _steps(net2).step([(0,)], lambda _: (net2.weight * 0).sum().abs().sqrt())


def test_after_a_failed_step_the_next_one_starts_clean() -> None:
    net, examples = _net(), _examples(2)
    steps = _steps(net)
    with pytest.raises(TrainingError):
        steps.step(
            _alone(
                [*_examples(3, seed=7), (torch.full((2, 1, 4, 4, 4), torch.nan), torch.ones(1))]
            ),
            _losses(net),
        )
    steps.noised_gradient(_alone(examples), _losses(net))
    assert _relative_error(_flat(net), _naive(net, examples, 1.0, 4.0)) < 1e-5


def test_a_loss_over_a_batch_is_refused() -> None:
    net = _net()
    with pytest.raises(PrivacyError, match="expected one number each"):
        _steps(net).step(_alone(_examples(1)), lambda e: _loss(net, e[0]).repeat(3))


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
        _steps(net).step([(torch.ones(3),)], lambda samples: net(samples[0]))


def test_an_optimizer_that_is_private_already_is_refused() -> None:
    net = _net()
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
    net = _net()
    held = [*net.parameters(), nn.Parameter(torch.ones(1))] if other else [net.gate]
    with pytest.raises(PrivacyError, match="exactly those of the network"):
        PrivateSteps(net, torch.optim.SGD(held, lr=0.1), Mechanism(1.0, 1.0, 4.0))


@pytest.mark.parametrize(
    "values", [(-1.0, 1.0, 4.0), (1.0, 0.0, 4.0), (1.0, 1.0, 0.0), (math.nan, 1.0, 4.0)]
)
def test_a_mechanism_out_of_range_is_refused(values: tuple[float, float, float]) -> None:
    with pytest.raises(PrivacyError, match="expected noise_multiplier"):
        Mechanism(*values)
