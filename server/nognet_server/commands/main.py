"""`nognet-server`: run a study over sites that dial in."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nognet.console import (
    HealthPortOption,
    LogFormat,
    LogFormatOption,
    VersionOption,
    run_guarded,
    say,
    set_up_logging,
)
from nognet.errors import INTERRUPTED_EXIT_CODE
from nognet_server.commands.control import health, logs, sign, status, stop
from nognet_server.commands.rehearsal import rehearsal
from nognet_server.commands.withdraw import release, withdraw

if TYPE_CHECKING:
    from nognet.report.metrics_schema import RunStatus
    from nognet_server.processes.family import ServeOptions
    from nognet_server.runs.folder import RunFolder


class WarmStartChoice(StrEnum):
    """`nognet_server.runs.warm_start.WarmStart`, without its imports."""

    auto = "auto"
    fresh = "fresh"
    require = "require"


app = typer.Typer(name="nognet-server", add_completion=False, pretty_exceptions_enable=False)
for command in (status, stop, logs, health, sign, withdraw, release, rehearsal):
    app.command()(command)


@app.callback(invoke_without_command=True)
def server(  # noqa: PLR0913, PLR0917  each option is an argument
    context: typer.Context,
    study: Annotated[
        Path | None, typer.Option(help="The study, study.yaml; with --resume that of the run.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Folder of a run to go on with, for example runs/demo.")
    ] = None,
    warm_start: Annotated[
        WarmStartChoice,
        typer.Option(
            help="Go on with the study's unfinished run: if there is one, never, or it must be."
        ),
    ] = WarmStartChoice.fresh,
    health_port: HealthPortOption = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="No TLS, for trials; on 127.0.0.1 only.")
    ] = False,
    log_format: LogFormatOption = LogFormat.text,
    version: VersionOption = False,  # noqa: ARG001  handled by its callback
) -> None:
    """Wait for the study's sites, run its rounds, and print the result of every site.

    Ctrl-C stops the run and all its processes; --resume goes on with it.

    Exit codes: 0 completed; 3 configuration; 9 the run can't go on; 12 keys or certificates; 130
    stopped, --resume goes on. All of them: docs/exit-codes.md.
    """
    if context.invoked_subcommand is not None:
        return
    set_up_logging(log_format)
    if study is None and resume is None:
        raise typer.BadParameter("give a study, or the folder of a run to resume")
    if resume is not None and warm_start is not WarmStartChoice.fresh:
        raise typer.BadParameter(
            f"--resume names the run, --warm-start {warm_start} looks for one: give one of the two"
        )
    from nognet_server.processes.family import ServeOptions

    options = ServeOptions(
        resume=resume is not None,
        log_format=log_format,
        health_port=health_port,
        insecure=insecure,
    )
    sys.exit(_run(study, resume, options, warm_start))


def _run(
    study_file: Path | None, resume: Path | None, options: ServeOptions, warm: WarmStartChoice
) -> int:
    import os
    from dataclasses import replace

    from nognet.config import load_study
    from nognet.supervision.children import past_the_proxy
    from nognet.supervision.lock import exclusive
    from nognet_server.processes.startup import check_coordinator
    from nognet_server.processes.status import SERVER_LOG
    from nognet_server.processes.supervisor import serve_run
    from nognet_server.runs.folder import close_metrics, new_run_folder, write_study
    from nognet_server.runs.successor import check_not_superseded, existing_run_folder
    from nognet_server.runs.warm_start import WarmStart, lacks_only_its_report, unfinished_run

    folder = existing_run_folder(resume) if resume is not None else None
    source = study_file if study_file is not None or folder is None else folder.study
    study = load_study(source or Path("study.yaml"))
    if folder is None:
        folder = unfinished_run(study, WarmStart(warm.value))
        options = replace(options, resume=folder is not None)
    coordinator = check_coordinator(study, insecure=options.insecure)
    os.environ.update(past_the_proxy(os.environ))  # the control port is on loopback
    with exclusive(coordinator.state, "nognet-server"):
        if folder is None:
            folder = new_run_folder(study)
            write_study(folder, study)
        check_not_superseded(folder)  # since it was opened a site may have withdrawn
        if lacks_only_its_report(folder, study):
            _report(folder)
            return 0
        fields = {"run": folder.path.name}
        set_up_logging(options.log_format, fields=fields, file=folder.logs / SERVER_LOG)
        ended: RunStatus = "failed"
        try:
            outcome = serve_run(coordinator, study, folder, options)
            if outcome.exit_code == INTERRUPTED_EXIT_CODE:
                ended = "interrupted"
        finally:
            close_metrics(folder, ended)
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
