import math

import pytest
import torch

from nognet.errors import SiteDataError
from nognet.metrics.volume import growth_ratio, log_volume_error, volume_error, volume_mm3
from tests.builders.metric_cases import ball_mask


def _box(voxels: int, value: float = 1.0) -> torch.Tensor:
    mask = torch.zeros(1, 1, 10, 10, 10)
    mask.view(-1)[:voxels] = value
    return mask


def test_predicted_volume_sums_probabilities_and_not_thresholded_voxels() -> None:
    assert volume_mm3(_box(100, 0.3)).item() == pytest.approx(30.0, abs=1e-5)
    assert volume_error(_box(100, 0.25), _box(50)).item() == pytest.approx(0.5)


@pytest.mark.parametrize(("found", "true"), [(120, 100), (80, 100), (100, 100), (300, 100)])
def test_errors_follow_their_formulas(found: int, true: int) -> None:
    assert volume_error(_box(found), _box(true)).item() == pytest.approx(abs(found - true) / true)
    expected = abs(math.log(found / true))
    assert log_volume_error(_box(found), _box(true)).item() == pytest.approx(expected)


def test_log_error_is_the_same_for_twice_and_half() -> None:
    twice, half = log_volume_error(_box(200), _box(100)), log_volume_error(_box(50), _box(100))
    torch.testing.assert_close(twice, half)


def test_errors_are_undefined_where_the_true_mask_is_empty() -> None:
    empty = torch.zeros(1, 1, 10, 10, 10)
    assert math.isnan(volume_error(_box(5), empty).item())
    assert math.isnan(log_volume_error(_box(5), empty).item())


def test_an_empty_prediction_has_a_finite_log_error() -> None:
    empty = torch.zeros(1, 1, 10, 10, 10)
    assert volume_error(empty, _box(100)).item() == 1.0
    assert log_volume_error(empty, _box(100)).item() == pytest.approx(math.log(100))


def test_growth_ratio_sets_the_predicted_volume_against_the_baselines() -> None:
    torch.testing.assert_close(growth_ratio(_box(150), _box(100)).item(), 1.5)


def test_growth_ratio_of_an_empty_baseline_is_an_error_of_the_sites_data() -> None:
    with pytest.raises(SiteDataError, match="empty baseline mask"):
        growth_ratio(ball_mask(10, 3), torch.zeros(1, 1, 10, 10, 10))
