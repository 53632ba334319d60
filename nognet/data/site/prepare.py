"""From `studies.csv` to the store of prepared pairs: all patients side by side, then the split."""

from __future__ import annotations

import contextlib
import fcntl
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nognet.config import SiteConfig
from nognet.data.findings import Finding
from nognet.data.pairs.patient import (
    PairOutcome,
    PatientResult,
    PatientTask,
    outcome_as_json,
    prepare_patient,
)
from nognet.data.site.pseudonym import Pseudonyms, load_or_make_key
from nognet.data.site.split import assign_splits, patient_stratum
from nognet.data.site.studies import StudyRow, by_patient, read_studies
from nognet.data.store import PAIRS_FOLDER, PairRecord, PreparedSite, open_store, write_index
from nognet.errors import SiteDataError
from nognet.files import write_text_atomic
from nognet.types import SPLITS, Split

SPLITS_NAME = "splits.json"
REPORT_NAME = "prepare-report.json"

Progress = Callable[[int, int, str], None]
"""Called with patients done, patients in all, and what happened; names nobody."""


@dataclass(frozen=True)
class Examination:
    """What became of every pair of a site.

    Attributes:
        outcomes: One a pair, in the order of the table.
        rows: Rows of `studies.csv`.
        patients_without_pair: Patients with one time point a nodule only, as in `studies.csv`.
        seconds: Wall time, and the workers' seconds by phase.
    """

    outcomes: tuple[PairOutcome, ...]
    rows: int
    patients_without_pair: tuple[str, ...]
    seconds: dict[str, float]

    @property
    def records(self) -> list[PairRecord]:
        """Records of the pairs that may be used."""
        return [o.record for o in self.outcomes if o.record is not None and o.status != "refused"]


def prepare_site(site: SiteConfig, *, progress: Progress | None = None) -> PreparedSite:
    """Prepare a site's pairs and store them; what is unchanged is reused.

    Args:
        site: The site's configuration.
        progress: Told after each patient.

    Raises:
        SiteDataError: `studies.csv` has faults, no pair is usable, or cache or state can't be
            written.
    """
    return prepare_site_with_report(site, progress=progress)[0]


def prepare_site_with_report(
    site: SiteConfig, *, progress: Progress | None = None
) -> tuple[PreparedSite, Examination]:
    """Prepare a site's pairs and say what became of each.

    Raises:
        SiteDataError: `studies.csv` has faults, no pair is usable, or cache or state can't be
            written.
    """
    with _locked(site.cache):
        examination = examine_site(site, progress=progress)
        records = examination.records
        if not records:
            raise _no_pairs(site, examination)
        prepared = write_index(site.cache, records, _splits(site, records), roi=site.roi)
        _forget_stale(site.cache, records)
        _write_report(site, examination)
    return prepared, examination


def examine_site(site: SiteConfig, *, progress: Progress | None = None) -> Examination:
    """Read, register, cut and judge every pair of a site; write no index.

    Raises:
        SiteDataError: `studies.csv` has faults, or the pseudonyms' key can't be used.
    """
    started = time.perf_counter()
    groups = by_patient(read_studies(site.studies))
    pseudonyms = load_or_make_key(site.state)
    tasks = [_task(site, pseudonyms, patient, rows) for patient, rows in groups.items()]
    workers = min(site.preparation.workers or len(os.sched_getaffinity(0)), len(tasks))
    results = _run(tasks, workers, progress)
    outcomes = _without_leaks([outcome for r in results for outcome in r.outcomes], results)
    with_pair = {outcome.patient for outcome in outcomes}
    seconds = {"wall": time.perf_counter() - started}
    for result in results:
        for phase, spent in result.seconds.items():
            seconds[phase] = seconds.get(phase, 0.0) + spent
    return Examination(
        outcomes=tuple(sorted(outcomes, key=lambda o: o.lines)),
        rows=sum(len(rows) for rows in groups.values()),
        patients_without_pair=tuple(p for p in groups if p not in with_pair),
        seconds=seconds,
    )


def prepared_or_prepare(site: SiteConfig, *, progress: Progress | None = None) -> PreparedSite:
    """Open the store where its pairs fit the site's ROI; prepare them where not.

    Raises:
        SiteDataError: preparation failed.
    """
    with contextlib.suppress(SiteDataError):
        prepared = open_store(site.cache)
        if prepared.roi == site.roi:
            return prepared
    return prepare_site(site, progress=progress)


def _task(
    site: SiteConfig, pseudonyms: Pseudonyms, patient: str, rows: tuple[StudyRow, ...]
) -> PatientTask:
    return PatientTask(
        patient_id=pseudonyms.of_patient(patient),
        rows=rows,
        pseudonyms=pseudonyms,
        roi=site.roi,
        limits=site.preparation,
        cache=site.cache,
    )


def _run(
    tasks: Sequence[PatientTask], workers: int, progress: Progress | None
) -> list[PatientResult]:
    """Work through the patients; results come in the order of the tasks."""
    tell = progress or (lambda *_: None)
    tell(0, len(tasks), f"{len(tasks)} patients, {workers} at a time")
    if workers == 1:
        results = []
        for done, task in enumerate(tasks, start=1):
            results.append(prepare_patient(task))
            tell(done, len(tasks), _summary(results[-1]))
        return results
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nognet.data.pairs.patient", "highdicom"])
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        futures = [pool.submit(prepare_patient, task) for task in tasks]
        _await_all(futures, tell)
        return [future.result() for future in futures]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _await_all(futures: Sequence[Future[PatientResult]], tell: Progress) -> None:
    pending, done = set(futures), 0
    while pending:
        finished, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in finished:
            done += 1
            tell(done, len(futures), _summary(future.result()))


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and one thread to each worker."""
    import SimpleITK as sitk

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def _summary(result: PatientResult) -> str:
    refused = sum(o.status == "refused" for o in result.outcomes)
    usable = len(result.outcomes) - refused
    return f"{usable} pairs usable" + (f", {refused} refused" if refused else "")


def _without_leaks(
    outcomes: list[PairOutcome], results: Sequence[PatientResult]
) -> list[PairOutcome]:
    """Refuse the pairs of patients that share a CT: they could fall into different splits."""
    owners: dict[str, set[str]] = {}
    lines: dict[str, list[int]] = {}
    for result in results:
        for digest, line in result.ct_digests:
            owners.setdefault(digest, set()).add(result.patient_id)
            lines.setdefault(digest, []).append(line)
    shared = {digest: who for digest, who in owners.items() if len(who) > 1}
    leaking = {
        patient: sorted(lines[digest]) for digest, who in shared.items() for patient in sorted(who)
    }
    return [
        replace(o, status="refused", findings=(*o.findings, _leak(leaking[o.patient_id])))
        if o.patient_id in leaking
        else o
        for o in outcomes
    ]


def _leak(lines: Sequence[int]) -> Finding:
    rows = ", ".join(map(str, dict.fromkeys(lines)))
    return Finding("patient-leak", "refused", f"rows {rows} have the same CT under two patients")


def _splits(site: SiteConfig, records: Sequence[PairRecord]) -> dict[str, Split]:
    """Assign splits; who had one keeps it, as long as seed and shares stay the same."""
    path = site.state / SPLITS_NAME
    settings = {"seed": site.seed, "split": site.split.model_dump(mode="json")}
    before: dict[str, Split] = {}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["settings"] == settings:
            before = {p: s for p, s in content["patients"].items() if s in SPLITS}
    patients = sorted({r.patient_id for r in records})
    strata = {p: patient_stratum(r.stratum for r in records if r.patient_id == p) for p in patients}
    splits = assign_splits(strata, site.split, seed=site.seed, before=before)
    content = {"settings": settings, "patients": {**before, **splits}}
    _write_state(path, content)
    return splits


def _forget_stale(cache: Path, records: Sequence[PairRecord]) -> None:
    """Delete pairs that no index names any more."""
    wanted = {cache / record.file for record in records}
    for file in (cache / PAIRS_FOLDER).glob("*.npz"):
        if file not in wanted:
            file.unlink(missing_ok=True)


def _write_report(site: SiteConfig, examination: Examination) -> None:
    """Keep what became of each pair in the state folder, for the site's eyes only."""
    content = {
        "seconds": examination.seconds,
        "pairs": [outcome_as_json(outcome) for outcome in examination.outcomes],
    }
    _write_state(site.state / REPORT_NAME, content)


def _write_state(path: Path, content: dict[str, Any]) -> None:
    """Write JSON for the site's eyes only."""
    try:
        write_text_atomic(path, json.dumps(content, indent=2) + "\n", mode=0o600)
    except OSError as err:
        raise SiteDataError(
            f"{path}: can't be written ({err.strerror}); 'state' in site.yaml has to name a folder "
            "that may be written",
            code="state-write",
        ) from err


def _no_pairs(site: SiteConfig, examination: Examination) -> SiteDataError:
    refused = examination.outcomes
    if not refused:
        return SiteDataError(
            f"{site.studies}: {examination.rows} rows, but no nodule has two dates; a pair needs "
            "two rows of the same patient and nodule",
            code="empty-site",
        )
    codes = sorted({f.code for o in refused for f in o.findings if f.severity == "refused"})
    reasons = [o.findings[-1].message for o in refused[:5]]
    return SiteDataError(
        f"{site.studies}: all {len(refused)} pairs were refused ({', '.join(codes)}):\n"
        + "\n".join(f"  {reason}" for reason in reasons),
        code="no-usable-pair",
    )


@contextlib.contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """Let one preparation at a time write to a cache; a second one waits and then reuses."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = (cache / ".lock").open("w", encoding="ascii")
    except OSError as err:
        raise SiteDataError(
            f"{cache}: the cache folder can't be written ({err.strerror}); "
            "'cache' in site.yaml has to name a folder that may be written",
            code="cache-write",
        ) from err
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
