"""Vectors before they are sent or masked: finite, of the right size, not too long; their facts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nognet.errors import EgressError, WireError
from nognet.wire.flat import FlatWeights, ParameterSpec, checked_flat, flat_length

_UPDATE_RATIO = 10.0
"""An update may be so many times as long as the weights it departs from (decision 0013), and
a model of the site's own so many times as long as the study's first weights."""
_LEAST_WAY = 1e-3
"""Learning rate times steps, which the coordinator chooses, count as no less than this."""


@dataclass(frozen=True)
class TensorFacts:
    """What a receipt says of one tensor of an update."""

    name: str
    shape: tuple[int, ...]
    bytes: int
    norm: float


@dataclass(frozen=True)
class VectorFacts:
    """What a receipt says of a vector: its length, the longest allowed, and each tensor."""

    norm: float
    limit: float
    tensors: tuple[TensorFacts, ...]


@dataclass(frozen=True)
class UpdateFacts(VectorFacts):
    """The same of an update, and of the control variate beside it where the strategy wants one."""

    control: VectorFacts | None = None


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
    norm = _norm(facts)
    limit = max_norm if max_norm is not None else _longest_from(start)
    if norm > limit:
        raise EgressError(
            f"the update is {norm:.4g} long, at most {limit:.4g} may leave; the training "
            "diverged (lower training.learning_rate), or egress.max_update_norm is too small",
            code="update-norm",
        )
    return UpdateFacts(norm, limit, facts)


def check_control(
    control: FlatWeights,
    spec: Sequence[ParameterSpec],
    *,
    update_limit: float,
    learning_rate: float,
    steps: int,
) -> VectorFacts:
    """Check SCAFFOLD's control variate: the mean of a round's gradients, before any clipping.

    The longest is the mean gradient by which as many plain steps at that rate would make the
    longest update that may leave, ``update_limit / (learning_rate steps)`` (option II of
    Karimireddy et al. 2020 read the other way). AdamW's steps are no multiples of gradients: it is
    a bound that sound training stays far below, and no more.

    Args:
        control: Flat.
        spec: The tensors that it is.
        update_limit: The longest update that may leave.
        learning_rate: Of the study.
        steps: Of a round.

    Raises:
        EgressError: dtype or length is wrong, a number is not finite, or it is too long.
    """
    limit = update_limit / max(learning_rate * steps, _LEAST_WAY)
    facts = tensor_facts(control, None, spec)
    if _norm(facts) > limit:
        raise EgressError(
            f"the control variate is {_norm(facts):.4g} long, at most {limit:.4g} may leave "
            "(egress.max_update_norm over learning rate times steps); the training diverged (lower "
            "training.learning_rate), or egress.max_update_norm is too small",
            code="control-norm",
        )
    return VectorFacts(_norm(facts), limit, facts)


def check_model(
    weights: FlatWeights, first: FlatWeights, spec: Sequence[ParameterSpec]
) -> VectorFacts:
    """Check a model of the site's own, of which no start was received.

    Args:
        weights: Flat.
        first: The study's first weights, as its seed draws them.
        spec: The tensors that they are.

    Raises:
        EgressError: dtype or length is wrong, a number is not finite, or it is more than ten times
            as long as the study's first weights.
    """
    facts, limit = tensor_facts(weights, None, spec), _longest_from(first)
    if _norm(facts) > limit:
        raise EgressError(
            f"the site's model is {_norm(facts):.4g} long, at most {limit:.4g} may leave (ten "
            "times the study's first weights); its training diverged (lower "
            "training.learning_rate)",
            code="model-norm",
        )
    return VectorFacts(_norm(facts), limit, facts)


def _norm(facts: Sequence[TensorFacts]) -> float:
    return math.sqrt(math.fsum(tensor.norm**2 for tensor in facts))


def _longest_from(start: FlatWeights) -> float:
    return _UPDATE_RATIO * max(1.0, float(np.linalg.norm(start.astype(np.float64))))


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
