"""Refuse what would train without an error and yet without the privacy that was promised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from nognet.errors import PrivacyError, TrainingError

BufferState = tuple[tuple[int, int], ...]

_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)  # noqa: SLF001  the common base has no other name


def check_module(module: nn.Module) -> None:
    """Refuse a module that mixes patients, or which keeps raw statistics of them.

    Raises:
        PrivacyError: lists every layer that can't be used, and why.
    """
    faults = [
        f"  {name or '(top)'}: {fault}"
        for name, layer in module.named_modules()
        for fault in _faults(layer)
    ]
    if not any(parameter.requires_grad for parameter in module.parameters()):
        faults.append("  (top): no parameter requires a gradient")
    if faults:
        raise PrivacyError(
            "the network can't be trained under differential privacy:\n" + "\n".join(faults),
            code="network-not-private",
        )


def buffer_state(module: nn.Module) -> BufferState:
    """Identify every buffer and its version, which torch counts up at each write in place."""
    return tuple((id(buffer), buffer._version) for buffer in module.buffers())  # noqa: SLF001  no public name


def check_buffers(module: nn.Module, before: BufferState) -> None:
    """Refuse a forward pass that wrote to a buffer: it carries unnoised facts about a patient.

    Raises:
        PrivacyError: a buffer was replaced or written to since `before` was taken.
    """
    if buffer_state(module) != before:
        raise PrivacyError(
            "the forward pass changed a buffer of the network; what it holds is not noised and "
            "would leave the site with the weights; keep no running statistics under "
            "differential privacy",
            code="buffer-changed",
        )


def check_losses(losses: Tensor, count: int) -> None:
    """Refuse losses that are not one finite number for each of `count` samples.

    Raises:
        PrivacyError: there are other than `count` numbers: a sample's loss has to be its own mean.
        TrainingError: a loss is not finite.
    """
    if losses.dim() > 1 or losses.numel() != count:
        raise PrivacyError(
            f"losses of shape {tuple(losses.shape)} for {count} samples, expected one number each",
            code="loss-not-scalar",
        )
    if not bool(torch.isfinite(losses.detach()).all()):
        raise TrainingError(
            "a patient's loss is not finite; lower the learning rate or check the site's data",
            code="loss-not-finite",
        )


def check_gradients(gradients: Sequence[Tensor]) -> None:
    """Refuse a gradient that is not finite: clipping can't bound it (0 x inf is NaN).

    Raises:
        TrainingError: an element is NaN or infinite.
    """
    if not all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
        raise TrainingError(
            "a patient's gradient is not finite; lower the learning rate, train in fp32 or check "
            "the site's data",
            code="gradient-not-finite",
        )


def _faults(layer: nn.Module) -> Iterator[str]:
    kind = type(layer).__name__
    if isinstance(layer, _BATCH_NORMS):
        yield f"{kind} mixes the patients of a batch; use GroupNorm"
    elif getattr(layer, "track_running_stats", False):
        yield f"{kind} keeps running statistics without noise; set track_running_stats=False"
