"""Seconds, memory and the peak of the machine that a step is measured on."""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import torch

from nognet.config.learning import Precision
from nognet.errors import TrainingError
from nognet.fit.device import resolve_device
from nognet.memory import largest_resident_bytes

_CONV_SHAPES = ((4, 32, 24), (4, 64, 12), (2, 64, 24), (4, 128, 12))
"""Batch, channels in and out, edge: 3 x 3 x 3 convolutions like those of a wide network."""
_GPU_CONV_SHAPES = (*_CONV_SHAPES, (8, 128, 64), (8, 256, 32))
"""A GPU needs more work at once to show its peak."""


def conv_shapes(device: torch.device) -> tuple[tuple[int, int, int], ...]:
    """Give convolutions that show a device's peak: batch, channels in and out, edge."""
    return _GPU_CONV_SHAPES if device.type == "cuda" else _CONV_SHAPES


def conv_gflops(shape: tuple[int, int, int], device: torch.device, precision: Precision) -> float:
    """Measure the GFLOP/s of a plain convolution, at its best."""
    count, channels, edge = shape
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    image = torch.ones((count, channels, edge, edge, edge), device=device, dtype=kind)
    kernel = torch.ones((channels, channels, 3, 3, 3), device=device, dtype=kind)

    @torch.no_grad()
    def convolve() -> None:
        torch.nn.functional.conv3d(image, kernel, padding=1)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    flop = 2.0 * 27 * channels**2 * count * edge**3
    return flop / min(_seconds(convolve)) / 1e9  # a peak: what disturbs it is no part of it


def median_seconds(work: Callable[[], object]) -> float:
    """Time some work; the median of a few goes."""
    return statistics.median(_seconds(work))


def _seconds(work: Callable[[], object], repeats: int = 5) -> list[float]:
    """Time some work after one go to warm up."""
    work()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return seconds


def differences(stamps: Sequence[float]) -> list[float]:
    """Give the seconds between stamps."""
    return [after - before for before, after in itertools.pairwise(stamps)]


def forget_peak(device: torch.device) -> None:
    """Begin the GPU's largest memory anew; a process's can't be."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def largest_memory_mib(device: torch.device) -> float:
    """Give the largest memory so far: resident of the process, or of the GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return largest_resident_bytes() / 2**20


def own_peak_mib(module: str, *arguments: str) -> float:
    """Run a module that prints the largest memory it needed, in MiB, and give that.

    Raises:
        TrainingError: the process failed.
    """
    command = [sys.executable, "-W", "ignore", "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TrainingError(
            f"the process that measures memory ({module} {arguments[0]}) ended with "
            f"{done.returncode}: {done.stderr.strip().splitlines()[-1:]}",
            code="benchmark",
        )
    return float(done.stdout)


def device_name(device: torch.device) -> str:
    """Name a device, as torch does."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def device_to_measure(wanted: str) -> torch.device | None:
    """Find the device; None where it isn't there, for there is nothing to measure then."""
    if wanted == "cuda" and not torch.cuda.is_available():
        return None
    if wanted == "cpu":
        return torch.device("cpu")
    return resolve_device("cuda" if wanted == "cuda" else "auto")
