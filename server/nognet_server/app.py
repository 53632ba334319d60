"""The ServerApp that simulation and deployment run alike."""

from __future__ import annotations

import logging

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from nognet.errors import INTERRUPTED_EXIT_CODE
from nognet_server.federation import run_federation
from nognet_server.run_config import RunSettings
from nognet_server.run_folder import RunFolder, outcome_of, write_outcome

_log = logging.getLogger("nognet.server")
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the study that the run config names; leave the outcome in the run folder."""
    settings = RunSettings.from_run_config(context.run_config)
    folder = RunFolder(settings.run_folder)
    folder.outcome.unlink(missing_ok=True)
    ended_by: BaseException | None = None
    try:
        run_federation(grid, settings)
    except BaseException as err:  # noted for the process that started us, then passed on
        ended_by = err
        raise
    finally:
        write_outcome(folder, outcome_of(ended_by, INTERRUPTED_EXIT_CODE))
