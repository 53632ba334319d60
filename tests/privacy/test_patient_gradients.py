"""Gradients of a batch's samples together, against a batch-of-one loop by plain autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nognet.config import LossConfig, NetworkConfig, RoiConfig
from nognet.errors import PrivacyError, TrainingError
from nognet.fit.tensors import stack_pairs
from nognet.fit.weights import initial_weights, network_with
from nognet.network import total_loss
from nognet.phantom.roi import make_roi_pairs
from nognet.privacy.dp_sgd import Mechanism, PrivateSteps
from nognet.privacy.patient_gradients import (
    gradients_one_by_one,
    gradients_together,
    why_not_together,
)
from nognet.privacy.secret import SecretStream

COUNT = 3
VOLUME = (4, 5, 6, 7)
Layer = tuple[Callable[[], nn.Module], tuple[int, ...]]


def conv(*args: int, **named: object) -> Layer:
    return lambda: nn.Conv3d(*args, **named), VOLUME  # type: ignore[arg-type]  # any of them


COVERED: dict[str, Layer] = {
    "conv": conv(4, 6, 3),
    "conv-of-1": conv(4, 6, 1),
    "conv-of-1-stride-2": conv(4, 6, 1, stride=2),
    "conv-padded": conv(4, 6, 3, padding=1),
    "conv-stride": conv(4, 6, 3, stride=2, padding=1),
    "conv-uneven": conv(4, 6, kernel_size=(1, 3, 2), stride=(1, 2, 1), padding=(0, 1, 1)),
    "conv-dilated": conv(4, 6, 3, dilation=2, padding=2),
    "conv-groups": conv(4, 6, 3, groups=2, padding=1),
    "conv-depthwise": conv(4, 8, 3, groups=4, padding=1),
    "conv-without-bias": conv(4, 6, 3, padding=1, bias=False),
    "conv-replicate": conv(4, 6, 3, padding=1, padding_mode="replicate"),
    "conv-reflect": conv(4, 6, 3, padding=1, padding_mode="reflect"),
    "conv-circular": conv(4, 6, 3, padding=1, padding_mode="circular"),
    "linear": (lambda: nn.Linear(5, 3), (5,)),
    "linear-without-bias": (lambda: nn.Linear(5, 3, bias=False), (5,)),
    "linear-of-tokens": (lambda: nn.Linear(5, 3), (6, 5)),
    "linear-of-a-grid": (lambda: nn.Linear(5, 3), (2, 3, 5)),
    "group-norm": (lambda: nn.GroupNorm(2, 4), VOLUME),
    "instance-like-norm": (lambda: nn.GroupNorm(4, 4), VOLUME),
    "group-norm-of-vectors": (lambda: nn.GroupNorm(2, 4), (4, 9)),
}


class _Frozen(nn.Module):
    """A layer behind a nonlinearity, so that its input has a gradient too."""

    def __init__(self, layer: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.before = nn.Linear(shape[-1], shape[-1])
        self.layer = layer

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.layer(torch.tanh(self.before(image)))
        return out


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return make().double()


def samples_of(shape: tuple[int, ...], count: int = COUNT) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return list(torch.randn(count, *shape, generator=generator, dtype=torch.float64))


def losses_with(module: nn.Module) -> Callable[[Sequence[Tensor]], Tensor]:
    def losses(samples: Sequence[Tensor]) -> Tensor:
        out: Tensor = module(torch.stack(list(samples)))
        return (out.square() + torch.sin(out)).flatten(1).mean(1)

    return losses


def trained(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def assert_agree(module: nn.Module, samples: Sequence[Tensor]) -> None:
    parameters, losses = trained(module), losses_with(module)
    wanted, wanted_losses = gradients_one_by_one(parameters, samples, losses)
    found, found_losses = gradients_together(parameters, samples, losses)
    torch.testing.assert_close(found_losses, wanted_losses)
    for parameter, one, other in zip(parameters, found, wanted, strict=True):
        assert one.shape == (len(samples), *parameter.shape)
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert why_not_together(parameters, samples, losses) is None


@pytest.mark.parametrize("name", COVERED)
def test_each_kind_of_layer_agrees_with_a_batch_of_one_loop(name: str) -> None:
    make, shape = COVERED[name]
    assert_agree(seeded(lambda: _Frozen(make(), shape)), samples_of(shape))
    assert_agree(seeded(make), samples_of(shape))  # at the front: its input has no gradient


class _Twice(nn.Module):
    """One convolution run twice, and its weight used by another one too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(4, 4, 3, padding=1)
        self.tied = nn.Conv3d(4, 4, 3, padding=1)
        self.tied.weight = self.conv.weight

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.tied(torch.relu(self.conv(torch.relu(self.conv(image)))))
        return out + F.conv3d(image, self.conv.weight, padding=1)


def test_a_parameter_used_several_times_has_the_sum() -> None:
    assert_agree(seeded(_Twice), samples_of(VOLUME))


class _Subclass(nn.Conv3d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        return 2 * super().forward(input)


def test_a_subclass_with_a_forward_of_its_own_is_met_too() -> None:
    assert_agree(seeded(lambda: _Subclass(4, 2, 3)), samples_of(VOLUME))


def test_a_frozen_parameter_has_none_and_an_unused_one_zeros() -> None:
    module = seeded(lambda: nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2)))
    module.get_parameter("0.weight").requires_grad_(requires_grad=False)
    assert_agree(module, samples_of((5,)))
    unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
    parameters = [*trained(module), unused]
    found, _ = gradients_together(parameters, samples_of((5,)), losses_with(module))
    assert torch.equal(found[-1], torch.zeros(COUNT, 2, dtype=torch.float64))


class _OwnParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 3)
        self.gate = nn.Parameter(torch.ones(1))

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.gate * self.linear(image)
        return out


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.attention(tokens, tokens, tokens)[0]
        return out


class _Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 3)

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = checkpoint(self.linear, image, use_reentrant=False)
        return out


class _RowsAreTokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.linear(tokens.flatten(0, 1))
        return out.reshape(*tokens.shape[:2], 3)


class _RowsAreMoved(nn.Module):
    """As many tokens as samples, so that the number of rows looks right."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.linear(tokens.transpose(0, 1))
        return out.transpose(0, 1)


class _MixesSamples(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 3)

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.linear(image - image.mean(0, keepdim=True))
        return out


NOT_COVERED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "own parameter": (_OwnParameter, (5,), "outside of conv3d"),
    "attention": (_Attention, (6, 4), "outside of conv3d"),
    "transposed": (lambda: nn.ConvTranspose3d(4, 2, 3), VOLUME, "outside of conv3d"),
    "padding in words": (lambda: nn.Conv3d(4, 2, 3, padding="same"), VOLUME, "outside of conv3d"),
    "flat convolution": (lambda: nn.Conv2d(4, 2, 3), (4, 6, 7), "outside of conv3d"),
    "layer norm": (lambda: nn.LayerNorm(5), (5,), "outside of conv3d"),
    "spectral norm": (
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(5, 3)).eval(),
        (5,),
        "outside of conv3d",
    ),
    "rows are tokens": (_RowsAreTokens, (6, 5), "18 rows for 3 samples"),
}


@pytest.mark.parametrize("name", NOT_COVERED)
def test_what_no_rule_covers_is_refused_together_and_right_one_by_one(name: str) -> None:
    make, shape, words = NOT_COVERED[name]
    module, samples = seeded(make), samples_of(shape)
    parameters, losses = trained(module), losses_with(module)
    with pytest.raises(PrivacyError, match=words) as caught:
        gradients_together(parameters, samples, losses)
    assert caught.value.public_code == "PrivacyError:gradients-together"
    assert all(parameter.grad is None for parameter in parameters)
    assert words in str(why_not_together(parameters, samples, losses))
    found, _ = gradients_one_by_one(parameters, samples, losses)
    for row, sample in enumerate(samples):
        module.zero_grad()
        losses([sample]).sum().backward()  # type: ignore[no-untyped-call]  # torch's own
        for parameter, gradients in zip(parameters, found, strict=True):
            torch.testing.assert_close(gradients[row], parameter.grad)


def test_what_torch_runs_again_in_the_backward_pass_goes_one_by_one() -> None:
    module, samples = seeded(_Checkpointed), samples_of((5,))
    reason = why_not_together(trained(module), samples, losses_with(module))
    assert reason == "torch refuses it (CheckpointError)"


@pytest.mark.parametrize(("make", "shape"), [(_MixesSamples, (5,)), (_RowsAreMoved, (COUNT, 5))])
def test_samples_that_lean_on_one_another_are_found_before_the_round(
    make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    module, samples = seeded(make), samples_of(shape)
    reason = why_not_together(trained(module), samples, losses_with(module))
    assert "depends on the others" in str(reason)


def test_an_embedding_is_right_one_by_one() -> None:
    module = seeded(lambda: nn.Embedding(7, 3))
    samples = list(torch.tensor([[0, 2], [2, 2], [6, 1]]))
    found, _ = gradients_one_by_one(trained(module), samples, losses_with(module))
    assert "outside of conv3d" in str(
        why_not_together(trained(module), samples, losses_with(module))
    )
    used = (found[0].abs().sum(2) > 0).nonzero().tolist()
    assert used == [[0, 0], [0, 2], [1, 2], [2, 1], [2, 6]]


def test_nothing_can_be_shown_with_one_sample() -> None:
    module = seeded(lambda: nn.Linear(5, 3))
    reason = why_not_together(trained(module), samples_of((5,), 1), losses_with(module))
    assert reason is not None


def test_a_loss_that_is_not_finite_is_an_error_both_ways() -> None:
    module = seeded(lambda: nn.Linear(5, 3))
    samples = [*samples_of((5,)), torch.full((5,), torch.nan, dtype=torch.float64)]
    for find in (gradients_one_by_one, gradients_together):
        with pytest.raises(TrainingError, match="loss is not finite"):
            find(trained(module), samples, losses_with(module))


NETWORKS = {
    "default": NetworkConfig(width=4),
    "full": NetworkConfig(width=4, stem="full", attention=True, deep_supervision=True),
    "spatial": NetworkConfig(width=4, adaptive_norm="spatial", prior_scan=True),
    "plain": NetworkConfig(width=4, adaptive_norm="none", displacement="direct"),
    "segments": NetworkConfig(width=4, missing_mask="predicted"),
    "warps": NetworkConfig(width=4, texture=False),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_of_the_network_agrees_with_a_batch_of_one_loop(name: str) -> None:
    config, roi = NETWORKS[name], RoiConfig(size_vox=32)
    batch = stack_pairs(make_roi_pairs(COUNT, seed=2, roi=roi)[:COUNT])
    generator = torch.Generator().manual_seed(7)
    weights = {  # away from the start, at which whole heads have no gradient
        key: value + 0.05 * torch.randn(value.shape, generator=generator)
        for key, value in initial_weights(config, 1).items()
    }
    network = network_with(config, weights, torch.device("cpu")).train()

    def losses(indices: Sequence[int]) -> Tensor:
        chosen = batch.select(indices)
        prediction = network(chosen.image, chosen.mask, chosen.interval_days, chosen.prior)
        return total_loss(prediction, chosen, LossConfig())

    parameters = trained(network)
    wanted, _ = gradients_one_by_one(parameters, range(COUNT), losses)
    found, _ = gradients_together(parameters, range(COUNT), losses)
    whole = torch.cat([gradient.flatten(1) for gradient in wanted], 1).norm(dim=1)
    for one, other in zip(found, wanted, strict=True):
        off = (one - other).flatten(1).norm(dim=1)  # float32: relative to the whole gradient
        assert bool((off <= 1e-5 * whole).all())


@pytest.mark.parametrize("edge", [2, 4, 6])
def test_a_bf16_weight_gradient_is_right_at_a_depth_of_two_as_well(edge: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Conv3d(8, 8, 3, padding=1)
    samples = list(torch.randn(4, 8, edge, edge, edge, generator=torch.Generator().manual_seed(1)))
    exact, _ = gradients_together(trained(module), samples, losses_with(module))

    def losses(some: Sequence[Tensor]) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return losses_with(module)(some).float()

    found, _ = gradients_together(trained(module), samples, losses)
    for one, other in zip(found, exact, strict=True):
        assert float((one - other).norm() / other.norm()) < 0.03


@pytest.mark.parametrize("at_once", [2, 3, 4, 50])
def test_a_step_has_the_same_gradient_however_many_go_together(at_once: int) -> None:
    samples = samples_of((5,), 9)
    patients = [samples[:2], samples[2:3], samples[3:8], samples[8:]]  # one with five
    found = []
    for count in (1, at_once):
        module = seeded(lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)))
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        secret = SecretStream.for_tests(1)
        mechanism = Mechanism(0.3, 0.5, 4.0)
        steps = PrivateSteps(module, optimizer, mechanism, at_once=count, secret=secret)
        report = steps.noised_gradient(patients, losses_with(module))
        assert report.n_patients == 4
        found.append([report.mean_loss, *(p.grad for p in module.parameters())])
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)


def test_a_patient_with_several_samples_counts_with_the_mean_gradient_clipped_once() -> None:
    samples, clip = samples_of((5,), 5), 0.05
    patients = [samples[:4], samples[4:]]
    module = seeded(lambda: nn.Linear(5, 3))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    steps = PrivateSteps(module, optimizer, Mechanism(0.0, clip, 1.0), at_once=3)
    steps.noised_gradient(patients, losses_with(module))
    total = torch.zeros(18, dtype=torch.float64)
    for mine in patients:
        mean = torch.stack([losses_with(module)([sample]) for sample in mine]).mean()
        gradient = torch.autograd.grad(mean, list(module.parameters()))
        flat = torch.cat([part.flatten() for part in gradient])
        total += flat * min(1.0, clip / (float(flat.norm()) + 1e-6))  # Opacus' guard
    found = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
    torch.testing.assert_close(found, total, rtol=1e-6, atol=1e-9)


def test_a_patient_without_samples_and_no_room_for_one_are_refused() -> None:
    module = seeded(lambda: nn.Linear(5, 3))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    with pytest.raises(PrivacyError, match="at_once is 0"):
        PrivateSteps(module, optimizer, Mechanism(1.0, 1.0, 1.0), at_once=0)
    steps = PrivateSteps(module, optimizer, Mechanism(1.0, 1.0, 1.0), at_once=2)
    with pytest.raises(PrivacyError, match="without samples"):
        steps.noised_gradient([samples_of((5,)), []], losses_with(module))
