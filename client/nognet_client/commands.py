"""`nognet-client`: take part in a federation as a site."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from nognet.console import LogFormat, LogFormatOption, VersionOption, run_guarded, set_up_logging

app = typer.Typer(name="nognet-client", add_completion=False, pretty_exceptions_enable=False)


@app.command()
def client(
    site: Annotated[Path, typer.Option(help="The site's configuration, site.yaml.")],
    log_format: LogFormatOption = LogFormat.text,
    version: VersionOption = False,  # noqa: ARG001  handled by its callback
) -> None:
    """Prepare this site's data, connect to the coordinator and train in its rounds.

    Connections go outwards only. Ctrl-C ends it; the coordinator goes on without this site.
    """
    set_up_logging(log_format)
    sys.exit(_run(site, log_format))


def _run(site_file: Path, log_format: LogFormat) -> int:
    from nognet.config import load_site
    from nognet.supervision.lock import exclusive
    from nognet_client.processes.startup import check_link, prepare
    from nognet_client.processes.supervisor import supervise

    site = load_site(site_file)
    link = check_link(site)
    with exclusive(site.state, "nognet-client"):
        prepare(site)
        return supervise(site, link, site_file.resolve(), log_format)


def main() -> None:
    """Run `nognet-client`."""
    run_guarded(app)
