"""What `nognet-sim` does: prepare, simulate, report."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from nognet.config import SiteConfig
from nognet.console import emit, say
from nognet.data.site.prepare import prepare_site, prepared_or_prepare
from nognet.data.store import PreparedSite
from nognet.errors import INTERRUPTED_EXIT_CODE, NognetError
from nognet.files import write_json_atomic
from nognet.report.html import build_report
from nognet.report.metrics_file import read_metrics
from nognet.report.site_cases import cases_of_site
from nognet.report.tables import print_results
from nognet.training_bar import steps_told
from nognet.types import SPLITS
from nognet_server.rehearsal import rehearsal, rehearsal_lines
from nognet_server.runs.beginning import PRETRAINING, lay_beginning
from nognet_server.runs.flower_config import RunSettings
from nognet_server.runs.folder import RunFolder, new_run_folder, write_study
from nognet_server.simulation.engine import (
    SimulatedSite,
    SimulationStopped,
    default_workers,
    load_chaotic_app,
    load_client_app,
    simulate,
)
from nognet_server.simulation.request import Plan, Request
from nognet_server.simulation.steps_shown import steps_shown

_log = logging.getLogger("nognet.simulation")
_POLL_S = 0.05
_STATUS_EVERY_S = 5.0


def run_session(request: Request, plan: Plan) -> int:
    """Do what the command line asks for; give the exit code.

    Raises:
        SiteDataError: a site's files can't be used.
    """
    for path, config in plan.sites:
        _prepare(path, config)
    code, folder = _run(request, plan)
    if plan.faults:
        code = _rehearsed(request, plan, code, folder)
    _leave_if_threads_work(_sites_at_work(), code)
    return code


def _rehearsed(request: Request, plan: Plan, code: int, folder: RunFolder) -> int:
    """Run the study without the faults too, and say what they cost."""
    calm: RunFolder | None = None
    if request.reference:
        say("nognet: the same study without faults, to compare")
        calm_code, calm = _run(request, replace(plan, faults=(), resumed=None))
        code = code or calm_code
    found = rehearsal(plan.chaos, folder, calm)
    write_json_atomic(folder.path / "chaos.json", found)
    for line in rehearsal_lines(found):
        emit(line) if not request.as_json else say(line)
    return code


def _run(request: Request, plan: Plan) -> tuple[int, RunFolder]:
    """Run the plan; give the exit code and where everything of the run is."""
    folder = plan.resumed
    if folder is None:
        folder = new_run_folder(plan.study)
        write_study(folder, plan.study)
    settings = RunSettings(
        study=plan.study,
        run_folder=folder.path,
        resume=plan.resumed is not None,
        closed_roster=len(plan.sites),
        poll_s=_POLL_S,
    )
    with _log_file(folder):
        try:
            pretrains = plan.study.init.name == "phantom"
            with steps_told(PRETRAINING, _log.info, bar=request.bar and pretrains) as told:
                lay_beginning(plan.study, folder, told)
            _simulate(plan, settings, request)
        except KeyboardInterrupt as err:
            _say_how_to_resume(folder, request)
            at_work = isinstance(err, SimulationStopped) and err.threads_left
            _leave_if_threads_work(at_work, INTERRUPTED_EXIT_CODE)
            sys.exit(INTERRUPTED_EXIT_CODE)
        except NognetError as err:
            say(f"nognet: {err}")
            return err.exit_code, folder
    _report(folder, plan.sites, as_json=request.as_json)
    return 0, folder


def _prepare(path: Path, config: SiteConfig) -> PreparedSite:
    """Bring the site's pairs up to date with its files; say what there is."""
    told = time.monotonic()

    def progress(done: int, of: int, _: str) -> None:
        nonlocal told
        if time.monotonic() - told >= _STATUS_EVERY_S:
            told = time.monotonic()
            _log.info("%s: preparing, %d of %d patients", config.name, done, of)

    if config.studies.exists():
        prepared = prepare_site(config, progress=progress)
    else:
        prepared = prepared_or_prepare(config)  # pairs that were written without files
    counts = prepared.counts()
    shares = ", ".join(f"{split} {counts[split]['pairs']}" for split in SPLITS)
    _log.info("%s (%s): pairs prepared: %s", config.name, path, shares)
    return prepared


def _simulate(plan: Plan, settings: RunSettings, request: Request) -> None:
    from nognet_server.app import app

    if request.verbose:
        _log.setLevel(logging.DEBUG)
    sites = [SimulatedSite(config.name, path, config.threads) for path, config in plan.sites]
    workers = request.workers or default_workers(len(sites))
    _log.info("run folder %s; %d sites, %d at once", settings.run_folder, len(sites), workers)
    names = [site.name for site in sites]
    shown = steps_shown(names, settings.study.rounds) if request.bar else contextlib.nullcontext()
    client_app = load_chaotic_app(plan.chaos) if plan.faults else load_client_app()
    with shown:
        simulate(app, client_app, sites, settings, workers=workers)


def _report(folder: RunFolder, sites: Sequence[tuple[Path, SiteConfig]], *, as_json: bool) -> None:
    if as_json:
        emit(folder.metrics.read_text(encoding="utf-8").rstrip())
    else:
        print_results(read_metrics(folder.metrics))
    cases = [
        case
        for _, config in sites
        for case in cases_of_site(folder.model, config, prepared_or_prepare(config))
    ]
    report = build_report(folder.path, cases)
    _log.info("report: %s", report)


def _say_how_to_resume(folder: RunFolder, request: Request) -> None:
    sites = " ".join(str(path) for path in request.sites)
    workers = f" --workers {request.workers}" if request.workers else ""
    say(
        "nognet: stopped; nothing of the rounds done is lost. Go on with:\n"
        f"  nognet-sim --resume {folder.path} --sites {sites}{workers}"
    )


@contextlib.contextmanager
def _log_file(folder: RunFolder) -> Iterator[None]:
    """Write the log of `nognet` to the run folder too."""
    folder.logs.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder.logs / "simulation.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s %(message)s"))
    logger = logging.getLogger("nognet")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def _sites_at_work() -> bool:
    return any(t.name.startswith("ThreadPoolExecutor") for t in threading.enumerate())


def _leave_if_threads_work(threads_work: bool, code: int) -> None:
    """End the process at once where a site's thread is still at work.

    Python would wait for it, up to the end of its round. All files are written in one step, so
    nothing can be left half done.
    """
    if threads_work:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
