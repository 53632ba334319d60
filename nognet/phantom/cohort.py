"""Write phantom cohorts: for each hospital DICOM studies, `studies.csv`, `site.yaml`, truth."""

from __future__ import annotations

import contextlib
import csv
import io
import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from nognet.errors import NognetError, SiteDataError
from nognet.files import write_json_atomic, write_text_atomic
from nognet.phantom.patient import plan_patients
from nognet.phantom.scanner import scanner_of_site, site_name
from nognet.phantom.study import STUDY_COLUMNS, PatientJob, PatientResult, write_patient
from nognet.types import STRATA, stratum_of

TRUTH_NOTE = (
    "Truth of a synthetic phantom, for tests: no measurement, no patient. Not read by training."
)
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SiteSummary:
    """What a hospital's folder holds; strata are counted over pairs, by true volumes."""

    site: str
    folder: Path
    mask_format: str
    patients: int
    nodules: int
    series: int
    pairs: int
    strata: dict[str, int]


def write_cohort(  # noqa: PLR0913  each is an option of the command
    out: Path,
    *,
    sites: int,
    patients: int,
    seed: int,
    workers: int | None = None,
    background: Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[SiteSummary, ...]:
    """Write a cohort below `out`, one folder a hospital.

    Args:
        out: Folder of the cohort; made if needed.
        sites: Number of hospitals.
        patients: Patients of each hospital.
        seed: Root seed; equal seeds give equal files, whatever the number of workers.
        workers: Processes; by default one a core.
        background: A real CT to grow the nodules in instead of drawing thoraxes.
        overwrite: Replace hospital folders that an earlier call wrote.
        progress: Called with (patients written, patients in all).

    Raises:
        SiteDataError: `out` is not empty, or the background can't be used.
    """
    folders = [out / site_name(site) for site in range(sites)]
    make_room(out, folders, overwrite=overwrite)
    if background is not None:
        from nognet.phantom.background import load_background

        load_background(background)  # a fault is told before workers start
    jobs = [
        PatientJob(plan, seed, folder, background)
        for site, folder in enumerate(folders)
        for plan in plan_patients(site, patients, seed)
    ]
    results = _run(jobs, workers or os.cpu_count() or 1, progress)
    return tuple(
        _finish_site(site, folder, seed, results[site * patients : (site + 1) * patients])
        for site, folder in enumerate(folders)
    )


def make_room(out: Path, folders: Sequence[Path], *, overwrite: bool) -> None:
    """Make sure that the hospitals' folders can be written; with `overwrite` remove old ones.

    Raises:
        SiteDataError: `out` is not empty, or a folder there is none that a phantom wrote.
    """
    if out.exists() and not out.is_dir():
        raise SiteDataError(f"{out}: is a file; give a folder to write the cohort to")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise SiteDataError(
            f"{out}: is not empty; give another folder, or --force to replace what is there"
        )
    for folder in folders:
        if not folder.is_dir():
            continue
        # only what an earlier call wrote is removed, never a hospital's own files
        if any(folder.iterdir()) and not (folder / "truth.json").is_file():
            raise SiteDataError(
                f"{folder}: holds files but no truth.json, so it is no phantom hospital of ours; "
                "it is left alone; give another folder"
            )
        shutil.rmtree(folder)


def _run(
    jobs: Sequence[PatientJob], workers: int, progress: Progress | None
) -> list[PatientResult]:
    """Write all patients side by side; results in the order of the jobs."""
    results: dict[int, PatientResult] = {}
    context = multiprocessing.get_context("spawn")
    with _one_thread_each(), ProcessPoolExecutor(min(workers, len(jobs)), context) as pool:
        futures = {pool.submit(write_patient, job): number for number, job in enumerate(jobs)}
        try:
            for future in as_completed(futures):
                results[futures[future]] = future.result()
                if progress:
                    progress(len(results), len(jobs))
        except (NognetError, OSError, KeyboardInterrupt):
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [results[number] for number in range(len(jobs))]


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let the processes started within use one thread each: they fill the cores themselves."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _finish_site(
    site: int, folder: Path, seed: int, results: Sequence[PatientResult]
) -> SiteSummary:
    rows = [row for result in results for row in result.rows]
    nodules = [entry for result in results for entry in result.truth]
    series = sum(result.series for result in results)
    return write_site_files(site, folder, seed, rows=rows, nodules=nodules, series=series)


_SITE_NOTE = """\
# A phantom hospital. egress.min_patients is 1 since no patient is behind its small splits;
# a hospital leaves it out, and figures with fewer than 5 patients behind them are withheld.
"""


def write_site_files(
    site: int,
    folder: Path,
    seed: int,
    *,
    rows: Sequence[dict[str, str]],
    nodules: Sequence[dict[str, Any]],
    series: int,
) -> SiteSummary:
    """Write a hospital's `studies.csv` (none without rows), `site.yaml` and `truth.json`."""
    scanner = scanner_of_site(site, seed)
    if rows:  # with an empty table, a site's prepared pairs would be refused as an empty site
        text = io.StringIO()
        writer = csv.DictWriter(text, STUDY_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text_atomic(folder / "studies.csv", text.getvalue())
    site_file = yaml.safe_dump(site_settings(site, seed), sort_keys=False)
    write_text_atomic(folder / "site.yaml", _SITE_NOTE + site_file)
    truth = {
        "note": TRUTH_NOTE,
        "schema_version": 1,
        "site": site_name(site),
        "seed": seed,
        "scanner": asdict(scanner),
        "nodules": nodules,
    }
    write_json_atomic(folder / "truth.json", truth)
    strata = count_strata(nodules)
    return SiteSummary(
        site=site_name(site),
        folder=folder,
        mask_format=scanner.mask_format if series else "ROI pairs",
        patients=len({entry["patient"] for entry in nodules}),
        nodules=len(nodules),
        series=series,
        pairs=sum(strata.values()),
        strata=strata,
    )


def site_settings(site: int, seed: int) -> dict[str, Any]:
    """Give a phantom hospital's `site.yaml`."""
    name = site_name(site)
    return {
        "name": name,
        "studies": "studies.csv",
        "cache": "cache",
        "state": "state",
        "seed": seed,
        "device": "cpu",
        "egress": {"min_patients": 1},
        "server": {
            "address": "127.0.0.1:9443",
            "ca": "../pki/ca.crt",
            "key": f"keys/{name}.key",
        },
    }


def count_strata(nodules: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Count the pairs of `truth.json`'s nodules by stratum."""
    counts = Counter(
        stratum_of(earlier["volume_mm3"], later["volume_mm3"])
        for nodule in nodules
        for earlier, later in combinations(nodule["visits"], 2)
    )
    return {stratum: counts[stratum] for stratum in STRATA}
