from __future__ import annotations

import dataclasses
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nognet.errors import TrainingError
from nognet.fit.tensors import augment, sample_order, stack_pairs
from tests.builders.federation import roi_pair


def _pairs(count: int) -> list:
    rng = np.random.default_rng(0)
    return [roi_pair(number, rng) for number in range(count)]


def test_stacking_keeps_values_and_takes_the_log_of_the_native_volumes() -> None:
    pairs = _pairs(3)
    batch = stack_pairs(pairs)
    assert batch.image.shape == (3, 1, *pairs[0].baseline.shape)
    np.testing.assert_array_equal(batch.target_image[1, 0].numpy(), pairs[1].follow_up)
    np.testing.assert_array_equal(batch.mask[2, 0].numpy(), pairs[2].baseline_mask)
    expected = [np.log(p.follow_up_volume_mm3 / p.baseline_volume_mm3) for p in pairs]
    np.testing.assert_allclose(batch.log_growth.numpy(), expected, rtol=1e-6)


def test_a_voxel_that_is_not_finite_is_refused_by_the_pairs_id() -> None:
    pair = _pairs(1)[0]
    spoilt = pair.follow_up.copy()
    spoilt[3, 4, 5] = np.nan
    with pytest.raises(TrainingError, match=pair.pair_id):
        stack_pairs([dataclasses.replace(pair, follow_up=spoilt)])


def test_no_pairs_make_no_batch() -> None:
    with pytest.raises(TrainingError, match="no pairs"):
        stack_pairs([])


@given(count=st.integers(1, 12), batch_size=st.integers(1, 7), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_every_pass_over_the_data_takes_each_pair_once(
    count: int, batch_size: int, seed: int
) -> None:
    order = sample_order(count, batch_size, torch.Generator().manual_seed(seed))
    size = min(count, batch_size)
    batches = list(islice(order, 4 * count))
    assert all(len(batch) == len(set(batch)) == size for batch in batches)
    drawn = [index for batch in batches for index in batch]
    assert np.bincount(drawn, minlength=count).tolist() == [4 * size] * count


def test_augmentation_moves_images_and_masks_alike_and_keeps_volumes() -> None:
    balls = stack_pairs(_pairs(4))
    half = torch.zeros_like(balls.mask)
    half[..., :14] = 1.0  # a cut ball, so that a turn shows
    batch = dataclasses.replace(balls, mask=balls.mask * half, target_mask=balls.target_mask * half)
    marked = dataclasses.replace(
        batch, image=batch.mask * 0.5, target_image=batch.target_mask * 0.5
    )
    turned = augment(marked, torch.Generator().manual_seed(3))
    for image, mask in (
        (turned.image, turned.mask),
        (turned.target_image, turned.target_mask),
    ):
        assert torch.equal((image > 0.25).float(), mask)
    assert torch.equal(turned.mask.sum((1, 2, 3, 4)), batch.mask.sum((1, 2, 3, 4)))
    assert not torch.equal(turned.mask, batch.mask)
    assert torch.equal(turned.interval_days, batch.interval_days)


def test_augmentation_shifts_both_times_by_the_same_small_amount() -> None:
    batch = stack_pairs(_pairs(2))
    flat = dataclasses.replace(
        batch,
        image=torch.full_like(batch.image, 0.5),
        target_image=torch.full_like(batch.target_image, 0.6),
    )
    turned = augment(flat, torch.Generator().manual_seed(0))
    shift = turned.image.flatten(1)[:, 0] - 0.5
    torch.testing.assert_close(turned.target_image.flatten(1)[:, 0] - 0.6, shift)
    assert (shift.abs() <= 0.0101).all()
    assert shift.abs().max() > 0


def test_augmentation_leaves_its_input_and_follows_its_generator() -> None:
    batch = stack_pairs(_pairs(3))
    before = batch.image.clone()
    one, two = (augment(batch, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(batch.image, before)
    assert torch.equal(one.image, two.image)
