"""The gradient of each sample of a batch, all together or one by one.

*One by one* is plain autograd on each sample alone: right for every network, and 2.3 times slower.
*Together* runs the batch once, with `nognet.privacy.layer_rules` in place of torch's functions.
That is right only where every trained parameter is used through these alone and no sample's
loss depends on another sample, so both are checked: the first at every step, for whatever ordinary
autograd finds at a parameter was missed by the rules; the second by `why_not_together`, before a
round, against one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nognet.errors import PrivacyError
from nognet.privacy.guards import check_losses
from nognet.privacy.layer_rules import RULES

SampleT = TypeVar("SampleT")
LossesOf = Callable[[Sequence[SampleT]], Tensor]
"""Loss of each of some samples, ``(B,)``, computed by the network."""
Found = tuple[list[Tensor], Tensor]
"""For each parameter the samples' gradients ``(B, *shape)``; the losses ``(B,)``."""

_TOLERANCE = 1e-2
_ROUNDINGS = 32
"""Relative difference that rounding explains: so many times the precision's own."""


def gradients_one_by_one(
    parameters: Sequence[Tensor], samples: Sequence[SampleT], losses_of: LossesOf[SampleT]
) -> Found:
    """Give each sample's gradient by a forward and a backward pass of its own.

    Raises:
        PrivacyError: a loss is not one number a sample.
        TrainingError: a loss is not finite.
    """
    rows, losses = [], []
    for sample in samples:
        loss = losses_of([sample])
        check_losses(loss, 1)
        found = torch.autograd.grad(loss.reshape(()), parameters, allow_unused=True)
        pairs = zip(parameters, found, strict=True)
        rows.append([torch.zeros_like(p) if g is None else g for p, g in pairs])
        losses.append(loss.detach().reshape(()))
    return [torch.stack(parts) for parts in zip(*rows, strict=True)], torch.stack(losses)


def gradients_together(
    parameters: Sequence[Tensor], samples: Sequence[SampleT], losses_of: LossesOf[SampleT]
) -> Found:
    """Give each sample's gradient by one forward and one backward pass of the batch.

    Raises:
        PrivacyError: a loss is not one number a sample, a layer saw other rows than the samples, or
            a parameter is used in a way that no rule covers.
        TrainingError: a loss is not finite.
    """
    kept = _Kept(parameters)
    losses = _run_together(kept, samples, losses_of)
    return kept.rows(len(samples)), losses


def why_not_together(
    parameters: Sequence[Tensor], samples: Sequence[SampleT], losses_of: LossesOf[SampleT]
) -> str | None:
    """Hold the last sample's gradient among the others against its own; say what is wrong, or None.

    Args:
        parameters: The trained ones.
        samples: Two or more, unlike one another.
        losses_of: Gives the same losses for the same samples: no augmentation.

    Raises:
        PrivacyError: a loss is not one number a sample.
        TrainingError: a loss is not finite.
    """
    if len(samples) < 2:
        return "there is no second sample to compare with"
    alone, loss_alone = gradients_one_by_one(parameters, samples[-1:], losses_of)
    kept = _Kept(parameters)
    try:
        losses = _run_together(kept, samples, losses_of)
    except PrivacyError as err:
        return str(err)
    except RuntimeError as err:  # torch's own: what it runs again (checkpoints) has other tensors
        return f"torch refuses it ({type(err).__name__})"
    off = _relative_difference([g[-1:] for g in kept.rows(len(samples))], alone)
    off = max(off, _relative_difference([losses[-1:]], [loss_alone]))
    if not off <= max(_TOLERANCE, _ROUNDINGS * kept.roundoff):
        return f"a sample's gradient depends on the others: {100 * off:.2g} % off"
    return None


def _run_together(kept: _Kept, samples: Sequence[SampleT], losses_of: LossesOf[SampleT]) -> Tensor:
    with _Rules(kept):
        losses = losses_of(samples)
    check_losses(losses, len(samples))
    kept.check_rows(len(samples))
    _drop_gradients(kept.parameters)
    try:
        losses.sum().backward()  # type: ignore[no-untyped-call]  # torch's own is untyped
        if any(parameter.grad is not None for parameter in kept.parameters):
            raise _not_covered("a parameter is used outside of conv3d, linear and group_norm")
    finally:
        _drop_gradients(kept.parameters)
    return losses.detach()


def _relative_difference(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    mine, other = (
        torch.cat([x.flatten() for x in tensors]).double() for tensors in (found, wanted)
    )
    return float((mine - other).norm() / other.norm().clamp_min(torch.finfo(torch.float32).tiny))


class _Kept:
    """Gradients of the samples, parameter by parameter; a parameter used twice has their sum."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = list(parameters)
        self.by_parameter: dict[int, Tensor] = {}
        self.seen_rows: set[int] = set()
        self.roundoff = 0.0  # of the least precise gradient
        self._trained = {id(parameter) for parameter in parameters}

    def is_trained(self, tensor: object) -> bool:
        return id(tensor) in self._trained

    def keep(self, parameter: Tensor, gradients: Tensor) -> None:
        if id(parameter) not in self._trained:
            return  # a frozen one
        self.roundoff = max(self.roundoff, torch.finfo(gradients.dtype).eps)
        before = self.by_parameter.get(id(parameter))
        gradients = gradients.to(parameter.dtype)
        self.by_parameter[id(parameter)] = gradients if before is None else before + gradients

    def check_rows(self, count: int) -> None:
        if self.seen_rows - {count}:
            raise _not_covered(
                f"a layer saw {max(self.seen_rows - {count})} rows for {count} samples"
            )

    def rows(self, count: int) -> list[Tensor]:
        """``(count, *shape)`` of each parameter; zeros for one that was not used."""
        return [
            self.by_parameter.get(id(p), p.new_zeros((count, *p.shape))) for p in self.parameters
        ]


class _Rules(TorchFunctionMode):
    """Puts the rules in place of torch's functions where a trained parameter goes in."""

    def __init__(self, kept: _Kept) -> None:
        super().__init__()
        self.kept = kept

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  as torch's
        named = kwargs or {}
        rule = RULES.get(func)
        if rule is not None and self._is_trained_alone((*args[1:], *named.values())):
            output = rule(self.kept.keep, *args, **named)
            if output is not None:
                self.kept.seen_rows.add(output.shape[0])
                return output
        return func(*args, **named)

    def _is_trained_alone(self, inputs: Sequence[object]) -> bool:
        """Whether weight and bias are trained ones; a tensor made of them passes no rule."""
        sloped = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
        return bool(sloped) and all(map(self.kept.is_trained, sloped))


def _drop_gradients(parameters: Sequence[Tensor]) -> None:
    for parameter in parameters:
        parameter.grad = None


def _not_covered(what: str) -> PrivacyError:
    return PrivacyError(
        f"the gradients of a batch's samples can't be told apart: {what}; take them one by one",
        code="gradients-together",
    )
