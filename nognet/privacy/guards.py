"""Refuse what would train without an error and yet without the privacy that was promised."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from nognet.errors import PrivacyError, TrainingError

GradientMethod = Literal["batch-of-one", "hooks"]
"""How per-patient gradients are made: by plain autograd on one patient, or by Opacus hooks."""

BufferState = tuple[tuple[int, int], ...]

_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)  # noqa: SLF001  the common base has no other name
_PADDED = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def check_module(module: nn.Module, *, method: GradientMethod = "batch-of-one") -> None:
    """Refuse a module whose per-patient gradients would be wrong, or which keeps raw statistics.

    Args:
        module: The network to be trained under DP.
        method: How per-patient gradients are made; hooks bear less.

    Raises:
        PrivacyError: lists every layer that can't be used, and why.
    """
    faults = [
        f"  {name or '(top)'}: {fault}"
        for name, layer in module.named_modules()
        for fault in _faults(layer, method)
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


def check_loss(loss: Tensor) -> None:
    """Refuse a patient's loss that is no single finite number.

    Raises:
        PrivacyError: the loss is not a scalar: it has to be the mean over one patient's pair.
        TrainingError: the loss is not finite.
    """
    if loss.numel() != 1:
        raise PrivacyError(
            f"loss of shape {tuple(loss.shape)}, expected one number for one patient",
            code="loss-not-scalar",
        )
    if not bool(torch.isfinite(loss.detach()).all()):
        raise TrainingError(
            "a patient's loss is not finite; lower the learning rate or check the site's data",
            code="loss-not-finite",
        )


def check_gradients(gradients: tuple[Tensor, ...]) -> None:
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


def _faults(layer: nn.Module, method: GradientMethod) -> Iterator[str]:
    kind = type(layer).__name__
    if isinstance(layer, _BATCH_NORMS):
        yield f"{kind} mixes the patients of a batch; use GroupNorm"
    elif getattr(layer, "track_running_stats", False):
        yield f"{kind} keeps running statistics without noise; set track_running_stats=False"
    if method != "hooks":
        return
    if isinstance(layer, nn.MultiheadAttention):
        yield f"{kind} has no per-sample gradient under hooks; use method 'batch-of-one'"
    if isinstance(layer, _PADDED) and layer.padding_mode != "zeros":
        yield (
            f"{kind} with padding_mode='{layer.padding_mode}' gets silently wrong gradients under "
            "hooks; pad before the convolution or use method 'batch-of-one'"
        )
    if layer._parameters and not _has_sampler(layer):  # noqa: SLF001  own ones, not of children
        yield f"{kind} has parameters of its own that hooks don't reach; use 'batch-of-one'"


def _has_sampler(layer: nn.Module) -> bool:
    from opacus.grad_sample import GradSampleModule

    return type(layer) in GradSampleModule.GRAD_SAMPLERS
