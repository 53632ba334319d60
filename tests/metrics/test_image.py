import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from nognet.errors import TrainingError
from nognet.metrics.image import nodule_box, psnr, psnr_nodule, ssim, ssim_map, ssim_nodule
from tests.builders.metric_cases import ball_mask, image_pair


def _skimage_ssim(first: torch.Tensor, second: torch.Tensor) -> tuple[float, NDArray[np.float64]]:
    return structural_similarity(
        first.double().numpy(),
        second.double().numpy(),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1,
        win_size=11,
        full=True,
    )


def test_psnr_equals_scikit_image() -> None:
    first, second = image_pair(16, batch=3)
    expected = [
        peak_signal_noise_ratio(b.double().numpy(), a.double().numpy(), data_range=1)
        for a, b in zip(first, second, strict=True)
    ]
    np.testing.assert_allclose(psnr(first, second).numpy(), expected, rtol=1e-12)


def test_psnr_of_a_constant_offset_is_minus_20_log10_of_it() -> None:
    truth = torch.full((1, 1, 12, 12, 12), 0.25)
    torch.testing.assert_close(psnr(truth + 0.125, truth)[0].item(), -20 * math.log10(0.125))


def test_psnr_of_identical_images_is_capped_at_100_db() -> None:
    image, _ = image_pair()
    assert psnr(image, image).tolist() == [100.0]


@pytest.mark.parametrize("shape", [(11, 12, 17), (24, 24, 24), (16, 31, 13)])
def test_ssim_and_its_map_equal_scikit_image(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(3)
    first = torch.rand((2, 1, *shape), generator=generator)
    second = (first + 0.2 * torch.randn(first.shape, generator=generator)).clamp(0, 1)
    values, similarity = ssim(first, second), ssim_map(first, second)
    for index in range(2):
        mean, full = _skimage_ssim(first[index, 0], second[index, 0])
        assert values[index].item() == pytest.approx(mean, abs=1e-9)
        np.testing.assert_allclose(similarity[index, 0].numpy(), full, atol=1e-9)


def test_ssim_is_one_exactly_for_identical_images_and_symmetric() -> None:
    first, second = image_pair()
    assert ssim(first, first).item() == pytest.approx(1.0, abs=1e-12)
    torch.testing.assert_close(ssim(first, second), ssim(second, first))


def test_ssim_of_two_constants_is_its_luminance_term() -> None:
    a, b = 0.25, 0.75
    constant = torch.ones(1, 1, 13, 13, 13, dtype=torch.float64)
    expected = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    assert ssim(a * constant, b * constant).item() == pytest.approx(expected, abs=1e-9)


def test_ssim_map_equals_the_textbook_formula_with_scipy_blurs() -> None:
    first, second = (image[0, 0].double().numpy() for image in image_pair(15, seed=5))

    def blur(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return gaussian_filter(values, 1.5, truncate=3.5)

    mean_1, mean_2 = blur(first), blur(second)
    var_1, var_2 = blur(first**2) - mean_1**2, blur(second**2) - mean_2**2
    covariance = blur(first * second) - mean_1 * mean_2
    expected = ((2 * mean_1 * mean_2 + 1e-4) * (2 * covariance + 9e-4)) / (
        (mean_1**2 + mean_2**2 + 1e-4) * (var_1 + var_2 + 9e-4)
    )
    found = ssim_map(*(torch.from_numpy(values)[None, None] for values in (first, second)))
    np.testing.assert_allclose(found[0, 0].numpy(), expected, atol=1e-10)


def test_psnr_nodule_sets_both_images_to_zero_outside_the_union_and_averages_over_all() -> None:
    first, second = image_pair(16, seed=1)
    predicted_mask = ball_mask(16, 4, centre=(7, 7, 6)) * 0.7
    true_mask = ball_mask(16, 3, centre=(8, 7, 9))
    union = (predicted_mask.numpy() > 0.5) | (true_mask.numpy() > 0.5)
    squares = np.where(union, (first - second).double().numpy() ** 2, 0)
    expected = 10 * math.log10(1 / (squares.sum() / 16**3))
    found = psnr_nodule(first, second, predicted_mask, true_mask).item()
    assert found == pytest.approx(expected, abs=1e-5)
    assert found > psnr(first, second).item()


def test_psnr_nodule_ignores_what_lies_outside_both_masks() -> None:
    first, second = image_pair(16, seed=2)
    mask = ball_mask(16, 4)
    outside = torch.where(mask > 0, second, 1 - second)
    assert torch.equal(
        psnr_nodule(first, second, mask, mask), psnr_nodule(first, outside, mask, mask)
    )


def test_psnr_nodule_counts_a_probability_of_one_half_as_background() -> None:
    first, second = image_pair(12)
    empty, half = torch.zeros_like(first), torch.full_like(first, 0.5)
    assert psnr_nodule(first, second, half, empty).item() == 100.0


def test_ssim_nodule_averages_scikit_images_map_over_the_enlarged_box() -> None:
    first, second = image_pair(32, seed=4)
    mask = torch.zeros_like(first)
    mask[..., 4:16, 10:20, 0:21] = 1  # edges 12, 10, 21: margins 2, 1, 3
    _, full = _skimage_ssim(first[0, 0], second[0, 0])
    expected = full[2:18, 9:21, 0:24].mean()
    assert ssim_nodule(first, second, mask).item() == pytest.approx(expected, abs=1e-9)


def test_ssim_nodule_is_undefined_for_an_empty_mask_alone() -> None:
    first, second = image_pair(12, batch=2)
    mask = torch.cat((torch.zeros(1, 1, 12, 12, 12), ball_mask(12, 3)))
    values = ssim_nodule(first, second, mask)
    assert torch.isnan(values).tolist() == [True, False]


def test_box_of_a_mask_with_a_hole_and_of_an_empty_one() -> None:
    mask = torch.zeros(20, 20, 20)
    mask[3, 5, 7] = mask[8, 5, 16] = 1
    assert nodule_box(mask) == (slice(2, 10), slice(4, 7), slice(6, 18))
    assert nodule_box(torch.zeros(4, 4, 4)) is None


def test_each_sample_of_a_batch_is_measured_on_its_own() -> None:
    first, second = image_pair(14, batch=3, seed=6)
    mask = torch.cat([ball_mask(14, radius) for radius in (2, 3, 5)])
    batched = ssim_nodule(first, second, mask)
    single = [ssim_nodule(first[i : i + 1], second[i : i + 1], mask[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(batched, torch.cat(single))


def test_float32_input_is_measured_in_double_precision() -> None:
    first, second = image_pair(16)
    assert ssim(first, second).dtype == torch.float64
    torch.testing.assert_close(ssim(first, second), ssim(first.double(), second.double()))


@pytest.mark.parametrize(
    ("predicted", "truth", "message"),
    [
        (torch.zeros(1, 12, 12, 12), torch.zeros(1, 12, 12, 12), r"expected \(B, 1, D, H, W\)"),
        (torch.zeros(1, 1, 12, 12, 12), torch.zeros(2, 1, 12, 12, 12), "differ in shape"),
        (torch.full((1, 1, 12, 12, 12), -50.0), torch.zeros(1, 1, 12, 12, 12), "-50 to -50"),
        (torch.zeros(1, 1, 8, 12, 12), torch.zeros(1, 1, 8, 12, 12), "SSIM window"),
    ],
)
def test_bad_input_is_refused_with_what_was_found(
    predicted: torch.Tensor, truth: torch.Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ssim(predicted, truth)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_a_training_error(bad: float) -> None:
    image = torch.zeros(1, 1, 12, 12, 12)
    broken = image.clone()
    broken[0, 0, 3, 3, 3] = bad
    with pytest.raises(TrainingError, match="not finite") as raised:
        psnr(broken, image)
    assert raised.value.public_code == "TrainingError:not-finite"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_gives_the_cpus_numbers() -> None:
    first, second = image_pair(24, batch=2)
    torch.testing.assert_close(ssim(first.cuda(), second.cuda()).cpu(), ssim(first, second))
