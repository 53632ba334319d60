from __future__ import annotations

import math

import pytest
import torch

from nognet.config import LossConfig, NetworkConfig
from nognet.metrics.deformation import folded_fraction
from nognet.network import Batch, MTNoGNet, Prior, build_network, total_loss
from nognet.network.growth import past_growth
from nognet.network.losses import soft_dice_loss

SIZE = 32
ALL_PARTS = NetworkConfig(width=4, attention=True, adaptive_norm="spatial", deep_supervision=True)
CONFIGS = [
    ALL_PARTS,
    NetworkConfig(width=4),
    ALL_PARTS.model_copy(update={"stem": "full"}),
    NetworkConfig(width=4, attention=False, adaptive_norm="none"),
    NetworkConfig(width=4, adaptive_norm="interval", displacement="direct"),
    NetworkConfig(width=4, texture=False, deep_supervision=False),
    NetworkConfig(width=4, prior_scan=True, missing_mask="predicted"),
]


def _inputs(count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.rand((count, 1, SIZE, SIZE, SIZE), generator=torch.Generator().manual_seed(0))
    mask = torch.zeros_like(image)
    mask[:, :, 12:20, 12:20, 13:19] = 1.0
    return image, mask


def _batch(days: list[float]) -> Batch:
    image, mask = _inputs(len(days))
    return Batch(
        image=image,
        mask=mask,
        target_image=image.flip(2),
        target_mask=mask.flip(2),
        interval_days=torch.tensor(days),
        log_growth=torch.full((len(days),), 0.4),
        prior=Prior(image.flip(3), mask.roll(1, 3), torch.tensor([300.0] * len(days))),
    )


def _trained(config: NetworkConfig) -> MTNoGNet:
    network = build_network(config, torch.Generator().manual_seed(1))
    batch = _batch([200.0, 500.0])
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for _ in range(3):
        found = network(batch.image, batch.mask, batch.interval_days, batch.prior)
        loss = total_loss(found, batch, LossConfig()).mean()
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
    assert found.log_growth[0] == found.log_growth_spread[0] == 0
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
    found = network(batch.image, batch.mask, batch.interval_days, batch.prior)
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


def test_a_nodule_that_does_not_change_rests_however_fast_it_would() -> None:
    network = build_network(NetworkConfig(width=4), torch.Generator().manual_seed(1))
    image, mask = _inputs(1)
    rates = []
    for moves in (-20.0, 0.0, 20.0):
        network.growth.outer.bias.data = torch.tensor([0.5, moves])
        rates.append(network(image, mask, torch.tensor([365.25])).log_growth.item())
    assert rates[0] == pytest.approx(0.0, abs=1e-6)
    assert rates[1] == pytest.approx(rates[2] / 2)
    assert rates[2] == pytest.approx(3.0 * math.tanh(3.0 * 0.5 / 3.0))


def test_inputs_are_left_unchanged() -> None:
    network = _trained(CONFIGS[0])
    image, mask = _inputs()
    before = image.clone(), mask.clone()
    network(image, mask, torch.tensor([100.0, 800.0]))
    assert torch.equal(image, before[0])
    assert torch.equal(mask, before[1])


def test_the_velocity_field_does_not_fold_where_the_direct_one_does() -> None:
    folded = {}
    for kind in ("svf", "direct"):
        config = NetworkConfig(width=4, displacement=kind, integration_steps=7)
        network = build_network(config, torch.Generator().manual_seed(1)).eval()
        generator = torch.Generator().manual_seed(2)
        torch.nn.init.normal_(network.at_half.motion.weight, std=0.08, generator=generator)
        image, mask = _inputs(1)
        with torch.no_grad():
            field = network(image, mask, torch.tensor([400.0])).displacement_vox
        assert field.abs().max() > 0.5
        folded[kind] = folded_fraction(field).item()
    assert folded["direct"] > 0.001
    assert folded["svf"] == 0


def test_attention_maps_are_distributions_and_outside_training_only() -> None:
    network = build_network(CONFIGS[0], torch.Generator().manual_seed(1))
    image, mask = _inputs()
    days = torch.tensor([100.0, 800.0])
    assert network(image, mask, days).attention == ()
    maps = network.eval()(image, mask, days).attention
    assert [(m.task, m.scale) for m in maps] == [
        ("deformation", 8), ("texture", 8), ("deformation", 4), ("texture", 4),
    ]  # fmt: skip
    for one in maps:
        torch.testing.assert_close(one.weights.sum(-1), torch.ones(one.weights.shape[:2]))


def test_a_missing_prior_scan_is_the_baseline_at_0_days() -> None:
    network = _trained(CONFIGS[-1])
    image, mask = _inputs()
    days = torch.tensor([100.0, 800.0])
    absent = network(image, mask, days)
    again = network(image, mask, days, Prior.baseline_again(image, mask))
    assert torch.equal(absent.image, again.image)
    earlier = Prior(image, mask.roll(2, 3), torch.tensor([300.0, 0.0]))
    other = network(image, mask, days, earlier)
    assert not torch.equal(other.image[0], absent.image[0])


def test_another_samples_prior_scan_changes_nothing_where_there_is_neither_prior_nor_mask() -> None:
    network = _trained(CONFIGS[-1])
    assert network.segmentation is not None
    with torch.no_grad():
        network.segmentation.outer.bias.fill_(3.0)  # it finds a nodule
    image, mask = _inputs()
    mask[0] = 0.0
    days, stacked = torch.tensor([100.0, 800.0]), torch.tensor([0.0, 300.0])
    assert network(image, mask, days).baseline_mask[0].max() > 0.5
    alone = network(image[:1], mask[:1], days[:1])
    beside = network(image, mask, days, Prior(image, mask, stacked))
    torch.testing.assert_close(beside.image[:1], alone.image, atol=1e-5, rtol=0)
    torch.testing.assert_close(beside.log_growth[:1], alone.log_growth, atol=1e-5, rtol=0)


def test_past_growth_is_the_rate_between_the_scans() -> None:
    mask = torch.zeros(3, 1, 8, 8, 8)
    mask[:, :, :4, :4, :4] = 1.0
    before = torch.zeros_like(mask)
    before[:, :, :4, :4, :2] = 1.0
    prior = Prior(mask, before, torch.tensor([365.25, 730.5, 0.0]))
    expected = torch.tensor([[math.log(2), 1.0], [math.log(2) / 2, 1.0], [0.0, 0.0]])
    torch.testing.assert_close(past_growth(mask, prior, 3.0), expected)
    assert past_growth(mask, prior, 0.1)[0, 0] == pytest.approx(0.1)


def test_an_absent_mask_is_the_networks_own_segmentation_or_zeros() -> None:
    image, mask = _inputs()
    none = torch.zeros_like(mask)
    days = torch.tensor([0.0, 400.0])
    zeros = _trained(CONFIGS[0])(image, none, days)
    assert zeros.baseline_mask is None
    assert torch.count_nonzero(zeros.mask) == 0
    assert torch.isfinite(zeros.image).all()
    network = _trained(CONFIGS[-1])
    assert network.segmentation is not None
    torch.nn.init.constant_(network.segmentation.outer.bias, 10.0)
    found = network(image, none, days)
    assert found.baseline_mask is not None
    assert torch.equal(found.mask[0], (found.baseline_mask[0] > 0.5).float())
    assert torch.equal(found.image[0], image[0])
    given = network(image, mask, days)
    assert torch.equal(given.mask[0], mask[0])


def test_the_segmentation_learns_a_ball() -> None:
    image, mask = _inputs(1)
    image = 0.2 + 0.05 * image + 0.5 * mask
    network = build_network(CONFIGS[-1], torch.Generator().manual_seed(1)).segmentation
    assert network is not None
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-2)
    for _ in range(40):
        loss = soft_dice_loss(network(image), mask).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_what_is_switched_off_has_no_parameters() -> None:
    names = {name for name, _ in MTNoGNet(CONFIGS[5]).named_parameters()}
    assert not [name for name in names if "texture" in name or "refinement" in name]
    assert not [name for name in names if "exchange" in name or "segmentation" in name]
