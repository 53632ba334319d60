"""What `nognet-sim` does: check, prepare, simulate, report."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nognet.config import SiteConfig, StudyConfig, load_site, load_study
from nognet.console import emit, say
from nognet.data.prepare import prepare_site, prepared_or_prepare
from nognet.data.store import PreparedSite
from nognet.errors import INTERRUPTED_EXIT_CODE, ConfigError, ContractError, NognetError
from nognet.report.html import build_report
from nognet.report.metrics_file import read_metrics
from nognet.report.tables import print_results
from nognet.types import SPLITS
from nognet_server.run_config import RunSettings
from nognet_server.run_folder import (
    RunFolder,
    existing_run_folder,
    new_run_folder,
    write_study,
)
from nognet_server.simulation.engine import (
    SimulatedSite,
    SimulationStopped,
    default_workers,
    load_client_app,
    simulate,
)

_log = logging.getLogger("nognet.simulation")
_POLL_S = 0.05
_STATUS_EVERY_S = 5.0


@dataclass(frozen=True)
class Request:
    """The command line."""

    study: Path | None
    sites: tuple[Path, ...]
    resume: Path | None = None
    workers: int | None = None
    as_json: bool = False
    verbose: bool = False


def run_session(request: Request) -> int:
    """Do what the command line asks for; give the exit code.

    Raises:
        ConfigError: the study, a site, or both together are faulty.
        SiteDataError: a site's files can't be used.
        FederationError: the run can't go on.
    """
    study, folder = _study_of(request)
    configs = _sites_of(request.sites, study)
    for path, config in configs:
        _prepare(path, config)
    if folder is None:
        folder = new_run_folder(study)
        write_study(folder, study)
    settings = RunSettings(
        study=study,
        run_folder=folder.path,
        resume=request.resume is not None,
        closed_roster=len(configs),
        poll_s=_POLL_S,
    )
    with _log_file(folder):
        try:
            _simulate(configs, settings, request)
        except SimulationStopped as err:
            _say_how_to_resume(folder, request)
            _leave_if_threads_work(err.threads_left, INTERRUPTED_EXIT_CODE)
            return INTERRUPTED_EXIT_CODE
        except NognetError as err:
            say(f"nognet: {err}")
            _leave_if_threads_work(_sites_at_work(), err.exit_code)
            return err.exit_code
    _report(folder, as_json=request.as_json)
    _leave_if_threads_work(_sites_at_work(), 0)
    return 0


def _study_of(request: Request) -> tuple[StudyConfig, RunFolder | None]:
    """Read the study; on resume the run's own, unless another one is given to hold against it."""
    folder = existing_run_folder(request.resume) if request.resume is not None else None
    path = request.study if request.study is not None else folder.study if folder else None
    if path is None:
        raise ConfigError("no study: give --study, or --resume with the folder of a run")
    return load_study(path), folder


def _sites_of(paths: Sequence[Path], study: StudyConfig) -> list[tuple[Path, SiteConfig]]:
    """Read all sites and check them together, before any work is done."""
    configs = [(path, load_site(path)) for path in paths]
    first: dict[str, Path] = {}
    for path, config in configs:
        if config.name in first:
            raise ConfigError(
                f"two sites are named '{config.name}': {first[config.name]} and {path}; names must "
                "be unique"
            )
        first[config.name] = path
        if config.roi != study.roi:
            raise ContractError(
                f"{path}: roi is {_roi_text(config)}, the study's is {_roi_text(study)}; both must "
                "be the same",
                code="roi",
            )
    needed = study.federation.minimum_sites
    if len(configs) < needed:
        raise ConfigError(
            f"{len(configs)} site given, but federation.minimum_sites of the study is {needed}; "
            "give more sites or lower it"
        )
    return sorted(configs, key=lambda item: item[1].name)


def _roi_text(config: SiteConfig | StudyConfig) -> str:
    low, high = config.roi.hu_window
    return f"{config.roi.size_vox} voxels, {low:g} to {high:g} HU"


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


def _simulate(
    configs: Sequence[tuple[Path, SiteConfig]], settings: RunSettings, request: Request
) -> None:
    from nognet_server.app import app

    if request.verbose:
        _log.setLevel(logging.DEBUG)
    sites = [SimulatedSite(config.name, path, config.threads) for path, config in configs]
    workers = request.workers or default_workers(len(sites))
    _log.info("run folder %s; %d sites, %d at once", settings.run_folder, len(sites), workers)
    simulate(app, load_client_app(), sites, settings, workers=workers)


def _report(folder: RunFolder, *, as_json: bool) -> None:
    if as_json:
        emit(folder.metrics.read_text(encoding="utf-8").rstrip())
    else:
        print_results(read_metrics(folder.metrics))
    report = build_report(folder.path)
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
