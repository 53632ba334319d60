"""A few training steps and one evaluation on the site's own pairs and device.

Nothing of it is kept, sent or charged: the state folder is a temporary one, so no privacy is spent
(no noised update of it is ever released).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from nognet.config import PrivacyConfig, SiteConfig, StudyConfig
from nognet.data.store import PreparedSite
from nognet.data.stored_pair import PairRecord
from nognet.fit.device import resolve_device
from nognet.fit.evaluate import evaluate_split
from nognet.fit.tensors import stack_pairs
from nognet.fit.train import train_round
from nognet.fit.weights import Weights, initial_weights
from nognet.memory import largest_resident_bytes
from nognet.metrics.statistics import SiteStatistics
from nognet.privacy.policy import stricter
from nognet.types import Split

_STEPS = 3  # the first warms up
_PAIRS = 4
_TINY_DELTA = 1e-12


@dataclass(frozen=True)
class Measured:
    """What was measured here; seconds of wall time.

    Attributes:
        device: As torch names it.
        step_s: One step of a round's training, under privacy if the stricter settings want it.
        round_extra_s: What a round takes besides its steps: reading pairs, the network, warming up.
        own_step_s: One step of a personal model (without noise); 0 where the study wants none.
        pair_s: Evaluating one pair: network, baselines, metrics.
        evaluation_extra_s: What an evaluation takes besides its pairs.
        statistics: Of the pairs evaluated, to know their size; None without any.
        process_bytes: Largest resident memory of this process.
        gpu_bytes: Largest memory that torch reserved on the GPU; None on other devices.
    """

    device: str
    step_s: float
    round_extra_s: float
    own_step_s: float
    pair_s: float
    evaluation_extra_s: float
    statistics: SiteStatistics | None
    process_bytes: int
    gpu_bytes: int | None


def measure(study: StudyConfig, site: SiteConfig, prepared: PreparedSite) -> Measured:
    """Run a few steps and an evaluation.

    Raises:
        ConfigError: device, precision and study don't go together.
        TrainingError: the site has no training pairs, or they can't be learnt from.
        SiteDataError: a prepared pair is missing or damaged.
    """
    device = resolve_device(site.device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    weights = initial_weights(study.network, study.seed)
    with tempfile.TemporaryDirectory(prefix="nognet-forecast-") as folder:
        trial = _Trial(study, site.model_copy(update={"state": Path(folder)}), prepared, weights)
        step_s, round_extra_s = trial.round_seconds()
        own_step_s = trial.own_step_seconds()
        evaluation_extra_s, pair_s, statistics = trial.evaluation_seconds()
    return Measured(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        step_s=step_s,
        round_extra_s=round_extra_s,
        own_step_s=own_step_s,
        pair_s=pair_s,
        evaluation_extra_s=evaluation_extra_s,
        statistics=statistics,
        process_bytes=largest_resident_bytes(),
        gpu_bytes=torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None,
    )


@dataclass(frozen=True)
class _Trial:
    """The study at the site, cut down to what is measured."""

    study: StudyConfig
    site: SiteConfig
    prepared: PreparedSite
    weights: Weights

    def round_seconds(self) -> tuple[float, float]:
        """Give seconds of a step, and of what a round takes besides.

        Under privacy a step takes each patient with a chance; here as many patients as a step takes
        on average take part in every one. All pairs are read all the same, as in a real round.
        """
        if stricter(self.study.privacy, self.site.privacy) is None:
            return self._seconds(self.study, self.site, self.prepared)
        started = time.perf_counter()
        everything = stack_pairs(self.prepared.pairs("train"))
        read_s = time.perf_counter() - started
        step_s, extra_s = self._seconds(
            self.study.model_copy(update={"privacy": _unlimited(self.study.privacy)}),
            self.site.model_copy(update={"privacy": _unlimited(self.site.privacy)}),
            _with_patients(self.prepared, self.study.training.batch_size),
        )
        del everything  # it was there to be counted as memory
        return step_s, extra_s + read_s

    def own_step_seconds(self) -> float:
        """Give seconds of a step without noise, where the site trains a model of its own."""
        if not self.study.personalisation.tunes:
            return 0.0
        study = self.study.model_copy(update={"privacy": None})
        site = self.site.model_copy(update={"privacy": None})
        return self._seconds(study, site, self.prepared)[0]

    def evaluation_seconds(self) -> tuple[float, float, SiteStatistics | None]:
        """Give seconds of what an evaluation takes besides pairs, of a pair, and the statistics."""
        split: Split = "validation" if self.prepared.records("validation") else "test"
        records = self.prepared.records(split)[:_PAIRS]
        if not records:
            return 0.0, 0.0, None
        training = self.prepared.records("train")  # the isotropic baseline reads them
        some, none = _only(self.prepared, (*training, *records)), _only(self.prepared, training)
        self._evaluate(some, split)  # warms up
        all_s, statistics = self._evaluate(some, split)
        extra_s = min(self._evaluate(none, split)[0], all_s)
        return extra_s, (all_s - extra_s) / len(records), statistics

    def _evaluate(self, prepared: PreparedSite, split: Split) -> tuple[float, SiteStatistics]:
        started = time.perf_counter()
        found = evaluate_split(self.study, self.site, prepared, self.weights, split=split)
        return time.perf_counter() - started, found

    def _seconds(
        self, study: StudyConfig, site: SiteConfig, prepared: PreparedSite
    ) -> tuple[float, float]:
        device = resolve_device(site.device)
        stamps: list[float] = []

        def stamp(*_: object) -> None:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            stamps.append(time.perf_counter())

        training = study.training.model_copy(update={"steps_per_round": _STEPS})
        started = time.perf_counter()
        train_round(
            study.model_copy(update={"training": training}),
            site,
            prepared,
            self.weights,
            round_number=1,
            progress=stamp,
        )
        total_s = time.perf_counter() - started
        step_s = (stamps[-1] - stamps[0]) / (_STEPS - 1)
        return step_s, max(0.0, total_s - _STEPS * step_s)


def _only(prepared: PreparedSite, records: Sequence[PairRecord]) -> PreparedSite:
    """The same store with some of its pairs."""
    chosen = tuple(sorted(records, key=lambda record: record.pair_id))
    return replace(prepared, index=replace(prepared.index, records=chosen))


def _with_patients(prepared: PreparedSite, number: int) -> PreparedSite:
    """The same store with so many training patients, or all of them where there are fewer."""
    patients = sorted({record.patient_id for record in prepared.records("train")})[:number]
    return _only(prepared, [r for r in prepared.records("train") if r.patient_id in patients])


def _unlimited(privacy: PrivacyConfig | None) -> PrivacyConfig | None:
    """The same way of training, with nothing that could refuse a trial; any noise takes as long."""
    if privacy is None:
        return None
    anything = {"noise_multiplier": 1.0, "target_epsilon": None, "delta": _TINY_DELTA}
    return privacy.model_copy(update={**anything, "max_epsilon": None})
