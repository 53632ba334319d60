"""Where the work is done: the device, its threads and its precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch

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


def autocast(
    device: torch.device, precision: Literal["fp32", "bf16"]
) -> contextlib.AbstractContextManager[object]:
    """Run convolutions and linear layers in bf16 if asked for; warp and losses stay in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
