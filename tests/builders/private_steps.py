"""A small 3D network, its patients, and private steps on them; a naive loop to compare with."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from nognet.privacy.dp_sgd import Mechanism, PrivateSteps
from nognet.privacy.patient_gradients import LossesOf, SampleT
from nognet.privacy.secret import SecretStream

Example = tuple[Tensor, Tensor]


class Net(nn.Module):
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


def make_net(seed: int = 0) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net()


def make_examples(n: int, seed: int = 1, scale: float = 1.0) -> list[Example]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (scale * torch.rand(2, 1, 4, 4, 4, generator=generator), torch.rand(1, generator=generator))
        for _ in range(n)
    ]


def loss_of(net: nn.Module, example: Example) -> Tensor:
    images, interval = example
    loss: Tensor = (net(images[:1], interval) - images[1:]).square().mean()
    return loss


def losses_of(net: nn.Module) -> LossesOf[Example]:
    return lambda examples: torch.stack([loss_of(net, example) for example in examples])


def alone(examples: Iterable[SampleT]) -> list[tuple[SampleT]]:
    """Patients of one sample each."""
    return [(example,) for example in examples]


def private_steps(
    net: nn.Module, *, noise: float = 0.0, clip: float = 1.0, expected: float = 4.0, key: int = 0
) -> PrivateSteps:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    mechanism = Mechanism(noise, clip, expected)
    return PrivateSteps(net, optimizer, mechanism, secret=SecretStream.for_tests(key))


def flat_gradient(net: nn.Module) -> Tensor:
    parts = [p.grad.flatten() for p in net.parameters() if p.grad is not None]
    assert len(parts) == len(list(net.parameters()))
    return torch.cat(parts)


def own_gradient(net: nn.Module, example: Example) -> Tensor:
    """One patient's gradient, flat, by nothing but backward() on a fresh copy."""
    twin = copy.deepcopy(net)
    loss_of(twin, example).backward()  # type: ignore[no-untyped-call]  # torch's own
    return torch.cat(
        [torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in twin.parameters()]
    ).double()


def naive_mean(net: nn.Module, examples: Sequence[Example], clip: float, expected: float) -> Tensor:
    total = torch.zeros(sum(p.numel() for p in net.parameters()), dtype=torch.float64)
    for example in examples:
        gradient = own_gradient(net, example)
        total += gradient * min(1.0, clip / (float(gradient.norm()) + 1e-6))  # Opacus' guard
    return total / expected


def relative_error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm())
