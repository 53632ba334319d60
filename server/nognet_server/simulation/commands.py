"""`nognet-sim`: a whole federation on this machine, with the apps of a deployed one."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from nognet.console import LogFormat, LogFormatOption, VersionOption, run_guarded, set_up_logging

app = typer.Typer(name="nognet-sim", add_completion=False, pretty_exceptions_enable=False)


@app.command()
def sim(  # noqa: PLR0913, PLR0917  each option is an argument
    sites: Annotated[
        list[Path], typer.Option(help="A site.yaml; several after one --sites, or one each.")
    ],
    more_sites: Annotated[
        list[Path] | None, typer.Argument(help="More site.yaml files.", metavar="[SITES]...")
    ] = None,
    study: Annotated[
        Path | None, typer.Option(help="The study.yaml; with --resume that of the run.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Folder of a run to go on with, for example runs/demo.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Sites that work at once; by default one a core.")
    ] = None,
    chaos: Annotated[
        str | None,
        typer.Option(
            help="Faults to inflict, as 'drop:site_b@3, slow:site_a x5, nan:site_c@2, oom:site_a@4,"
            " skew:site_b+300s, poison:site_c'; the study then runs without them too, to compare."
        ),
    ] = None,
    reference: Annotated[
        bool, typer.Option(help="With --chaos: also run without the faults.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print metrics.json to stdout.")] = False,
    verbose: Annotated[bool, typer.Option(help="Show Flower's own log too.")] = False,
    log_format: LogFormatOption = LogFormat.text,
    version: VersionOption = False,  # noqa: ARG001  handled by its callback
) -> None:
    """Train a study over simulated sites; their data must lie on this machine.

    Ctrl-C ends everything and leaves a run that --resume goes on with.
    """
    set_up_logging(log_format)
    if study is None and resume is None:
        raise typer.BadParameter("give --study, or with --resume the folder of a run")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
    from nognet_server.simulation.request import Request, plan_of

    request = Request(
        study=study,
        sites=(*sites, *(more_sites or ())),
        resume=resume,
        workers=workers,
        as_json=as_json,
        verbose=verbose,
        chaos=chaos,
        reference=reference,
        bar=log_format is LogFormat.text and not verbose,  # Flower's log would run into it
    )
    plan = plan_of(request)
    from nognet_server.simulation.session import run_session

    sys.exit(run_session(request, plan))


def main() -> None:
    """Run `nognet-sim`."""
    run_guarded(app)
