"""A run is changed beside no server: what it holds in memory would undo the change, or pass it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from nognet.errors import ConfigError, NognetError
from nognet.supervision.lock import exclusive, holder_of
from nognet_server.processes.status import served_run
from nognet_server.runs.folder import RunFolder, load_run_study


@contextlib.contextmanager
def idle_run(folder: RunFolder) -> Iterator[None]:
    """Keep servers off a run until the block ends.

    A server of another run that uses the same state folder is let be, and holds that folder itself.

    Raises:
        ConfigError: a server is at this run, or begins one and may be.
    """
    server = load_run_study(folder).server
    if server is None or not server.state.is_dir():  # simulated; or no server was ever here
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive(server.state, "nognet-server"))
        except NognetError as err:
            if served_run(server.state) in {None, folder.path.resolve()}:
                raise ConfigError(
                    f"{folder.path}: a server (pid {holder_of(server.state) or 'unknown'}) is at "
                    "this run, and would go on as before; stop it first: nognet-server stop "
                    f"--run {folder.path}",
                    code="run-in-use",
                ) from err
        yield
