import numpy as np
import pytest
import torch

from nognet.metrics.overlap import dsc
from tests.builders.metric_cases import ball_mask


def test_dsc_of_two_shifted_boxes_is_their_overlap() -> None:
    first, second = torch.zeros(1, 1, 8, 8, 8), torch.zeros(1, 1, 8, 8, 8)
    first[..., 0:4, 0:4, 0:4] = 1
    second[..., 1:5, 0:4, 0:4] = 1
    assert dsc(first, second).tolist() == [0.75]


def test_dsc_equals_counting_voxels() -> None:
    generator = torch.Generator().manual_seed(0)
    probability = torch.rand((3, 1, 6, 7, 8), generator=generator)
    truth = (torch.rand((3, 1, 6, 7, 8), generator=generator) > 0.4).float()
    for index, found in enumerate(dsc(probability, truth)):
        a = probability[index].numpy() > 0.5
        b = truth[index].numpy() > 0
        assert found.item() == pytest.approx(2 * np.sum(a & b) / (a.sum() + b.sum()), abs=1e-12)


def test_two_empty_masks_agree_and_one_empty_mask_does_not() -> None:
    empty, ball = torch.zeros(1, 1, 9, 9, 9), ball_mask(9, 3)
    assert dsc(empty, empty).item() == 1
    assert dsc(empty, ball).item() == 0
    assert dsc(ball, empty).item() == 0
    assert dsc(ball, ball).item() == 1


def test_a_probability_of_one_half_is_background() -> None:
    assert dsc(ball_mask(9, 3) * 0.5, ball_mask(9, 3)).item() == 0


def test_a_true_mask_that_is_not_binary_is_refused() -> None:
    with pytest.raises(ValueError, match="other values than 0 and 1"):
        dsc(ball_mask(9, 3), ball_mask(9, 3) * 0.5)


def test_integer_and_boolean_masks_are_accepted() -> None:
    ball = ball_mask(9, 3)
    assert dsc(ball.bool(), ball.to(torch.uint8)).item() == 1
