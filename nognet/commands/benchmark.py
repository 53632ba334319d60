"""`nognet benchmark`: what the steps of the way cost on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nognet.commands.benchmark_ingest import ingest
from nognet.commands.benchmark_networks import networks
from nognet.commands.benchmark_privacy import privacy
from nognet.console import emit, say

if TYPE_CHECKING:
    from nognet.fit.step_cost import StepCost, StepPlan

app = typer.Typer(no_args_is_help=True, help="Time and memory of the steps on this machine.")
app.command(name="ingest")(ingest)
app.command(name="networks")(networks)
app.command(name="privacy")(privacy)


class Precision(StrEnum):
    """Of convolutions and linear layers; warp and losses stay in float32."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Device(StrEnum):
    """Where to measure."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


@app.command()
def step(  # noqa: PLR0913, PLR0917  one parameter an option, typer passes them by name
    device: Annotated[Device, typer.Option(help="auto takes a GPU where there is one.")] = (
        Device.auto
    ),
    roi: Annotated[int, typer.Option(help="Edge of the ROI in voxels: 32, 48, 64 ...")] = 48,
    width: Annotated[int, typer.Option(help="network.width: 4, 8, 12 ...")] = 8,
    batch: Annotated[int, typer.Option(min=1, max=64, help="training.batch_size.")] = 4,
    repeats: Annotated[int, typer.Option(min=1, max=100, help="Blocks of five steps.")] = 5,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; by default torch's own number.")
    ] = None,
    precision: Annotated[Precision, typer.Option(help="training.precision.")] = Precision.fp32,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Measure torch.compile too (minutes on a CPU).")
    ] = False,
    dp: Annotated[
        bool, typer.Option("--dp", help="Measure the step under privacy instead (on the CPU).")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure our training step against a bare loop, and against what the machine can do.

    With `--dp` our step under patient-level privacy, and Opacus' own way, against our step without.
    The loops take turns in one process, so that the ratio holds on a busy machine too.
    """
    from pydantic import ValidationError

    from nognet.config import NetworkConfig, RoiConfig
    from nognet.fit.measuring import device_to_measure
    from nognet.fit.step_cost import StepPlan, measure_step

    try:
        RoiConfig(size_vox=roi)
        NetworkConfig(width=width)
    except ValidationError as err:
        fault = err.errors()[0]
        raise typer.BadParameter(f"{fault['loc'][0]}: {fault['msg']}") from err
    plan = StepPlan(roi, width, batch, repeats, threads, precision.value, compiled)
    if dp:
        _measure_private(plan, as_json=as_json)
        return
    where = device_to_measure(device.value)
    if where is None:
        _say_there_is_no_gpu(plan, as_json=as_json)
        return
    say(f"measuring on {where}: ROI {roi}, width {width}, batch {batch}, {precision.value} ...")
    cost = measure_step(plan, where)
    if as_json:
        emit(json.dumps(_as_json(plan, cost), indent=2, allow_nan=False))
        return
    for line in _lines(cost):
        emit(line)


def _measure_private(plan: StepPlan, *, as_json: bool) -> None:
    import torch

    from nognet.fit.private_step_cost import measure_private_step

    say(f"measuring on the CPU: ROI {plan.roi_size_vox}, width {plan.width}, {plan.precision} ...")
    found = measure_private_step(plan)
    if as_json:
        measured = {way: asdict(cost) for way, cost in found.items()}
        facts = {"torch": torch.__version__, "load_average": _load()}
        emit(json.dumps({"plan": asdict(plan), "measured": measured, **facts}, indent=2))
        return
    emit(f"load average {_load()}, torch {torch.__version__}, batch {plan.batch_size}")
    for way, cost in found.items():
        low, high = cost.ratio_quartiles
        emit(
            f"{way:8} {1e3 * cost.step_s:6.0f} ms a step, ratio {cost.ratio:.2f} "
            f"(quartiles {low:.2f} to {high:.2f}); peak {cost.peak_mib:.0f} MiB, "
            f"ratio {cost.memory_ratio:.2f} ({cost.memory_ratio_without_import:.2f} without the "
            f"{cost.import_mib:.0f} MiB of importing Opacus)"
        )
    emit("memory is the process's own, resident; with a GPU this is host memory")


def _say_there_is_no_gpu(plan: StepPlan, *, as_json: bool) -> None:
    import torch

    reason = f"torch {torch.__version__} finds no CUDA device here"
    if as_json:
        emit(json.dumps({"plan": asdict(plan), "measured": None, "reason": reason}, indent=2))
    else:
        emit(f"not measured: {reason}")


def _as_json(plan: StepPlan, cost: StepCost) -> dict[str, Any]:
    import torch

    return {
        "plan": asdict(plan),
        "measured": asdict(cost),
        "torch": torch.__version__,
        "load_average": _load(),
    }


def _load() -> float | None:
    import os

    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _lines(cost: StepCost) -> Iterator[str]:
    import torch

    low, high = cost.ratio_range
    yield f"device               {cost.device}, {cost.threads} threads, torch {torch.__version__}"
    yield f"load average         {_load()}"
    yield f"parameters           {cost.parameters}"
    yield f"training step        {1e3 * cost.sample_s:.1f} ms a sample"
    yield f"samples a second     {1 / cost.sample_s:.1f}"
    yield f"bare loop            {1e3 * cost.bare_sample_s:.1f} ms a sample"
    if cost.compiled_sample_s is not None:
        gain = cost.bare_sample_s / cost.compiled_sample_s
        yield f"bare loop, compiled  {1e3 * cost.compiled_sample_s:.1f} ms a sample ({gain:.2f}x)"
    yield f"ratio                {cost.ratio:.3f} (from {low:.3f} to {high:.3f})"
    yield f"prediction           {1e3 * cost.predict_pair_s:.1f} ms a pair"
    yield f"evaluation           {1e3 * cost.evaluate_pair_s:.1f} ms a pair (3 predictors, metrics)"
    yield f"peak memory          {cost.peak_mib:.0f} MiB"
    memory = cost.peak_mib / cost.bare_peak_mib
    yield f"bare loop's peak     {cost.bare_peak_mib:.0f} MiB (ratio {memory:.3f})"
    yield f"work of a step       {cost.step_gflop:.2f} GFLOP"
    yield f"conv3d peak          {cost.conv_peak_gflops:.1f} GFLOP/s"
    yield f"share of the peak    {100 * cost.share_of_peak:.0f} %"
