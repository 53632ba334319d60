"""Checks that come before any metric: shape, values, range."""

from __future__ import annotations

import torch
from torch import Tensor

from nognet.errors import TrainingError

RANGE_TOLERANCE = 1e-4
MASK_THRESHOLD = 0.5


def checked_images(predicted: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Check two batches of images and give them as float64.

    Args:
        predicted: Predicted images ``(B, 1, D, H, W)`` in [0, 1].
        truth: True images of the same shape and range.

    Raises:
        ValueError: shapes differ or aren't ``(B, 1, D, H, W)``, or values leave [0, 1].
        TrainingError: a value is not finite.
    """
    _check_shapes(predicted, truth)
    return _in_unit_range(predicted, "predicted image"), _in_unit_range(truth, "true image")


def checked_masks(predicted_mask: Tensor, true_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Check predicted probabilities and a true mask and give them as float64.

    Args:
        predicted_mask: Probabilities ``(B, 1, D, H, W)`` in [0, 1].
        true_mask: The true mask, {0, 1}, of the same shape.

    Raises:
        ValueError: shapes differ or aren't ``(B, 1, D, H, W)``, probabilities leave [0, 1], or the
            true mask holds another value than 0 and 1.
        TrainingError: a value is not finite.
    """
    _check_shapes(predicted_mask, true_mask)
    return _in_unit_range(predicted_mask, "predicted mask"), binary_mask(true_mask)


def binary_mask(mask: Tensor) -> Tensor:
    """Give a mask ``(B, 1, D, H, W)`` of {0, 1} as float64.

    Raises:
        ValueError: not of that shape, or another value than 0 and 1 is in it.
    """
    _check_shapes(mask, mask)
    exact = as_float64(mask)
    if not bool(((exact == 0) | (exact == 1)).all()):
        raise ValueError("the true mask holds other values than 0 and 1; binarise it first")
    return exact


def as_float64(tensor: Tensor) -> Tensor:
    """Convert to float64, on the CPU where the device has none (Apple's MPS)."""
    if tensor.device.type == "mps":
        tensor = tensor.cpu()
    return tensor.detach().to(torch.float64)


def _check_shapes(first: Tensor, second: Tensor) -> None:
    shape = tuple(first.shape)
    if len(shape) != 5 or shape[1] != 1 or 0 in shape:
        raise ValueError(f"found a tensor of shape {shape}, expected (B, 1, D, H, W)")
    if shape != tuple(second.shape):
        raise ValueError(f"prediction {shape} and truth {tuple(second.shape)} differ in shape")


def _in_unit_range(tensor: Tensor, what: str) -> Tensor:
    exact = as_float64(tensor)
    lowest, highest = (float(value) for value in torch.aminmax(exact))
    if not (torch.isfinite(torch.tensor([lowest, highest])).all()):
        raise TrainingError(
            f"the {what} holds a value that is not finite; the weights that made it are unusable",
            code="not-finite",
        )
    if lowest < -RANGE_TOLERANCE or highest > 1 + RANGE_TOLERANCE:
        raise ValueError(
            f"the {what} spans {lowest:.4g} to {highest:.4g}, expected [0, 1]; "
            "scale it by the study's HU window and clamp predictions before they are measured"
        )
    return exact
