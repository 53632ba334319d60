from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from nognet.config import LossConfig
from nognet.network import Batch, DeepPrediction, Prediction, loss_terms, total_loss
from nognet.network.losses import (
    correlation,
    region_of_interest,
    segmentation_loss,
    smoothness,
    soft_dice_loss,
)

N = 8


def _batch(count: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(0)
    shape = (count, 1, N, N, N)
    return Batch(
        image=torch.rand(shape, generator=generator),
        mask=(torch.rand(shape, generator=generator) > 0.7).float(),
        target_image=torch.rand(shape, generator=generator),
        target_mask=(torch.rand(shape, generator=generator) > 0.7).float(),
        interval_days=torch.full((count,), 365.25),
        log_growth=torch.linspace(-0.1, 0.5, count),
    )


def _perfect(batch: Batch) -> Prediction:
    count = batch.image.shape[0]
    return Prediction(
        image=batch.target_image,
        mask=batch.target_mask,
        displacement_vox=torch.zeros(count, 3, N, N, N),
        residual=torch.zeros(count, 1, N, N, N),
        log_growth=batch.log_growth,
        deep=tuple(
            DeepPrediction(
                scale,
                torch.nn.functional.avg_pool3d(batch.target_image, scale),
                torch.nn.functional.avg_pool3d(batch.target_mask, scale),
            )
            for scale in (2, 4)
        ),
    )


def test_every_term_has_a_weight_and_every_weight_a_term() -> None:
    terms = loss_terms(_perfect(_batch()), _batch())
    assert set(terms) == set(LossConfig.model_fields)


def test_a_perfect_prediction_costs_nothing_but_the_deep_soft_dice() -> None:
    batch = _batch()
    terms = loss_terms(_perfect(batch), batch)
    for name in set(terms) - {"deep_supervision"}:
        assert terms[name].abs().max() < 1e-6, name


def test_a_constant_error_costs_its_size() -> None:
    batch = _batch()
    perfect = _perfect(batch)
    off = dataclasses.replace(
        perfect,
        image=perfect.image + 0.1,
        residual=perfect.residual - 0.2,
        log_growth=batch.log_growth + 0.5,
        log_growth_spread=torch.full((2,), 0.25),
    )
    terms = loss_terms(off, batch)
    torch.testing.assert_close(terms["image_l1"], torch.full((2,), 0.1))
    torch.testing.assert_close(terms["image_mse"], torch.full((2,), 0.01))
    torch.testing.assert_close(terms["region_l1"], torch.full((2,), 0.1))
    torch.testing.assert_close(terms["residual"], torch.full((2,), 0.2))
    torch.testing.assert_close(terms["growth_rate"], torch.full((2,), 0.5 - 0.1))
    torch.testing.assert_close(
        terms["growth_spread"], torch.full((2,), 0.5 / 0.25 + math.log(0.25))
    )


def test_the_spread_that_costs_least_is_the_error_and_the_error_gets_no_gradient() -> None:
    batch = _batch(1)
    growth = (batch.log_growth + 0.4).requires_grad_()
    costs = []
    for spread in (0.2, 0.4, 0.8):
        found = dataclasses.replace(
            _perfect(batch), log_growth=growth, log_growth_spread=torch.tensor([spread])
        )
        costs.append(loss_terms(found, batch)["growth_spread"])
    assert costs[1] < min(costs[0], costs[2])
    assert not costs[1].requires_grad


def test_correlation_is_numpys() -> None:
    batch = _batch()
    found = correlation(batch.image, batch.target_image)
    for i in range(2):
        pair = batch.image[i].flatten().numpy(), batch.target_image[i].flatten().numpy()
        assert found[i].item() == pytest.approx(np.corrcoef(*pair)[0, 1], abs=1e-5)
    torch.testing.assert_close(correlation(batch.image, 0.5 * batch.image + 0.1), torch.ones(2))
    assert correlation(batch.image * 0 + 0.5, batch.image).abs().max() == 0


def test_the_own_segmentation_costs_only_where_there_is_a_mask() -> None:
    mask = torch.zeros(2, 1, 4, 4, 4)
    mask[0, ..., :2] = 1.0
    half = torch.full_like(mask, 0.5)
    expected = torch.tensor([soft_dice_loss(half, mask)[0].item(), 0.0])
    torch.testing.assert_close(segmentation_loss(half, mask), expected)
    assert segmentation_loss(None, mask).tolist() == [0.0, 0.0]


def test_soft_dice_has_its_closed_form() -> None:
    a = torch.zeros(1, 1, 4, 4, 4)
    b = torch.zeros(1, 1, 4, 4, 4)
    a[..., :2], b[..., 1:3] = 1.0, 1.0
    assert soft_dice_loss(a, b).item() == pytest.approx(1 - (2 * 16 + 1) / (64 + 1))
    assert soft_dice_loss(a * 0, b * 0).item() == 0.0


def test_a_linear_field_has_the_smoothness_of_its_slope() -> None:
    field = torch.zeros(1, 3, 5, 5, 5)
    field[:, 1] = 0.3 * torch.arange(5.0)
    assert smoothness(field).item() == pytest.approx(0.3**2 / 3)


def test_regional_focus_is_the_union_and_a_rim_of_two_voxels() -> None:
    mask, target = torch.zeros(1, 1, 12, 12, 12), torch.zeros(1, 1, 12, 12, 12)
    mask[..., 5, 5, 5], target[..., 5, 5, 7] = 1.0, 1.0
    assert region_of_interest(mask, target).sum().item() == 5 * 5 * 7


def test_the_loss_of_a_sample_does_not_depend_on_its_batch() -> None:
    batch = _batch(3)
    perfect = _perfect(batch)
    whole = total_loss(perfect, batch, LossConfig())
    for i in range(3):
        alone = batch.select([i])
        single = total_loss(_perfect(alone), alone, LossConfig())
        assert math.isclose(single.item(), whole[i].item(), rel_tol=1e-5)


def test_weights_scale_their_terms() -> None:
    batch = _batch()
    prediction = _perfect(batch)
    off = dataclasses.replace(prediction, image=prediction.image + 0.1)
    none = dict.fromkeys(LossConfig.model_fields, 0.0)
    only = LossConfig(**{**none, "image_l1": 3.0})
    torch.testing.assert_close(total_loss(off, batch, only), torch.full((2,), 0.3))
