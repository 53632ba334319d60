"""The federations of `nognet benchmark privacy`: laid out as files, run by `nognet-sim`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from nognet.commands.benchmark_privacy_figures import result_of
from nognet.config import RoiConfig
from nognet.data.store import open_store, write_store
from nognet.errors import ConfigError, FederationError
from nognet.files import write_json_atomic, write_text_atomic
from nognet.phantom.roi import make_roi_pairs
from nognet.phantom.scanner import site_name
from nognet.report.privacy_costs import CellResult
from nognet.types import RoiPair, Split

SITES = 3
ROI = RoiConfig(size_vox=32)
VALIDATION_PATIENTS = 12
TEST_PATIENTS = 24
_TAIL = 2_000


@dataclass(frozen=True)
class PrivacyPlan:
    """What all federations have in common; patients, batch and steps are a site's."""

    patients: int
    rounds: int
    steps: int
    batch: int
    clip_norm: float
    learning_rate: float
    pretraining_steps: int
    cohort_seed: int

    @property
    def delta(self) -> float:
        """Half of what is refused, 1 / (2 n)."""
        return 1 / (4 * self.patients)


@dataclass(frozen=True)
class Cell:
    """One federation: epsilon (None: no privacy), first weights, seed."""

    epsilon: float | None
    init: str
    seed: int

    @property
    def name(self) -> str:
        """As its folder is named.

        >>> Cell(0.5, "random", 2).name, Cell(None, "phantom", 1).name
        ('eps-0p5-random-2', 'eps-inf-phantom-1')
        """
        shown = "inf" if self.epsilon is None else f"{self.epsilon:g}".replace(".", "p")
        return f"eps-{shown}-{self.init}-{self.seed}"


class Told(Protocol):
    """Is told of every federation that is done."""

    def __call__(self, cell: Cell, seconds: float, *, was_done: bool) -> None:
        """Take note; `was_done`: by an earlier command."""


def lay_out(plan: PrivacyPlan, out: Path) -> None:
    """Write the hospitals' pairs, or take those that the same plan wrote before.

    Raises:
        ConfigError: the folder holds another plan's.
    """
    path = out / "plan.json"
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before != asdict(plan):
            raise ConfigError(
                f"{path}: this folder holds runs of other settings; give another --out, or the "
                f"settings of before: {json.dumps(before)}",
                code="exists",
            )
    write_json_atomic(path, asdict(plan))
    for site in range(SITES):
        if not (cache_of(out, site) / ".complete").is_file():
            _write_site(plan, out, site)


def _write_site(plan: PrivacyPlan, out: Path, site: int) -> None:
    count = plan.patients + VALIDATION_PATIENTS + TEST_PATIENTS
    pairs = make_roi_pairs(count, seed=plan.cohort_seed, site=site, roi=ROI)
    ids = list(dict.fromkeys(pair.patient_id for pair in pairs))
    splits: dict[str, Split] = dict.fromkeys(ids[: plan.patients], "train")
    splits |= dict.fromkeys(ids[plan.patients : plan.patients + VALIDATION_PATIENTS], "validation")
    splits |= dict.fromkeys(ids[plan.patients + VALIDATION_PATIENTS :], "test")
    shutil.rmtree(cache_of(out, site), ignore_errors=True)
    write_store(cache_of(out, site), pairs, splits, roi=ROI)
    write_text_atomic(cache_of(out, site) / ".complete", "")


def cache_of(out: Path, site: int) -> Path:
    """Give the folder of a hospital's pairs."""
    return out.resolve() / "pairs" / site_name(site)


def pairs_to_test_on(out: Path) -> dict[str, list[RoiPair]]:
    """Read each hospital's test pairs."""
    return {
        site_name(site): list(open_store(cache_of(out, site)).pairs("test"))
        for site in range(SITES)
    }


def study_values(plan: PrivacyPlan, cell: Cell, out: Path) -> dict[str, Any]:
    """Give a federation's `study.yaml`."""
    init = {"name": "phantom", "steps": plan.pretraining_steps} if cell.init == "phantom" else {}
    values: dict[str, Any] = {
        "name": cell.name,
        "seed": cell.seed,
        "rounds": plan.rounds,
        "roi": ROI.model_dump(mode="json"),
        "init": init or "random",
        "training": {
            "steps_per_round": plan.steps,
            "batch_size": plan.batch,
            "learning_rate": plan.learning_rate,
            "warmup_steps": 0,
        },
        "federation": {"minimum_sites": SITES},
        "runs": str(out.resolve() / "runs"),
    }
    if cell.epsilon is not None:
        privacy = {"target_epsilon": cell.epsilon, "clip_norm": plan.clip_norm}
        values["privacy"] = {**privacy, "delta": plan.delta}
    return values


def run_cells(
    plan: PrivacyPlan, cells: Sequence[Cell], out: Path, *, workers: int, told: Told
) -> list[CellResult]:
    """Run the federations that are not done yet; results in the order of the cells.

    Raises:
        FederationError: one failed; its log is named, and the others' results are kept.
    """

    def run(cell: Cell) -> CellResult:
        done = out / "cells" / cell.name / "result.json"
        was_done = done.is_file()
        if not was_done:
            write_json_atomic(done, asdict(_run(plan, cell, out)))
        result = _read(done)
        told(cell, result.seconds, was_done=was_done)
        return result

    with ThreadPoolExecutor(workers) as pool, contextlib.ExitStack() as ended:
        # after a failure, or Ctrl-C, no further one begins
        ended.callback(pool.shutdown, wait=False, cancel_futures=True)
        futures = [pool.submit(run, cell) for cell in cells]
        return [future.result() for future in futures]


def _run(plan: PrivacyPlan, cell: Cell, out: Path) -> CellResult:
    """Run one federation; each has sites of its own state, so that no cost adds to another's."""
    folder = out / "cells" / cell.name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(out / "runs" / cell.name, ignore_errors=True)
    study = folder / "study.yaml"
    write_text_atomic(study, yaml.safe_dump(study_values(plan, cell, out), sort_keys=False))
    sites = [_site_file(folder, out, site, cell.seed) for site in range(SITES)]
    started = time.monotonic()
    paths = [str(path) for path in sites]
    command = [_simulator(), "--study", str(study), "--workers", "1", "--json", "--sites", *paths]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    write_text_atomic(folder / "log.txt", done.stderr)
    if done.returncode != 0:
        raise FederationError(
            f"{cell.name} ended with exit code {done.returncode}; what is done is kept. The end of "
            f"{folder / 'log.txt'}:\n{done.stderr[-_TAIL:]}",
            code="cell-failed",
        )
    seconds = time.monotonic() - started
    return result_of(out / "runs" / cell.name, cell.init, cell.epsilon, cell.seed, seconds)


def _site_file(folder: Path, out: Path, site: int, seed: int) -> Path:
    name = site_name(site)
    values = {
        "name": name,
        "studies": "studies.csv",
        "cache": str(cache_of(out, site)),
        "state": f"state/{name}",
        "seed": seed,
        "device": "cpu",
        "threads": 1,
        "roi": ROI.model_dump(mode="json"),
    }
    path = folder / f"{name}.yaml"
    write_text_atomic(path, yaml.safe_dump(values, sort_keys=False))
    return path


def _simulator() -> str:
    beside = Path(sys.executable).with_name("nognet-sim")
    found = str(beside) if beside.is_file() else shutil.which("nognet-sim")
    if found is None:
        raise ConfigError("nognet-sim is not installed beside this nognet; install both")
    return found


def _read(path: Path) -> CellResult:
    return CellResult(**json.loads(path.read_text(encoding="utf-8")))
