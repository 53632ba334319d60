"""An update before it is sent or masked: finite, of the right size, not too long; its facts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nognet.errors import EgressError, WireError
from nognet.wire.flat import FlatWeights, ParameterSpec, checked_flat, flat_length

_UPDATE_RATIO = 10.0
"""An update may be so many times as long as the weights it departs from (decision 0013)."""


@dataclass(frozen=True)
class TensorFacts:
    """What a receipt says of one tensor of an update."""

    name: str
    shape: tuple[int, ...]
    bytes: int
    norm: float


@dataclass(frozen=True)
class UpdateFacts:
    """What a receipt says of an update: its length, the longest allowed, and each tensor."""

    norm: float
    limit: float
    tensors: tuple[TensorFacts, ...]


def check_update(
    weights: FlatWeights,
    start: FlatWeights,
    spec: Sequence[ParameterSpec],
    max_norm: float | None,
) -> UpdateFacts:
    """Check the plain weights of a reply, before anything masks them.

    Args:
        weights: Trained, flat.
        start: Received, flat.
        spec: The tensors that they are.
        max_norm: The longest update the site allows; None: ten times the length of `start`.

    Raises:
        EgressError: dtype or length is wrong, a number is not finite, or the update is too long.
    """
    facts = tensor_facts(weights, start, spec)
    norm = math.sqrt(math.fsum(tensor.norm**2 for tensor in facts))
    length = float(np.linalg.norm(start.astype(np.float64)))
    limit = max_norm if max_norm is not None else _UPDATE_RATIO * max(1.0, length)
    if norm > limit:
        raise EgressError(
            f"the update is {norm:.4g} long, at most {limit:.4g} may leave; the training "
            "diverged (lower training.learning_rate), or egress.max_update_norm is too small",
            code="update-norm",
        )
    return UpdateFacts(norm, limit, facts)


def tensor_facts(
    weights: FlatWeights, start: FlatWeights | None, spec: Sequence[ParameterSpec]
) -> tuple[TensorFacts, ...]:
    """Measure each tensor, as its distance from `start` where there is one.

    Raises:
        EgressError: dtype or length is wrong, or a number is not finite.
    """
    length = flat_length(spec)
    try:
        checked_flat(weights, length, what="the weights to send")
        if start is not None:
            checked_flat(start, length, what="the weights received")
    except WireError as err:
        raise EgressError(str(err), code=err.code) from err
    facts, first = [], 0
    for tensor in spec:
        last = first + math.prod(tensor.shape)
        values = weights[first:last].astype(np.float64)
        if start is not None:
            values -= start[first:last]
        norm = float(np.linalg.norm(values))
        facts.append(TensorFacts(tensor.name, tuple(tensor.shape), 4 * values.size, norm))
        first = last
    return tuple(facts)
