"""Examine a site: every time point read, every pair cut and judged, patients side by side."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import NoReturn

from nognet.config import SiteConfig
from nognet.data.inspection import Inspected
from nognet.data.pairs.outcome import PairOutcome, PatientResult
from nognet.data.pairs.patient import prepare_patient
from nognet.data.pairs.task import PatientTask
from nognet.data.site.people import judge_people
from nognet.data.site.pseudonym import Pseudonyms, load_or_make_key
from nognet.data.site.studies import StudyRow, by_patient, read_studies
from nognet.data.stored_pair import PairRecord
from nognet.errors import SiteDataError

Progress = Callable[[int, int, str], None]
"""Called with patients done, patients in all, and what happened; names nobody."""


@dataclass(frozen=True)
class SeriesRow:
    """A series or a mask of the table: the lines that name it, and what is known of it."""

    lines: tuple[int, ...]
    patient: str
    row: Inspected


@dataclass(frozen=True)
class Examination:
    """What became of every pair of a site.

    Attributes:
        outcomes: One a pair, in the order of the table.
        rows: Rows of `studies.csv`.
        patients_without_pair: Patients with one time point a nodule only, as in `studies.csv`.
        seconds: Wall time, and the workers' seconds by phase.
        series: One a CT and one a mask, in the order of the table.
    """

    outcomes: tuple[PairOutcome, ...]
    rows: int
    patients_without_pair: tuple[str, ...]
    seconds: dict[str, float]
    series: tuple[SeriesRow, ...] = ()

    @property
    def records(self) -> list[PairRecord]:
        """Records of the pairs that may be used."""
        usable = (o for o in self.outcomes if o.status in ("ok", "warning"))
        return [o.record for o in usable if o.record is not None]


def examine_site(
    site: SiteConfig, *, progress: Progress | None = None, keep_cuts: bool = False
) -> Examination:
    """Read, register, cut and judge every pair of a site; write no index.

    Pairs are stored as they are made, so that a preparation reuses them.

    Args:
        site: The site's configuration.
        progress: Told after each patient.
        keep_cuts: Keep pairs that were refused after they had been cut, to be looked at.

    Raises:
        SiteDataError: `studies.csv` has faults, the pseudonyms' key can't be used, or cache or
            state can't be written.
    """
    started = time.perf_counter()
    groups = by_patient(read_studies(site.studies))
    pseudonyms = load_or_make_key(site.state)
    tasks = [_task(site, pseudonyms, rows, keep_cuts=keep_cuts) for rows in groups.values()]
    workers = min(site.preparation.workers or len(os.sched_getaffinity(0)), len(tasks))
    with _ending_on_sigterm():
        results = _run(tasks, workers, progress)
    outcomes = judge_people([outcome for r in results for outcome in r.outcomes], results)
    with_pair = {outcome.patient for outcome in outcomes}
    seconds = {"wall": time.perf_counter() - started}
    for result in results:
        for phase, spent in result.seconds.items():
            seconds[phase] = seconds.get(phase, 0.0) + spent
    return Examination(
        outcomes=tuple(sorted(outcomes, key=lambda o: (o.lines, o.nodule))),
        rows=sum(len(rows) for rows in groups.values()),
        patients_without_pair=tuple(p for p in groups if p not in with_pair),
        seconds=seconds,
        series=_series(groups, results),
    )


def _task(
    site: SiteConfig, pseudonyms: Pseudonyms, rows: tuple[StudyRow, ...], *, keep_cuts: bool
) -> PatientTask:
    return PatientTask(
        patient_id=pseudonyms.of_patient(rows[0].patient),
        rows=rows,
        pseudonyms=pseudonyms,
        roi=site.roi,
        limits=site.preparation,
        cache=site.cache,
        state=site.state,
        keep_cuts=keep_cuts,
    )


def _series(
    groups: dict[str, tuple[StudyRow, ...]], results: Sequence[PatientResult]
) -> tuple[SeriesRow, ...]:
    """List CTs and masks by the first line that names them."""
    found: list[SeriesRow] = []
    for patient, result in zip(groups, results, strict=True):
        for point in result.times:
            found.append(SeriesRow(tuple(sorted(point.lines)), patient, point.facts.ct))
            found += [
                SeriesRow((line,), patient, mask)
                for line, mask in zip(point.lines, point.facts.masks, strict=True)
            ]
    return tuple(sorted(found, key=lambda s: (s.lines[0], s.row.kind == "mask")))


def _run(
    tasks: Sequence[PatientTask], workers: int, progress: Progress | None
) -> list[PatientResult]:
    """Work through the patients; results come in the order of the tasks."""
    tell = progress or (lambda *_: None)
    tell(0, len(tasks), f"{len(tasks)} patients, {workers} at a time")
    if workers == 1:
        results: list[PatientResult] = []
        for task in tasks:
            results.append(prepare_patient(task))
            tell(len(results), len(tasks), _summary(results))
        return results
    with tempfile.TemporaryDirectory(prefix="nognet-", ignore_cleanup_errors=True) as scratch:
        return _run_in_pool(tasks, workers, tell, scratch)


def _run_in_pool(
    tasks: Sequence[PatientTask], workers: int, tell: Progress, scratch: str
) -> list[PatientResult]:
    """Work through the patients in processes that unpack archives below `scratch`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nognet.data.pairs.patient", "highdicom"])
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(scratch,)
    )
    try:
        futures = [pool.submit(prepare_patient, task) for task in tasks]
        _await_all(futures, tell)
        return [future.result() for future in futures]
    except BrokenProcessPool as err:
        raise SiteDataError(
            f"one of {workers} worker processes died, probably for want of memory; set "
            "preparation.workers lower and run again, finished pairs are kept",
            code="worker-died",
        ) from err
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _await_all(futures: Sequence[Future[PatientResult]], tell: Progress) -> None:
    pending, results = set(futures), list[PatientResult]()
    while pending:
        finished, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in finished:
            results.append(future.result())
            tell(len(results), len(futures), _summary(results))


def _start_worker(scratch: str) -> None:
    """Leave Ctrl-C to the parent, one thread to each worker, and end when the parent is killed."""
    import SimpleITK as sitk

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    tempfile.tempdir = scratch
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel, scratch), daemon=True).start()


def _end_with(sentinel: int, scratch: str) -> None:
    """Wait until the parent is gone, or a killed run would go on to the end of its queue.

    What was unpacked holds patients' images, and a killed parent can't remove it any more.
    """
    connection.wait([sentinel])
    gone = f"{scratch}.{os.getpid()}"
    with contextlib.suppress(OSError):  # another worker may have been faster
        Path(scratch).rename(gone)  # so that nothing more is written there meanwhile
    shutil.rmtree(gone, ignore_errors=True)
    os._exit(1)


@contextlib.contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Unwind on SIGTERM, so that what was unpacked is removed; handlers of others are left."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


def _summary(results: Sequence[PatientResult]) -> str:
    """Count the pairs so far."""
    outcomes = [outcome for result in results for outcome in result.outcomes]
    refused = sum(outcome.status == "refused" for outcome in outcomes)
    usable = sum(outcome.record is not None for outcome in outcomes)
    return f"so far {usable} pairs usable" + (f", {refused} refused" if refused else "")
