from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nognet.config import LossConfig
from nognet.network import Batch, Prediction, Prior, loss_terms, total_loss
from nognet.network.baselines import BASELINES, Baseline

SIZE = 32
WIDTH = 8
PEERS = list(BASELINES.values())

peers = pytest.mark.parametrize("peer", PEERS, ids=list(BASELINES))


def _batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand((2, 1, SIZE, SIZE, SIZE), generator=generator)
    image = F.avg_pool3d(noise, 5, 1, 2)
    mask, target, earlier = (torch.zeros_like(image) for _ in range(3))
    mask[:, :, 12:20, 12:20, 13:19] = 1.0
    target[:, :, 11:21, 11:21, 12:20] = 1.0
    earlier[:, :, 13:19, 13:19, 13:19] = 1.0
    days = torch.tensor([200.0, 500.0])
    prior = Prior(image.roll(1, 2), earlier, torch.tensor([90.0, 0.0]))
    return Batch(image, mask, 0.8 * image + 0.2 * target, target, days, days / 500, prior)


def _made(peer: Baseline, seed: int = 1) -> nn.Module:
    return peer.build(WIDTH, torch.Generator().manual_seed(seed))


def _loss(network: nn.Module, batch: Batch, peer: Baseline) -> torch.Tensor:
    found = network(batch.image, batch.mask, batch.interval_days, batch.prior)
    return total_loss(found, batch, peer.loss).mean()


def _train(network: nn.Module, batch: Batch, peer: Baseline, steps: int) -> list[float]:
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(steps):
        loss = _loss(network, batch, peer)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_peers_are_found_by_name_and_cannot_be_changed() -> None:
    assert list(BASELINES) == ["warpnet", "unet", "nofonet", "wnet"]
    assert all(name == peer.name for name, peer in BASELINES.items())
    with pytest.raises(FrozenInstanceError):
        PEERS[0].default_width = 4  # type: ignore[misc]  # what must fail is the point


@peers
def test_terms_that_are_ours_weigh_nothing(peer: Baseline) -> None:
    ours = ("region_l1", "growth_rate", "growth_spread", "segmentation", "deep_supervision")
    assert all(getattr(peer.loss, name) == 0 for name in ours)
    assert peer.loss.dice > 0
    batch = _batch()
    still = torch.zeros((2, 3, SIZE, SIZE, SIZE))
    exact = Prediction(batch.target_image, batch.target_mask, still, torch.zeros_like(batch.image))
    assert set(loss_terms(exact, batch)) == set(LossConfig.model_fields)
    torch.testing.assert_close(total_loss(exact, batch, peer.loss), torch.zeros(2))


@peers
@pytest.mark.parametrize("bf16", [False, True])
def test_shapes_and_dtypes(peer: Baseline, bf16: bool) -> None:
    batch = _batch()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        found = _made(peer)(batch.image, batch.mask, batch.interval_days)
    for volume in (found.image, found.mask, found.residual):
        assert volume.shape == batch.image.shape
        assert volume.dtype == torch.float32
    assert found.displacement_vox.shape == (2, 3, SIZE, SIZE, SIZE)
    assert found.displacement_vox.dtype == torch.float32
    assert 0 <= found.mask.min() <= found.mask.max() <= 1 + 1e-6  # sampling rounds
    assert found.log_growth is found.log_growth_spread is found.baseline_mask is None
    assert found.deep == found.attention == ()


@peers
def test_the_loss_falls_and_every_parameter_learns(peer: Baseline) -> None:
    network, batch = _made(peer), _batch()
    losses = _train(network, batch, peer, steps=8)
    assert losses[-1] < losses[0] - 0.01
    network.zero_grad()
    _loss(network, batch, peer).backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


@peers
def test_first_weights_come_from_the_generator_alone(peer: Baseline) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = _made(peer).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    again, other = _made(peer).state_dict(), _made(peer, seed=2).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@peers
def test_samples_of_a_batch_do_not_see_each_other(peer: Baseline) -> None:
    network, batch = _made(peer), _batch()
    _train(network, batch, peer, steps=2)
    changed = batch.select([0, 1]).mapped(torch.clone)
    assert changed.prior is not None
    for tensor in (changed.image, changed.mask, changed.interval_days, changed.prior.image):
        tensor[1] = tensor[1].flip(0) * 0.5
    found, beside = (
        network(one.image, one.mask, one.interval_days, one.prior) for one in (batch, changed)
    )
    for name in ("image", "mask", "displacement_vox", "residual"):
        torch.testing.assert_close(getattr(beside, name)[0], getattr(found, name)[0])
    assert not torch.equal(beside.image[1], found.image[1])


@peers
def test_a_trained_network_heeds_the_interval_and_leaves_its_inputs_alone(peer: Baseline) -> None:
    network, batch = _made(peer), _batch()
    kept = batch.mapped(torch.clone)
    _train(network, batch, peer, steps=3)
    sooner = replace(batch, interval_days=batch.interval_days / 4)
    found, early = (
        network(one.image, one.mask, one.interval_days, one.prior) for one in (batch, sooner)
    )
    assert not torch.equal(found.image, early.image)
    for field in fields(batch):
        if field.name != "prior":
            assert torch.equal(getattr(batch, field.name), getattr(kept, field.name))


@peers
def test_no_norm_over_the_batch(peer: Baseline) -> None:
    norms = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
    assert not any(isinstance(module, norms) for module in _made(peer).modules())
