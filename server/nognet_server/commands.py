"""`nognet-server`: run a study over sites that dial in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nognet.console import (
    LogFormat,
    LogFormatOption,
    VersionOption,
    run_guarded,
    say,
    set_up_logging,
)
from nognet.errors import INTERRUPTED_EXIT_CODE

if TYPE_CHECKING:
    from nognet.report.metrics_file import RunStatus
    from nognet_server.run_folder import RunFolder

app = typer.Typer(name="nognet-server", add_completion=False, pretty_exceptions_enable=False)


@app.command()
def server(
    study: Annotated[
        Path | None, typer.Option(help="The study, study.yaml; with --resume that of the run.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Folder of a run to go on with, for example runs/demo.")
    ] = None,
    log_format: LogFormatOption = LogFormat.text,
    version: VersionOption = False,  # noqa: ARG001  handled by its callback
) -> None:
    """Wait for the study's sites, run its rounds, and print the result of every site.

    Ctrl-C stops the run and all its processes; --resume goes on with it.
    """
    set_up_logging(log_format)
    if study is None and resume is None:
        raise typer.BadParameter("give a study, or the folder of a run to resume")
    sys.exit(_run(study, resume, log_format))


def _run(study_file: Path | None, resume: Path | None, log_format: LogFormat) -> int:
    from nognet.config import load_study
    from nognet.supervision.lock import exclusive
    from nognet_server.processes.startup import check_coordinator
    from nognet_server.processes.supervisor import serve_run
    from nognet_server.run_folder import (
        close_metrics,
        existing_run_folder,
        new_run_folder,
        write_study,
    )

    folder = existing_run_folder(resume) if resume is not None else None
    source = study_file if study_file is not None or folder is None else folder.study
    study = load_study(source or Path("study.yaml"))
    coordinator = check_coordinator(study)
    with exclusive(coordinator.state, "nognet-server"):
        if folder is None:
            folder = new_run_folder(study)
            write_study(folder, study)
        status: RunStatus = "failed"
        try:
            outcome = serve_run(
                coordinator, study, folder, resume=resume is not None, log_format=log_format
            )
            if outcome.exit_code == INTERRUPTED_EXIT_CODE:
                status = "interrupted"
        finally:
            close_metrics(folder, status)
    if outcome.exit_code == 0:
        _report(folder)
    else:
        say(f"nognet: {outcome.message}")
    return outcome.exit_code


def _report(folder: RunFolder) -> None:
    from nognet.report.html import build_report
    from nognet.report.metrics_file import read_metrics
    from nognet.report.tables import print_results

    print_results(read_metrics(folder.metrics))
    say(f"nognet: {build_report(folder.path)}")


def main() -> None:
    """Run `nognet-server`."""
    run_guarded(app)
