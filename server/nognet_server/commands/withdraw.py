"""`nognet-server withdraw | release`: a site leaves a run for good, or may come back to it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from nognet.console import emit, say


def withdraw(
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
    key too: remove its `.pub` from the folder of registered keys. A server that is at the run has
    to be stopped first (exit code 3). With --delete a second call deletes what the first one left.
    """
    from nognet_server.processes.idle import idle_run
    from nognet_server.runs import withdrawal
    from nognet_server.runs.successor import existing_run_folder

    if delete and not dry_run and _delete_left(run, site):
        return
    folder = existing_run_folder(run)
    with contextlib.nullcontext() if dry_run else idle_run(folder):
        plan = withdrawal.plan_withdrawal(folder, site)
        for line in plan.lines():
            emit(line)
        if dry_run:
            return
        target = withdrawal.withdraw(folder, plan)
        deleted = withdrawal.delete_traces(folder, plan) if delete else []
    _say_deleted(deleted)
    if plan.rounds_lost and not delete:
        say(f"{folder.path} still holds weights that {site} shaped: --delete removes them")
    say(f"go on with: nognet-server --resume {target.path}")


def _delete_left(run: Path, site: str) -> bool:
    """Delete what is left in a run that the site has withdrawn from; whether anything was."""
    from nognet_server.processes.idle import idle_run
    from nognet_server.runs.folder import RunFolder
    from nognet_server.runs.successor import superseded
    from nognet_server.runs.withdrawal import delete_left_traces

    folder = RunFolder(run.resolve())
    if superseded(folder) is None:
        return False
    with idle_run(folder):
        deleted = delete_left_traces(folder, site)
    _say_deleted(deleted)
    return bool(deleted)


def _say_deleted(paths: Sequence[Path]) -> None:
    for path in paths:
        say(f"deleted {path}")


def release(
    site: Annotated[str, typer.Argument(help="The site's name.")],
    run: Annotated[Path, typer.Option(help="Folder of the run, for example runs/demo.")],
) -> None:
    """Let a quarantined site take part again when the run is resumed.

    A server that is at the run has to be stopped first (exit code 3).
    """
    from nognet_server.processes.idle import idle_run
    from nognet_server.runs import warm_start
    from nognet_server.runs.successor import existing_run_folder

    folder = existing_run_folder(run)
    with idle_run(folder):
        warm_start.release(folder, site)
    say(f"{site} may take part again: nognet-server --resume {folder.path}")
