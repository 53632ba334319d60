"""All parameters as one flat float32 vector.

Flower sends one HTTP request a tensor (about 11 ms each), so a network of 200 tensors travels as
one. Names and shapes don't travel: both sides have the same specification, held by the contract.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nognet.errors import WireError

if TYPE_CHECKING:
    import torch

FlatWeights = NDArray[np.float32]
MAX_ABS_WEIGHT = 1e6  # finite, but sums and squares of it would not stay so; real ones are < 100


class ParameterSpec(Protocol):
    """Name, shape and dtype of one parameter (`nognet.fit.weights.TensorSpec`)."""

    @property
    def name(self) -> str:
        """The parameter's name in the network."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""

    @property
    def dtype(self) -> str:
        """Its dtype, as NumPy names it."""


def flat_length(spec: Sequence[ParameterSpec]) -> int:
    """Count the numbers of all parameters."""
    return sum(math.prod(tensor.shape) for tensor in spec)


def pack(
    weights: Mapping[str, torch.Tensor],
    spec: Sequence[ParameterSpec],
    *,
    what: str = "the weights to send",
) -> FlatWeights:
    """Lay the parameters one after the other, in the order of `spec`.

    Args:
        weights: Parameters by name; exactly those of `spec`.
        spec: Names, shapes and dtypes.
        what: They are, for a message.

    Returns:
        A new float32 vector of shape ``(flat_length(spec),)``.

    Raises:
        WireError: names, a shape or a dtype differ, or a number is not finite or too large.
    """
    _check_names(weights, spec)
    flat = np.empty(flat_length(spec), dtype=np.float32)
    start = 0
    for tensor in spec:
        values = weights[tensor.name].detach().cpu().numpy()
        _check_tensor(values, tensor)
        stop = start + values.size
        flat[start:stop] = values.reshape(-1)
        start = stop
    return checked_flat(flat, len(flat), what=what)


def unpack(flat: NDArray[Any], spec: Sequence[ParameterSpec]) -> dict[str, torch.Tensor]:
    """Cut a flat vector into named parameters; each is a copy of its part.

    Raises:
        WireError: dtype or length of `flat` is wrong, or a number is not finite.
    """
    import torch

    checked = checked_flat(flat, flat_length(spec), what="the weights received")
    weights: dict[str, torch.Tensor] = {}
    start = 0
    for tensor in spec:
        stop = start + math.prod(tensor.shape)
        weights[tensor.name] = torch.from_numpy(checked[start:stop].reshape(tensor.shape).copy())
        start = stop
    return weights


def checked_flat(flat: NDArray[Any], length: int, *, what: str) -> FlatWeights:
    """Check dtype, shape and that all numbers are finite; return the vector itself.

    Raises:
        WireError: with the code ``dtype``, ``shape``, ``non-finite`` or ``too-large``.
    """
    if flat.dtype != np.float32:
        raise WireError(f"{what}: found dtype {flat.dtype}, expected float32", code="dtype")
    if flat.shape != (length,):
        raise WireError(f"{what}: found shape {flat.shape}, expected ({length},)", code="shape")
    bad = int(flat.size - np.count_nonzero(np.isfinite(flat)))
    if bad:
        raise WireError(f"{what}: {bad} of {length} numbers are not finite", code="non-finite")
    largest = float(np.abs(flat).max(initial=0.0))
    if largest > MAX_ABS_WEIGHT:
        raise WireError(
            f"{what}: a number of size {largest:.3g}, expected at most {MAX_ABS_WEIGHT:g}; the "
            "training diverged, lower training.learning_rate",
            code="too-large",
        )
    return flat


def _check_names(weights: Mapping[str, torch.Tensor], spec: Sequence[ParameterSpec]) -> None:
    expected = {tensor.name for tensor in spec}
    missing, unknown = sorted(expected - set(weights)), sorted(set(weights) - expected)
    if missing or unknown:
        raise WireError(
            f"parameters differ from the specification: missing {missing[:5]}, unknown "
            f"{unknown[:5]}; site and study must run the same network",
            code="names",
        )


def _check_tensor(values: NDArray[Any], tensor: ParameterSpec) -> None:
    if values.dtype != np.float32:
        raise WireError(
            f"parameter {tensor.name}: found dtype {values.dtype}, expected float32", code="dtype"
        )
    if values.shape != tuple(tensor.shape):
        raise WireError(
            f"parameter {tensor.name}: found shape {values.shape}, expected {tuple(tensor.shape)}",
            code="shape",
        )
