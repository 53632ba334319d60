"""`nognet-server rehearsal`: what the faults of a deployed rehearsal did, and what they cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nognet.console import emit


def rehearsal(
    run: Annotated[Path, typer.Option(help="Folder of the run whose sites failed on purpose.")],
    calm: Annotated[
        Path | None, typer.Option(help="Folder of the same study's run without faults.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a rehearsal's faults did, and what they cost beside a run without them.

    Writes chaos.json into the run's folder. Exit code 3 if the run was no rehearsal.
    """
    from nognet.errors import ConfigError
    from nognet.files import write_json_atomic
    from nognet_server import rehearsal as told
    from nognet_server.runs.folder import RunFolder, load_run_study

    folder = RunFolder(run.resolve())
    if not load_run_study(folder).rehearsal:
        raise ConfigError(f"{run}: its study does not say `rehearsal: true`; it was no rehearsal")
    beside = None if calm is None else RunFolder(calm.resolve())
    found = told.rehearsal(told.faults_told(folder), folder, beside)
    write_json_atomic(folder.path / "chaos.json", found)
    if as_json:
        emit(json.dumps(found, indent=2))
        return
    for line in told.rehearsal_lines(found):
        emit(line)
