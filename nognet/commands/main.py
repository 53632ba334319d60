"""The umbrella command `nognet`."""

from __future__ import annotations

import typer

from nognet.commands import (
    audit,
    benchmark,
    check,
    config,
    deidentify,
    inspect,
    phantom,
    predict,
    prepare,
    pretrain,
    privacy,
    provision,
    report,
    scan,
    train,
)
from nognet.console import LogFormat, LogFormatOption, VersionOption, run_guarded, set_up_logging

app = typer.Typer(
    name="nognet",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Federated training of MT-NoGNet on longitudinal chest CT. Not a medical device.",
)
# in the order in which a newcomer meets them
app.command(name="phantom")(phantom.phantom)
app.command(name="scan")(scan.scan)
app.command(name="inspect")(inspect.inspect)
app.command(name="check")(check.check)
app.command(name="prepare")(prepare.prepare)
app.command(name="pretrain")(pretrain.pretrain)
app.command(name="train")(train.train)
app.command(name="predict")(predict.predict)
app.command(name="report")(report.report)
app.command(name="deidentify")(deidentify.deidentify)
app.add_typer(provision.app, name="provision")
app.add_typer(privacy.app, name="privacy")
app.add_typer(audit.app, name="audit")
app.add_typer(config.app, name="config")
app.add_typer(benchmark.app, name="benchmark")


@app.callback()
def _options(
    log_format: LogFormatOption = LogFormat.text,
    version: VersionOption = False,  # noqa: ARG001  handled by its callback
) -> None:
    set_up_logging(log_format)


def main() -> None:
    """Run `nognet`."""
    run_guarded(app)
