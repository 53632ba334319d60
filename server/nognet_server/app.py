"""The ServerApp that simulation and deployment run alike."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from nognet.errors import INTERRUPTED_EXIT_CODE
from nognet_server.federation import run_federation
from nognet_server.runs.flower_config import RunSettings
from nognet_server.runs.folder import RunFolder, outcome_of, write_outcome

_log = logging.getLogger("nognet.server")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the study that the run config names; leave the outcome in the run folder."""
    settings = RunSettings.from_run_config(context.run_config)
    folder = RunFolder(settings.run_folder)
    folder.outcome.unlink(missing_ok=True)
    ended_by: BaseException | None = None
    with _signals_interrupt():
        try:
            run_federation(grid, settings)
        except BaseException as err:  # noted for the process that started us, then passed on
            ended_by = err
            raise
        finally:
            write_outcome(folder, outcome_of(ended_by, INTERRUPTED_EXIT_CODE))


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGINT interrupt the run; whose signals they were is told afterwards.

    Flower's own handlers first talk to SuperLink, which may be gone, and end the process after 5 s,
    whatever is still to be written. In a simulation the main thread deals with signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if len(received) == 1:  # a second one must not interrupt the writing
            raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])
