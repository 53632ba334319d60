"""Similarity of images: PSNR and SSIM on the whole ROI and on the nodule.

SSIM: Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity",
with the numbers that scikit-image gives for ``gaussian_weights=True, sigma=1.5,
use_sample_covariance=False, data_range=1``. The Gaussian blur of a line of n voxels is one product
with an (n, n) matrix that has the reflected border built in: exact, and fast on CPU and GPU.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nognet.metrics.checks import MASK_THRESHOLD, checked_images, checked_masks

WINDOW_VOX = 11
SIGMA_VOX = 1.5
K1 = 0.01
K2 = 0.03
MSE_FLOOR = 1e-10
BOX_MARGIN = 0.10


def psnr(predicted: Tensor, truth: Tensor) -> Tensor:
    """Compute the peak signal-to-noise ratio over the whole ROI, in dB.

    Args:
        predicted: Images ``(B, 1, D, H, W)`` in [0, 1].
        truth: True images of the same shape.

    Returns:
        ``(B,)`` float64; 100 dB at most, because the MSE is floored at 1e-10.

    Raises:
        ValueError: wrong shape or range.
        TrainingError: a value is not finite.
    """
    first, second = checked_images(predicted, truth)
    return _psnr_of_difference(first - second)


def psnr_nodule(
    predicted: Tensor, truth: Tensor, predicted_mask: Tensor, true_mask: Tensor
) -> Tensor:
    """Compute NoFoNet's PSNR*, in dB: both images 0 outside the union of the two masks.

    The MSE is averaged over the whole ROI all the same.

    Args:
        predicted: Images ``(B, 1, D, H, W)`` in [0, 1].
        truth: True images of the same shape.
        predicted_mask: Probabilities of the same shape; above 0.5 is nodule.
        true_mask: True follow-up mask, {0, 1}.

    Returns:
        ``(B,)`` float64; 100 dB at most, and 100 dB where both masks are empty.

    Raises:
        ValueError: wrong shape or range.
        TrainingError: a value is not finite.
    """
    first, second = checked_images(predicted, truth)
    probability, true = checked_masks(predicted_mask, true_mask)
    union = (probability > MASK_THRESHOLD) | (true > MASK_THRESHOLD)
    return _psnr_of_difference((first - second) * union)


def ssim_map(predicted: Tensor, truth: Tensor) -> Tensor:
    """Compute the SSIM at each voxel, borders reflected.

    Args:
        predicted: Images ``(B, 1, D, H, W)`` in [0, 1], each edge 11 voxels at least.
        truth: True images of the same shape.

    Returns:
        ``(B, 1, D, H, W)`` float64.

    Raises:
        ValueError: wrong shape or range, or an edge below the window.
        TrainingError: a value is not finite.
    """
    first, second = checked_images(predicted, truth)
    if min(first.shape[2:]) < WINDOW_VOX:
        raise ValueError(
            f"an ROI of {tuple(first.shape[2:])} voxels is smaller than the SSIM window of "
            f"{WINDOW_VOX}"
        )
    # Only the sum of both variances enters, so four fields are blurred and not five.
    fields = torch.cat((first, second, first.square() + second.square(), first * second), dim=1)
    mean_1, mean_2, mean_squares, mean_product = _blur(fields).chunk(4, dim=1)
    c1, c2 = K1**2, K2**2
    product = mean_1 * mean_2
    squares = mean_1.square() + mean_2.square()
    numerator = (2 * product + c1) * (2 * (mean_product - product) + c2)
    return numerator / ((squares + c1) * (mean_squares - squares + c2))


def ssim(predicted: Tensor, truth: Tensor) -> Tensor:
    """Average the SSIM map over the ROI without its rim of 5 voxels, as scikit-image does.

    Args:
        predicted: Images ``(B, 1, D, H, W)`` in [0, 1].
        truth: True images of the same shape.

    Returns:
        ``(B,)`` float64.

    Raises:
        ValueError: wrong shape or range, or an edge below 11 voxels.
        TrainingError: a value is not finite.
    """
    return mean_without_rim(ssim_map(predicted, truth))


def ssim_nodule(predicted: Tensor, truth: Tensor, true_mask: Tensor) -> Tensor:
    """Average the SSIM map over the true follow-up mask's bounding box with a 10 % margin.

    Args:
        predicted: Images ``(B, 1, D, H, W)`` in [0, 1].
        truth: True images of the same shape.
        true_mask: True follow-up mask, {0, 1}.

    Returns:
        ``(B,)`` float64; NaN (undefined) where the true mask is empty.

    Raises:
        ValueError: wrong shape or range.
        TrainingError: a value is not finite.
    """
    _, true = checked_masks(true_mask, true_mask)
    return mean_in_box(ssim_map(predicted, truth), true)


def mean_without_rim(similarity: Tensor) -> Tensor:
    """Average a map ``(B, 1, D, H, W)`` over all but the rim of half a window: ``(B,)``."""
    inside = slice(WINDOW_VOX // 2, -(WINDOW_VOX // 2))
    return similarity[..., inside, inside, inside].mean(dim=(1, 2, 3, 4))


def mean_in_box(similarity: Tensor, mask: Tensor) -> Tensor:
    """Average a map over each mask's enlarged bounding box: ``(B,)``, NaN for an empty mask."""
    means = [
        values[(0, *box)].mean() if (box := nodule_box(one[0])) else values.new_tensor(math.nan)
        for values, one in zip(similarity, mask, strict=True)
    ]
    return torch.stack(means)


def nodule_box(mask: Tensor) -> tuple[slice, slice, slice] | None:
    """Find the bounding box of a mask ``(D, H, W)``, 10 % of its edge (rounded up) added per side.

    Returns:
        Slices along z, y, x, cut at the border; None for an empty mask.
    """
    inside = mask > MASK_THRESHOLD
    if not bool(inside.any()):
        return None
    return (
        _enlarged_extent(inside.any(dim=2).any(dim=1)),
        _enlarged_extent(inside.any(dim=2).any(dim=0)),
        _enlarged_extent(inside.any(dim=1).any(dim=0)),
    )


def _enlarged_extent(occupied: Tensor) -> slice:
    where = torch.nonzero(occupied)
    first, last = int(where[0]), int(where[-1])
    margin = math.ceil(round(BOX_MARGIN * (last - first + 1), 9))
    return slice(max(first - margin, 0), min(last + margin + 1, occupied.numel()))


def _psnr_of_difference(difference: Tensor) -> Tensor:
    error = difference.square().mean(dim=(1, 2, 3, 4)).clamp_min(MSE_FLOOR)
    return -10 * torch.log10(error)


def _blur(fields: Tensor) -> Tensor:
    """Blur ``(B, C, D, H, W)`` along z, y and x."""
    depth, height, width = (
        torch.from_numpy(_blur_matrix(size)).to(fields.device) for size in fields.shape[2:]
    )
    along_yx = height @ (fields @ width.T)
    return (depth @ along_yx.flatten(start_dim=3)).view(fields.shape)


@functools.lru_cache(maxsize=32)
def _blur_matrix(size: int) -> NDArray[np.float64]:
    """Give the (size, size) matrix of a Gaussian blur whose border repeats (d c b a | a b c d)."""
    radius = WINDOW_VOX // 2
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / SIGMA_VOX) ** 2)
    weights /= weights.sum()
    matrix = np.zeros((size, size))
    rows = np.arange(size)
    for offset, weight in zip(offsets, weights, strict=True):
        columns = rows + offset
        columns = np.where(columns < 0, -columns - 1, columns)
        columns = np.where(columns >= size, 2 * size - 1 - columns, columns)
        np.add.at(matrix, (rows, columns), weight)
    return matrix
