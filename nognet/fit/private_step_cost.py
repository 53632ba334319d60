"""What a DP-SGD step costs: ours and Opacus' hooks against the step without privacy.

The three run in turns in one process, on the same network and as many pairs, so that whatever else
the machine does falls on all: trust the ratios before the seconds. The peak of memory of each is
that of a process of its own (``python -m nognet.fit.private_step_cost WAY PLAN``); how much of it
is the import of Opacus alone, whatever the batch, is another's (``... import``).
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from nognet.config import PrivacyConfig, StudyConfig
from nognet.data.store import PreparedSite
from nognet.fit.device import autocast, cpu_threads
from nognet.fit.measuring import differences, largest_memory_mib, own_peak_mib
from nognet.fit.step_cost import STEPS, OurSteps, StepPlan, setting
from nognet.fit.tensors import stack_pairs
from nognet.fit.weights import Weights, initial_weights, network_with
from nognet.memory import resident_bytes
from nognet.network import total_loss

Way = Literal["plain", "private", "opacus"]
_PRIVACY = PrivacyConfig(noise_multiplier=1.0, delta=1e-3)
_CPU = torch.device("cpu")
_MODULE, _IMPORT = "nognet.fit.private_step_cost", "import"


@dataclass(frozen=True)
class WayCost:
    """One way of taking a step.

    Attributes:
        step_s: Median seconds of a step.
        ratio: Median over the turns of its seconds over those of the step without privacy.
        ratio_quartiles: First and third quartile of these.
        peak_mib: Largest resident memory of a process that does nothing else.
        memory_ratio: Of that, to the step without privacy.
        import_mib: Of the peak, what importing Opacus takes: resident memory after it less that
            before.
        memory_ratio_without_import: Of the peak less that, to the step without privacy.
    """

    step_s: float
    ratio: float
    ratio_quartiles: tuple[float, float]
    peak_mib: float
    memory_ratio: float
    import_mib: float
    memory_ratio_without_import: float


def measure_private_step(plan: StepPlan) -> dict[Way, WayCost]:
    """Measure the ways on the CPU.

    Raises:
        TrainingError: a process that measures memory failed.
    """
    ways: tuple[Way, ...] = get_args(Way)
    with cpu_threads(plan.threads), tempfile.TemporaryDirectory() as folder:
        blocks = _blocks(plan, Path(folder))
        for block in blocks.values():
            block()  # warms up
        turns = [{way: blocks[way]() for way in ways} for _ in range(plan.repeats)]
    peaks = {way: _peak_of(way, plan) for way in ways}
    opacus_mib = own_peak_mib(_MODULE, _IMPORT)
    found = {}
    for way in ways:
        import_mib = 0.0 if way == "plain" else opacus_mib
        ratios = [turn[way] / turn["plain"] for turn in turns]
        found[way] = WayCost(
            step_s=statistics.median(turn[way] for turn in turns),
            ratio=statistics.median(ratios),
            ratio_quartiles=_quartiles(ratios),
            peak_mib=peaks[way],
            memory_ratio=peaks[way] / peaks["plain"],
            import_mib=import_mib,
            memory_ratio_without_import=(peaks[way] - import_mib) / peaks["plain"],
        )
    return found


def _blocks(plan: StepPlan, folder: Path) -> dict[Way, Callable[[], float]]:
    """Make a block of steps of each way; it gives the median seconds of a step."""
    study, site, prepared = setting(plan, _CPU, folder)
    site = site.model_copy(update={"state": folder / "state"})
    weights = initial_weights(study.network, study.seed)
    private = study.model_copy(update={"privacy": _PRIVACY})
    return {
        "plain": OurSteps(study, site, prepared, weights).block,
        "private": OurSteps(private, site, prepared, weights).block,
        "opacus": lambda: _opacus_block(study, prepared, weights),
    }


def _opacus_block(study: StudyConfig, prepared: PreparedSite, weights: Weights) -> float:
    """Take steps with Opacus' own module and optimiser, the whole batch in each."""
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    batch = stack_pairs(prepared.pairs("train"))
    module = GradSampleModule(network_with(study.network, weights, _CPU).train())
    optimizer = DPOptimizer(
        torch.optim.AdamW(module.parameters(), lr=1e-4),
        noise_multiplier=_PRIVACY.noise_multiplier,
        max_grad_norm=_PRIVACY.clip_norm,
        expected_batch_size=len(batch),
    )
    stamps = []
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        with autocast(_CPU, study.training.precision):
            prediction = module(batch.image, batch.mask, batch.interval_days, batch.prior)
        loss = total_loss(prediction, batch, study.loss).mean()
        with warnings.catch_warnings():  # the first layer's input needs no gradient
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own is untyped
        for parameter in module.parameters():
            if parameter.grad_sample is None:  # a head that this loss doesn't reach
                parameter.grad_sample = parameter.new_zeros((len(batch), *parameter.shape))
        optimizer.step()
        stamps.append(time.perf_counter())
    return statistics.median(differences(stamps))


def _quartiles(values: list[float]) -> tuple[float, float]:
    if len(values) == 1:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def _peak_of(way: Way, plan: StepPlan) -> float:
    return own_peak_mib(_MODULE, way, json.dumps(asdict(plan)))


def _measure_own_peak(way: Way, plan: StepPlan) -> None:
    with cpu_threads(plan.threads), tempfile.TemporaryDirectory() as folder:
        _blocks(plan, Path(folder))[way]()
        sys.stdout.write(f"{largest_memory_mib(_CPU)}\n")


def _measure_import() -> None:
    before = resident_bytes()
    importlib.import_module("opacus")
    sys.stdout.write(f"{(resident_bytes() - before) / 2**20}\n")


if __name__ == "__main__" and sys.argv[1] == _IMPORT:
    _measure_import()
elif __name__ == "__main__":
    _measure_own_peak(sys.argv[1], StepPlan(**json.loads(sys.argv[2])))  # type: ignore[arg-type]  # one of Way
