"""Where the work is done: the device, its threads and its precision."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import nn

from nognet.config.learning import Precision
from nognet.errors import ConfigError


def resolve_device(wanted: Literal["auto", "cpu", "cuda", "mps"]) -> torch.device:
    """Choose the device; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: the device asked for is not there.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        return torch.device(next(name for name, is_there in there.items() if is_there))
    if not there[wanted]:
        found = ", ".join(name for name, is_there in there.items() if is_there)
        raise ConfigError(
            f"device: '{wanted}' was asked for, but torch {torch.__version__} finds only: {found}; "
            "install the driver and a matching build of torch, or set device: auto",
            code="no-device",
        )
    return torch.device(wanted)


@contextlib.contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Use that many CPU threads in this block; None leaves the number as it is."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def reproducible() -> Iterator[None]:
    """Let cuDNN choose its deterministic algorithms in this block.

    On the CPU the same seed gives the same bits. On CUDA the draws are the same, but the gradient
    of the warp adds in an order of its own (`grid_sampler_3d` has no deterministic form).
    """
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


def autocast(
    device: torch.device, precision: Precision
) -> contextlib.AbstractContextManager[object]:
    """Run convolutions and linear layers in half precision if asked for; the rest in float32."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")


def check_precision(
    device: torch.device,
    precision: Precision,
    network: nn.Module | None = None,
    roi_size_vox: int | None = None,
) -> None:
    """Refuse a precision that the device lacks, or in which the network's gradient is garbage.

    With bf16, oneDNN's weight gradient of a padded 3 x 3 x 3 convolution over a depth of exactly 2
    is silently wrong (NaN, 4e35). Whether one is met is found by running the network once.

    Args:
        device: Where is trained.
        precision: What the study asks for.
        network: As `nognet.network.MTNoGNet` is called; None checks the device alone.
        roi_size_vox: Edge of its input.

    Raises:
        ConfigError: the precision can't be used; the message says which can.
    """
    if precision == "fp16" and device.type != "cuda":
        raise ConfigError(
            f"training.precision: fp16 needs CUDA, the device is {device.type}; set precision: "
            "bf16 or fp32, or device: cuda",
            code="precision",
        )
    if precision == "bf16" and not _has_bf16(device):
        raise ConfigError(
            f"training.precision: this {device.type} device has no bf16; set precision: fp32"
            f"{' or fp16' if device.type == 'cuda' else ''}",
            code="precision",
        )
    if precision == "bf16" and network is not None and roi_size_vox is not None:
        _refuse_depth_2(device, network, roi_size_vox)


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device.type == "mps":
        return bool(torch.backends.mps.is_macos_or_newer(14, 0))
    return True  # slow on old CPUs, but right


def _refuse_depth_2(device: torch.device, network: nn.Module, roi_size_vox: int) -> None:
    for name, size in _convolution_inputs(network, device, roi_size_vox):
        if size[0] == 2:
            raise ConfigError(
                f"training.precision: with an ROI of {roi_size_vox} voxels the convolution {name} "
                f"sees a depth of 2 (input {tuple(size)}), where a bf16 weight gradient is "
                "garbage; use an ROI of 32 voxels or more, or set precision: fp32",
                code="precision-depth",
            )


@torch.no_grad()
def _convolution_inputs(
    network: nn.Module, device: torch.device, roi_size_vox: int
) -> list[tuple[str, torch.Size]]:
    """Run one empty ROI; give name and spatial input size of every padded 3-D convolution."""
    seen: list[tuple[str, torch.Size]] = []

    def noted(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        return lambda _module, inputs: seen.append((name, inputs[0].shape[2:]))

    hooks = [
        module.register_forward_pre_hook(noted(name))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv3d) and module.kernel_size[0] > 1
    ]
    volume = torch.zeros((1, 1, *(roi_size_vox,) * 3), device=device)
    try:
        network(volume, volume, torch.full((1,), 365.0, device=device), None)
    finally:
        for hook in hooks:
            hook.remove()
    return seen
