from __future__ import annotations

import pytest
import torch

from nognet.config import LossConfig, NetworkConfig
from nognet.network import Batch, MTNoGNet, build_network, total_loss

SIZE = 32
CONFIGS = [
    NetworkConfig(width=4),
    NetworkConfig(width=4, stem="full"),
    NetworkConfig(width=4, attention=False, adaptive_norm="none"),
]


def _inputs(count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.rand((count, 1, SIZE, SIZE, SIZE), generator=torch.Generator().manual_seed(0))
    mask = torch.zeros_like(image)
    mask[:, :, 12:20, 12:20, 13:19] = 1.0
    return image, mask


def _batch(days: list[float]) -> Batch:
    image, mask = _inputs(len(days))
    return Batch(
        image, mask, image.flip(2), mask.flip(2), torch.tensor(days), torch.full((len(days),), 0.4)
    )


def _trained(config: NetworkConfig) -> MTNoGNet:
    network = build_network(config, torch.Generator().manual_seed(1))
    batch = _batch([200.0, 500.0])
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for _ in range(3):
        loss = total_loss(
            network(batch.image, batch.mask, batch.interval_days), batch, LossConfig()
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


@pytest.mark.parametrize("config", CONFIGS)
def test_the_untrained_network_predicts_the_baseline(config: NetworkConfig) -> None:
    network = build_network(config, torch.Generator().manual_seed(1))
    image, mask = _inputs()
    found = network(image, mask, torch.tensor([100.0, 800.0]))
    torch.testing.assert_close(found.image, image, atol=2e-5, rtol=0)
    assert torch.count_nonzero(found.displacement_vox) == 0
    assert torch.count_nonzero(found.log_growth) == 0


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("config", CONFIGS)
def test_at_0_days_the_trained_network_gives_the_baseline_bit_for_bit(
    config: NetworkConfig, bf16: bool
) -> None:
    network = _trained(config)
    image, mask = _inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        found = network(image, mask, torch.tensor([0.0, 300.0]))
    assert torch.equal(found.image[0], image[0])
    assert torch.equal(found.mask[0], mask[0])
    assert torch.count_nonzero(found.displacement_vox[0]) == 0
    assert torch.count_nonzero(found.residual[0]) == 0
    assert not torch.equal(found.image[1], image[1])
    assert found.image.dtype == torch.float32


def test_as_the_interval_shrinks_the_prediction_tends_to_the_baseline() -> None:
    network = _trained(CONFIGS[0])
    image, mask = _inputs(1)
    errors = [
        (network(image, mask, torch.tensor([days])).image - image).abs().max().item()
        for days in (300.0, 30.0, 3.0, 0.3)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.05 * errors[0]


@pytest.mark.parametrize("config", CONFIGS)
def test_every_parameter_learns(config: NetworkConfig) -> None:
    network = _trained(config)  # from zero-started heads no gradient passes at the first step
    batch = _batch([200.0, 500.0])
    found = network(batch.image, batch.mask, batch.interval_days)
    total_loss(found, batch, LossConfig()).mean().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_shapes_are_those_of_the_prediction() -> None:
    network = build_network(CONFIGS[0], torch.Generator().manual_seed(1))
    image, mask = _inputs()
    found = network(image, mask, torch.tensor([100.0, 800.0]))
    assert found.image.shape == found.mask.shape == found.residual.shape == image.shape
    assert found.displacement_vox.shape == (2, 3, SIZE, SIZE, SIZE)
    assert [d.scale for d in found.deep] == [2, 4]
    assert [d.image.shape[-1] for d in found.deep] == [SIZE // 2, SIZE // 4]


def test_samples_of_a_batch_do_not_see_each_other() -> None:
    network = _trained(CONFIGS[0])
    image, mask = _inputs(2)
    together = network(image, mask, torch.tensor([100.0, 800.0]))
    alone = network(image[1:], mask[1:], torch.tensor([800.0]))
    torch.testing.assert_close(together.image[1:], alone.image, atol=1e-5, rtol=0)


def test_the_same_generator_gives_the_same_bits() -> None:
    one, two = (build_network(CONFIGS[0], torch.Generator().manual_seed(7)) for _ in range(2))
    for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_building_draws_nothing_from_the_global_generator() -> None:
    before = torch.random.get_rng_state()
    build_network(CONFIGS[0], torch.Generator().manual_seed(7))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_all_parameters_are_initialised_and_finite() -> None:
    network = build_network(CONFIGS[1], torch.Generator().manual_seed(7))
    for name, tensor in network.state_dict().items():
        assert torch.isfinite(tensor).all(), name
        assert tensor.abs().max() < 10, name


def test_the_growth_rate_keeps_its_bound() -> None:
    config = NetworkConfig(width=4, max_log_growth_per_year=1.5)
    network = build_network(config, torch.Generator().manual_seed(1))
    torch.nn.init.constant_(network.growth.outer.bias, 100.0)
    image, mask = _inputs(1)
    found = network(image, mask, torch.tensor([365.25]))
    assert found.log_growth.item() == pytest.approx(1.5)


def test_inputs_are_left_unchanged() -> None:
    network = _trained(CONFIGS[0])
    image, mask = _inputs()
    before = image.clone(), mask.clone()
    network(image, mask, torch.tensor([100.0, 800.0]))
    assert torch.equal(image, before[0])
    assert torch.equal(mask, before[1])
