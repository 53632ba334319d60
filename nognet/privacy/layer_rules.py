"""Layers whose backward pass gives each sample's gradient in place of the batch's sum.

A convolution's weight gradient is a sum over the batch. The same numbers come out apart, one
gradient a sample, when the batch is laid out as the groups of one grouped convolution (Rochette et
al. 2019); a linear layer's as a product a sample; a norm's as a sum over voxels alone. Nothing is
computed twice and no copy of a feature map is kept, so a step costs about what it does without
privacy (docs/decisions/0016).

The rules replace torch's *functions*, not modules: whatever calls `conv3d`, `linear` or
`group_norm` with a trained parameter is met, padding modes and subclasses too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

KeepGradient = Callable[[Tensor, Tensor], None]
"""Takes a parameter and the gradient of each sample, ``(B, *parameter.shape)``."""

_aten = torch.ops.aten
_SPACE = 3
_NOT_BF16_BELOW = 3
"""oneDNN's bf16 weight gradient over a depth of 2 is garbage (nognet/fit/device.py)."""


def conv3d(keep: KeepGradient, image: Tensor, *rest: Any, **named: Any) -> Tensor | None:  # noqa: ANN401  as torch's
    """Convolve as `torch.conv3d`; None where its arguments are none that the rule knows."""
    return _conv3d(keep, image, *rest, **named)


def linear(
    keep: KeepGradient, inputs: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor | None:
    """Apply ``(B, ..., I) -> (B, ..., O)`` as `torch.nn.functional.linear`."""
    if inputs.dim() < 2:
        return None
    cast = _as_autocast_does(inputs)
    output: Tensor = _Linear.apply(cast, weight, bias, keep)  # type: ignore[no-untyped-call]  # torch's
    return output


def group_norm(  # noqa: PLR0913, PLR0917  torch's own arguments
    keep: KeepGradient,
    image: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,  # noqa: ARG001  torch.group_norm's own
) -> Tensor | None:
    """Normalise ``(B, C, ...)`` as `torch.nn.functional.group_norm`."""
    if weight is None or bias is None:
        return None
    if image.is_cuda and torch.is_autocast_enabled(image.device.type):
        image = image.float()  # as autocast does there
    output: Tensor = _GroupNorm.apply(image, weight, bias, num_groups, eps, keep)  # type: ignore[no-untyped-call]  # torch's
    return output


def _conv3d(  # noqa: PLR0913, PLR0917  torch's own arguments
    keep: KeepGradient,
    image: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor | None:
    if isinstance(padding, str) or image.dim() != 2 + _SPACE:
        return None
    shape = (_three(stride), _three(padding), _three(dilation), groups)
    cast = _as_autocast_does(image)
    output: Tensor = _Conv3d.apply(cast, weight, bias, shape, keep)  # type: ignore[no-untyped-call]  # torch's
    return output


def _three(value: int | Sequence[int]) -> list[int]:
    return [value] * _SPACE if isinstance(value, int) else list(value)


def _as_autocast_does(inputs: Tensor) -> Tensor:
    kind = inputs.device.type
    if torch.is_autocast_enabled(kind) and inputs.dtype == torch.float32:
        return inputs.to(torch.get_autocast_dtype(kind))
    return inputs


class _Conv3d(torch.autograd.Function):
    """Grouped, dilated, strided convolution of ``(B, C, D, H, W)``."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  torch has no public type for it
        image: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        shape: tuple[list[int], list[int], list[int], int],
        keep: KeepGradient,
    ) -> Tensor:
        ctx.save_for_backward(image, weight, bias)
        ctx.shape, ctx.keep = shape, keep
        return F.conv3d(image, weight, bias, *shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401  as torch's
        image, weight, bias = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.shape
        if bias is not None:
            ctx.keep(bias, slope.flatten(2).sum(2, dtype=bias.dtype))
        ctx.keep(weight, _weight_gradients(image, slope, weight, ctx.shape))
        if not ctx.needs_input_grad[0]:
            return None, None, None, None, None
        cast = weight.to(slope.dtype)
        conv = (stride, padding, dilation, False, [0] * _SPACE, groups, [True, False, False])
        back = _aten.convolution_backward(slope, image, cast, None, *conv)[0]
        return back, None, None, None, None


def _weight_gradients(
    image: Tensor,
    slope: Tensor,
    weight: Tensor,
    shape: tuple[list[int], list[int], list[int], int],
) -> Tensor:
    """Gradient of the weight for each sample: one convolution with B times the groups."""
    stride, padding, dilation, groups = shape
    count = image.shape[0]
    if image.dtype == torch.bfloat16 and min(image.shape[2:]) < _NOT_BF16_BELOW:
        image, slope = image.float(), slope.float()
    if set(weight.shape[2:]) == {1} and set(stride) == {1} and set(padding) == {0} and groups == 1:
        product = torch.bmm(slope.flatten(2), image.flatten(2).transpose(1, 2))
        return product.view(count, *weight.shape)
    one_image, one_slope = (x.reshape(1, -1, *x.shape[2:]) for x in (image, slope))
    repeated = weight.detach().to(slope.dtype).repeat(count, 1, 1, 1, 1)  # its values play no part
    conv = (stride, padding, dilation, False, [0] * _SPACE, count * groups, [False, True, False])
    found: Tensor = _aten.convolution_backward(one_slope, one_image, repeated, None, *conv)[1]
    return found.view(count, *weight.shape)


class _Linear(torch.autograd.Function):
    """Linear map of ``(B, ..., I)``."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  as torch's
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        keep: KeepGradient,
    ) -> Tensor:
        ctx.save_for_backward(inputs, weight, bias)
        ctx.keep = keep
        return F.linear(inputs, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401  as torch's
        inputs, weight, bias = ctx.saved_tensors
        count = inputs.shape[0]
        of_sample = slope.reshape(count, -1, slope.shape[-1])  # (B, N, O)
        ctx.keep(weight, of_sample.transpose(1, 2) @ inputs.reshape(count, -1, inputs.shape[-1]))
        if bias is not None:
            ctx.keep(bias, of_sample.sum(1, dtype=bias.dtype))
        back = slope @ weight.to(slope.dtype) if ctx.needs_input_grad[0] else None
        return back, None, None, None


class _GroupNorm(torch.autograd.Function):
    """GroupNorm with scale and shift of ``(B, C, ...)``."""

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917  torch's arguments
        ctx: Any,  # noqa: ANN401  as torch's
        image: Tensor,
        weight: Tensor,
        bias: Tensor,
        groups: int,
        eps: float,
        keep: KeepGradient,
    ) -> Tensor:
        image = image.contiguous()
        count, channels = image.shape[:2]
        size = (count, channels, image[0, 0].numel(), groups)
        output, mean, scale = torch.native_group_norm(image, weight, bias, *size, eps)
        ctx.save_for_backward(image, weight, bias, mean, scale)
        ctx.size, ctx.keep = size, keep
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401  as torch's
        image, weight, bias, mean, scale = ctx.saved_tensors
        _, channels, _, groups = ctx.size
        slope = slope.contiguous()
        shift = slope.flatten(2).sum(2, dtype=weight.dtype)  # (B, C)
        product = (slope * image).flatten(2).sum(2, dtype=weight.dtype)
        per_channel = (x.repeat_interleave(channels // groups, 1) for x in (mean, scale))
        middle, over_deviation = per_channel
        ctx.keep(weight, (product - shift * middle) * over_deviation)
        ctx.keep(bias, shift)
        if not ctx.needs_input_grad[0]:
            return (None,) * 6
        wanted = [True, False, False]
        back = _aten.native_group_norm_backward(
            slope, image, mean, scale, weight, *ctx.size, wanted
        )[0]
        return back, None, None, None, None, None


Rule = Callable[..., Tensor | None]
RULES: dict[Callable[..., Any], Rule] = {
    torch.conv3d: conv3d,
    F.linear: linear,
    F.group_norm: group_norm,
    torch.group_norm: group_norm,
}
"""Torch's function, and what stands in for it; a rule gives None where it doesn't hold."""
