"""What a training step costs: against a bare loop, against the machine's own peak, in memory.

Ours and the bare loop run in turns in one process, so that whatever else the machine does falls on
both: trust the ratio before the seconds.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

from nognet.config import NetworkConfig, RoiConfig, SiteConfig, StudyConfig, TrainingConfig
from nognet.config.learning import Precision
from nognet.data.store import PreparedSite, write_store
from nognet.fit.device import autocast, cpu_threads
from nognet.fit.evaluate import evaluate_pairs
from nognet.fit.measuring import (
    conv_gflops,
    conv_shapes,
    device_name,
    differences,
    forget_peak,
    largest_memory_mib,
    median_seconds,
    own_peak_mib,
)
from nognet.fit.predictors import (
    copy_baseline,
    isotropic_growth,
    median_growth,
    network_predictor,
)
from nognet.fit.tensors import stack_pairs
from nognet.fit.train import train_round
from nognet.fit.weights import Weights, initial_weights, network_with
from nognet.network import total_loss
from nognet.phantom.roi import make_roi_pairs
from nognet.types import RoiPair, Split

STEPS = 5
Way = Literal["ours", "bare"]
_PEAKS = 5
"""Processes of each way whose memory is looked at: one's peak differs by a few per cent."""


@dataclass(frozen=True)
class StepPlan:
    """What is measured.

    Attributes:
        roi_size_vox: Edge of the ROI.
        width: Of the network.
        batch_size: Samples a step.
        repeats: Blocks of steps of each kind, after one to warm up.
        threads: CPU threads; None leaves torch's number.
        precision: Of convolutions and linear layers, in both loops.
        compiled: Measure the bare loop with `torch.compile` too (minutes of compiling first).
    """

    roi_size_vox: int = 48
    width: int = 8
    batch_size: int = 4
    repeats: int = 5
    threads: int | None = None
    precision: Precision = "fp32"
    compiled: bool = False


@dataclass(frozen=True)
class StepCost:
    """What was measured; seconds are medians, the peak is the best of several.

    Attributes:
        device: As torch names it.
        threads: CPU threads in use.
        parameters: Of the network.
        sample_s: Our training step (augmentation, loss, clipping, AdamW, checks), a sample.
        bare_sample_s: Network, loss, gradient and AdamW alone, a sample.
        ratio: Median over the blocks of ours over bare.
        ratio_range: Smallest and largest of these.
        predict_pair_s: The network's prediction, a pair.
        evaluate_pair_s: Network and both baselines with all metrics, a pair.
        peak_mib: Largest resident memory of a process that takes our steps alone; of the GPU on
            CUDA.
        step_gflop: Convolutions and matrix products of a step, forward and backward.
        conv_peak_gflops: GFLOP/s of the fastest of a few plain convolutions here.
        share_of_peak: What our step reaches of it.
        bare_peak_mib: As `peak_mib` for the bare loop.
        compiled_sample_s: The bare loop with `torch.compile`, a sample; None if not measured.
    """

    device: str
    threads: int
    parameters: int
    sample_s: float
    bare_sample_s: float
    ratio: float
    ratio_range: tuple[float, float]
    predict_pair_s: float
    evaluate_pair_s: float
    peak_mib: float
    step_gflop: float
    conv_peak_gflops: float
    share_of_peak: float
    bare_peak_mib: float
    compiled_sample_s: float | None = None


def measure_step(plan: StepPlan, device: torch.device) -> StepCost:
    """Measure a training step and an evaluation on phantom pairs."""
    with cpu_threads(plan.threads), tempfile.TemporaryDirectory() as folder:
        return _measure(plan, device, Path(folder))


def _measure(plan: StepPlan, device: torch.device, folder: Path) -> StepCost:
    study, site, prepared = setting(plan, device, folder)
    pairs = prepared.pairs("train")
    weights = initial_weights(study.network, study.seed)
    ours = OurSteps(study, site, prepared, weights)
    forget_peak(device)
    ours.block()  # warms up; the bare loop isn't in memory yet
    peak_mib = largest_memory_mib(device)
    bare = _BareSteps(study, pairs, weights, device)
    forget_peak(device)
    bare.block()
    if device.type == "cuda":
        bare_peak_mib = largest_memory_mib(device)
    else:  # a process's peak can't be forgotten: each loop has one of its own
        peak_mib, bare_peak_mib = _peak_of("ours", plan, device), _peak_of("bare", plan, device)
    compiled_s = None
    if plan.compiled:
        compiled = _BareSteps(study, pairs, weights, device, compiled=True)
        compiled.block()
        compiled_s = statistics.median(compiled.block() for _ in range(plan.repeats))
    blocks = [(ours.block(), bare.block()) for _ in range(plan.repeats)]
    ratios = sorted(mine / plain for mine, plain in blocks)
    step_s = statistics.median(mine for mine, _ in blocks)
    predict_s, evaluate_s = _evaluation(study, pairs, weights, device)
    step_gflop = bare.gflop()
    conv_peak = max(conv_gflops(shape, device, plan.precision) for shape in conv_shapes(device))
    return StepCost(
        device=device_name(device),
        threads=torch.get_num_threads(),
        parameters=sum(tensor.numel() for tensor in weights.values()),
        sample_s=step_s / plan.batch_size,
        bare_sample_s=statistics.median(plain for _, plain in blocks) / plan.batch_size,
        ratio=statistics.median(ratios),
        ratio_range=(ratios[0], ratios[-1]),
        predict_pair_s=predict_s,
        evaluate_pair_s=evaluate_s,
        peak_mib=peak_mib,
        step_gflop=step_gflop,
        conv_peak_gflops=conv_peak,
        share_of_peak=step_gflop / step_s / conv_peak,
        bare_peak_mib=bare_peak_mib,
        compiled_sample_s=None if compiled_s is None else compiled_s / plan.batch_size,
    )


def _peak_of(way: Way, plan: StepPlan, device: torch.device) -> float:
    arguments = (way, device.type, json.dumps(asdict(plan)))
    return statistics.median(own_peak_mib(__name__, *arguments) for _ in range(_PEAKS))


def _print_own_peak(way: str, device: torch.device, plan: StepPlan) -> None:
    with cpu_threads(plan.threads), tempfile.TemporaryDirectory() as folder:
        study, site, prepared = setting(plan, device, Path(folder))
        weights = initial_weights(study.network, study.seed)
        if way == "ours":
            OurSteps(study, site, prepared, weights).block()
        else:
            _BareSteps(study, prepared.pairs("train"), weights, device).block()
        sys.stdout.write(f"{largest_memory_mib(device)}\n")


def setting(
    plan: StepPlan, device: torch.device, folder: Path
) -> tuple[StudyConfig, SiteConfig, PreparedSite]:
    """Make a study, a site and as many phantom pairs as a batch, of a patient each.

    Under privacy each patient is then drawn in every step: equal batches.
    """
    roi = RoiConfig(size_vox=plan.roi_size_vox)
    of_patient: dict[str, RoiPair] = {}
    number = 0
    while len(of_patient) < plan.batch_size:
        for pair in make_roi_pairs(number + 1, seed=1, roi=roi, first_patient=number):
            of_patient.setdefault(pair.patient_id, pair)
        number += 1
    pairs = list(of_patient.values())
    splits: dict[str, Split] = {pair.patient_id: "train" for pair in pairs}
    prepared = write_store(folder, pairs, splits, roi=roi)
    study = StudyConfig(
        name="bench",
        roi=roi,
        network=NetworkConfig(width=plan.width),
        training=TrainingConfig(
            steps_per_round=STEPS, batch_size=plan.batch_size, precision=plan.precision
        ),
    )
    kind = "cuda" if device.type == "cuda" else "mps" if device.type == "mps" else "cpu"
    site = SiteConfig(name="bench", studies=folder / "studies.csv", device=kind, roi=roi)
    return study, site, prepared


class OurSteps:
    """Blocks of steps as a site takes them."""

    def __init__(
        self, study: StudyConfig, site: SiteConfig, prepared: PreparedSite, weights: Weights
    ) -> None:
        self.study, self.site, self.prepared, self.weights = study, site, prepared, weights

    def block(self) -> float:
        """Give the median seconds of a step of one round; the first, which sets up, is left out."""
        stamps: list[float] = []
        train_round(
            self.study,
            self.site,
            self.prepared,
            self.weights,
            round_number=1,
            progress=lambda *_: stamps.append(time.perf_counter()),
        )
        return statistics.median(differences(stamps))


class _BareSteps:
    """The shortest loop that trains the same network on the same batch."""

    def __init__(
        self,
        study: StudyConfig,
        pairs: Sequence[RoiPair],
        weights: Weights,
        device: torch.device,
        *,
        compiled: bool = False,
    ) -> None:
        self.network = network_with(study.network, weights, device).train()
        self.forward = torch.compile(self.network) if compiled else self.network
        self.device, self.precision = device, study.training.precision
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-4)
        self.batch = stack_pairs(pairs).to(device)
        self.loss = study.loss

    def step(self) -> None:
        """Take one step."""
        batch = self.batch
        with autocast(self.device, self.precision):
            prediction = self.forward(batch.image, batch.mask, batch.interval_days, batch.prior)
        loss = total_loss(prediction, batch, self.loss).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own is untyped
        self.optimizer.step()
        float(loss.detach())  # waits for a GPU, as our own step does

    def block(self) -> float:
        """Give the median seconds of a step, measured as ours are."""
        stamps = []
        for _ in range(STEPS):
            self.step()
            stamps.append(time.perf_counter())
        return statistics.median(differences(stamps))

    def gflop(self) -> float:
        """Count a step's floating-point operations in convolutions and matrix products."""
        with FlopCounterMode(display=False) as counter:
            self.step()
        return float(counter.get_total_flops()) / 1e9


def _evaluation(
    study: StudyConfig, pairs: Sequence[RoiPair], weights: Weights, device: torch.device
) -> tuple[float, float]:
    predict = network_predictor(network_with(study.network, weights, device), device)
    predictors = {
        "federated": predict,
        "copy": copy_baseline,
        "isotropic": isotropic_growth(median_growth(pairs)),
    }
    batch = stack_pairs(pairs)
    predict_s = median_seconds(lambda: predict(batch))
    evaluate_s = median_seconds(lambda: evaluate_pairs(predictors, pairs))
    return predict_s / len(pairs), evaluate_s / len(pairs)


if __name__ == "__main__":
    _print_own_peak(sys.argv[1], torch.device(sys.argv[2]), StepPlan(**json.loads(sys.argv[3])))
