"""`nognet-server withdraw`: let a run go on from before a site's first contribution."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nognet.console import emit, say


def withdraw_site(
    site: Annotated[str, typer.Argument(help="The site's name.")],
    run: Annotated[Path, typer.Option(help="Folder of the run, for example runs/demo.")],
    delete: Annotated[
        bool,
        typer.Option(
            "--delete", help="Also delete the old run's weights that the site's data shaped."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would cost, and change nothing.")
    ] = False,
) -> None:
    """Go on from the last round without a trace of a site that withdraws, and say what it costs.

    Writes the run `<run>-without-<site>`; `nognet-server --resume` trains it on. Revoke the site's
    key too: remove its `.pub` from the folder of registered keys.
    """
    from nognet_server.run_folder import existing_run_folder
    from nognet_server.withdrawal import delete_traces, plan_withdrawal, withdraw

    folder = existing_run_folder(run)
    plan = plan_withdrawal(folder, site)
    for line in plan.lines():
        emit(line)
    if dry_run:
        return
    target = withdraw(folder, plan)
    deleted = delete_traces(folder, plan) if delete else []
    for path in deleted:
        say(f"deleted {path}")
    if plan.rounds and not delete:
        say(f"{folder.path} still holds weights that {site} shaped: --delete removes them")
    say(f"go on with: nognet-server --resume {target.path}")
