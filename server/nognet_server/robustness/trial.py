"""One run of the benchmark: a strategy, an attack, and what the honest sites have of it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nognet.config import StudyConfig, load_site
from nognet.errors import NognetError
from nognet.report.metrics_file import read_metrics
from nognet.report.metrics_schema import Figure, RunMetrics
from nognet_server.app import app as server_app
from nognet_server.robustness.attacks import Attack, attacking_app
from nognet_server.robustness.cohort import ROI
from nognet_server.runs.flower_config import RunSettings
from nognet_server.runs.folder import new_run_folder, write_study
from nognet_server.simulation.engine import SimulatedSite, load_client_app, simulate

METRICS = ("dsc", "psnr")
FEDERATED, COPY = "federated", "copy"
STRATEGIES: dict[str, dict[str, Any]] = {
    "fedavg": {"name": "fedavg", "weighting": "equal"},
    "fedmedian": {"name": "fedmedian"},
    "fedtrimmedavg": {"name": "fedtrimmedavg"},
    "krum": {"name": "krum"},
    "multikrum": {"name": "multikrum"},
    "bulyan": {"name": "bulyan"},
}
"""FedAvg with equal weights: the bad site shall have no more of them than any other."""
_MANY = {"minimum_sites": 99}


@dataclass(frozen=True)
class Plan:
    """What is run.

    Attributes:
        sites: Hospitals, of which the last attacks.
        patients: Of each hospital.
        rounds: Of each run.
        steps: Of a site in a round.
        seed: Of cohort, weights and order.
        norm_check: Whether updates far longer than the others' are left out.
        strategies: Names in `STRATEGIES`.
        attacks: What the last hospital does.
    """

    sites: int
    patients: int
    rounds: int
    steps: int
    seed: int
    norm_check: bool
    strategies: tuple[str, ...]
    attacks: tuple[Attack, ...]


@dataclass(frozen=True)
class Trial:
    """What one run came to, for the honest sites.

    Attributes:
        strategy: Its name.
        attack: Of the last site.
        status: ``completed``, or the public code of what ended it.
        rounds_left_out: In how many rounds the attacker's update was left out before aggregation.
        best_round: Whose weights the run chose, by validation of all sites.
        test: Metric -> mean over the honest sites' test pairs, of those weights; None where the run
            has none.
        last_validation: The same of the last round's weights on validation.
        copy: Metric -> mean of copying the baseline on those test pairs.
        seconds: Wall time.
    """

    strategy: str
    attack: Attack
    status: str
    rounds_left_out: int
    best_round: int | None
    test: Mapping[str, float | None]
    last_validation: Mapping[str, float | None]
    copy: Mapping[str, float | None]
    seconds: float


def study_of(plan: Plan, strategy: str, attack: Attack, runs: Path) -> StudyConfig:
    """Make the study of a run."""
    # all but one at least: the attacker may be left out
    federation: dict[str, Any] = {"minimum_sites": max(_needed(strategy), plan.sites - 1)}
    if not plan.norm_check:
        federation["max_update_ratio"] = None
    return StudyConfig.model_validate(
        {
            "name": f"{strategy}-{attack}",
            "seed": plan.seed,
            "rounds": plan.rounds,
            "roi": ROI.model_dump(),
            "network": {"width": 4},
            "training": {"steps_per_round": plan.steps, "batch_size": 2, "warmup_steps": 3},
            "strategy": STRATEGIES[strategy],
            "federation": federation,
            "runs": str(runs),
        }
    )


def _needed(strategy: str) -> int:
    """Count the replies that a strategy needs."""
    values = {"name": "any", "strategy": STRATEGIES[strategy], "federation": _MANY}
    return StudyConfig.model_validate(values).strategy.sites_needed


def run_trial(plan: Plan, strategy: str, attack: Attack, sites: list[Path], runs: Path) -> Trial:
    """Run one study to its end, or to what ends it.

    Args:
        plan: Of the benchmark.
        strategy: Its name.
        attack: Of the last site.
        sites: As `write_hospitals` gives them.
        runs: Folder of run folders.
    """
    started = time.monotonic()
    study = study_of(plan, strategy, attack, runs)
    used = [*sites[: plan.sites - 1], sites[-1] if attack == "wrong-labels" else sites[-2]]
    folder = new_run_folder(study)
    write_study(folder, study)
    settings = RunSettings(study, folder.path, closed_roster=plan.sites, poll_s=0.02)
    simulated = [SimulatedSite(load_site(path).name, path, threads=1) for path in used]
    client = attacking_app(load_client_app(), used[-1], attack)
    status = "completed"
    try:
        simulate(server_app, client, simulated, settings, workers=1)
    except NognetError as err:
        status = err.public_code
    metrics = read_metrics(folder.path)
    bad = simulated[-1].name
    return Trial(
        strategy,
        attack,
        status,
        _left_out(metrics, bad),
        metrics.final.round if metrics.final else None,
        _test(metrics, bad, FEDERATED),
        _last_validation(metrics, bad),
        _test(metrics, bad, COPY),
        time.monotonic() - started,
    )


def _left_out(metrics: RunMetrics, bad: str) -> int:
    entries = [played.sites.get(bad) for played in metrics.rounds]
    return sum(entry is not None and entry.status == "left-out" for entry in entries)


def _test(metrics: RunMetrics, bad: str, predictor: str) -> dict[str, float | None]:
    entries = metrics.final.sites if metrics.final else {}
    honest = [entry.test.get(predictor, {}) for site, entry in entries.items() if site != bad]
    return {metric: _pooled([figures.get(metric) for figures in honest]) for metric in METRICS}


def _last_validation(metrics: RunMetrics, bad: str) -> dict[str, float | None]:
    entries = metrics.rounds[-1].sites if metrics.rounds else {}
    honest = [e.validation.get(FEDERATED, {}) for site, e in entries.items() if site != bad]
    return {metric: _pooled([figures.get(metric) for figures in honest]) for metric in METRICS}


def _pooled(figures: list[Figure | None]) -> float | None:
    """Average over pairs, from the sites' own means."""
    known = [(f.mean, f.n_pairs) for f in figures if f is not None and f.mean is not None]
    pairs = sum(count for _, count in known)
    return math.fsum(mean * count for mean, count in known) / pairs if pairs else None
