"""The umbrella command `nognet`."""

from __future__ import annotations

from typing import Annotated

import typer

import nognet
from nognet.commands import (
    benchmark,
    check,
    config,
    phantom,
    predict,
    prepare,
    privacy,
    provision,
    report,
    train,
)
from nognet.console import LogFormat, emit, run_guarded, set_up_logging

app = typer.Typer(
    name="nognet",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Federated training of MT-NoGNet on longitudinal chest CT. Not a medical device.",
)
app.add_typer(benchmark.app, name="benchmark")
app.add_typer(config.app, name="config")
app.add_typer(privacy.app, name="privacy")
app.add_typer(provision.app, name="provision")
app.command(name="report")(report.report)
app.command(name="prepare")(prepare.prepare)
app.command(name="check")(check.check)
app.command(name="phantom")(phantom.phantom)
app.command(name="train")(train.train)
app.command(name="predict")(predict.predict)


def _print_version(wanted: bool) -> None:
    if wanted:
        emit(nognet.__version__)
        raise typer.Exit


@app.callback()
def _options(
    log_format: Annotated[str, typer.Option(help="Log lines as 'text' or 'json'.")] = "text",
    version: Annotated[  # noqa: ARG001  handled by its callback
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    chosen: LogFormat = "json" if log_format == "json" else "text"
    set_up_logging(chosen)


def main() -> None:
    """Run `nognet`."""
    run_guarded(app)
