"""All sites in one process: Flower's own simulation loop with a backend of threads.

No Ray: an in-process backend needs no second copy of torch a worker. Each message is copied on its
way to a site and back, so that sites can't see one another's changes. Results don't depend on which
thread does what: a site's work depends on its message and its files alone, each worker sets its own
number of CPU threads, and the coordinator sorts by name.
"""

from __future__ import annotations

import copy
import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict, UserConfig
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run

from nognet_server.flower_adapter import quiet_flower
from nognet_server.runs.flower_config import CLIENT_APP, RunSettings
from nognet_server.simulation.flower_adapter import Backend, World, make_world, serve_nodes

_log = logging.getLogger("nognet.simulation")
_STOP_WITHIN_S = 3.0
SITE_CONFIG = "site-config"


class SimulationStopped(KeyboardInterrupt):
    """The user ended the simulation; `threads_left` says whether sites are still at work."""

    def __init__(self, *, threads_left: bool) -> None:
        super().__init__("the simulation was stopped")
        self.threads_left = threads_left


@dataclass(frozen=True)
class SimulatedSite:
    """A site of a simulation: its name, its `site.yaml`, its CPU threads."""

    name: str
    config_path: Path
    threads: int | None = None


def default_workers(n_sites: int) -> int:
    """Take one worker a site, but no more than cores."""
    return max(1, min(n_sites, os.cpu_count() or 1))


def load_client_app(reference: str = CLIENT_APP) -> ClientApp:
    """Load the ClientApp by its name, as Flower does from a bundle."""
    module, _, attribute = reference.partition(":")
    app = getattr(import_module(module), attribute)
    if not isinstance(app, ClientApp):
        raise TypeError(f"{reference} is no Flower ClientApp")
    return app


def load_chaotic_app(faults: str, module: str = "nognet_client.chaos") -> ClientApp:
    """Load the ClientApp of a rehearsal, whose sites fail as `faults` says."""
    app = import_module(module).chaotic_app(faults)
    if not isinstance(app, ClientApp):
        raise TypeError(f"{module} gave no Flower ClientApp")
    return app


def simulate(
    server_app: ServerApp,
    client_app: ClientApp,
    sites: Iterable[SimulatedSite],
    settings: RunSettings,
    *,
    workers: int,
) -> None:
    """Run a ServerApp and its sites in this process to the end.

    Args:
        server_app: The coordinator's app.
        client_app: The sites' app.
        sites: One or more, with unique names.
        settings: Study and run folder.
        workers: Sites that work at the same time.

    Raises:
        SimulationStopped: Ctrl-C; the run folder is complete up to the last round.
        NognetError: whatever ended the ServerApp.
    """
    quiet_flower(verbose=_log.isEnabledFor(logging.DEBUG))
    by_name = {site.name: site for site in sites}
    configs: dict[str, UserConfig] = {
        name: {SITE_CONFIG: str(site.config_path.resolve())} for name, site in by_name.items()
    }
    run_config = settings.to_run_config()
    world = make_world(configs, run_config)
    threads = {world.node_of[name]: _threads(site, workers) for name, site in by_name.items()}
    _Simulation(world, threads, workers).run(server_app, client_app, run_config)


def _threads(site: SimulatedSite, workers: int) -> int:
    return site.threads or max(1, (os.cpu_count() or 1) // workers)


class _Simulation:
    """The threads of one simulation: the ServerApp, Flower's loop, the workers."""

    def __init__(self, world: World, threads: Mapping[int, int], workers: int) -> None:
        self.world, self.threads, self.workers = world, threads, workers
        self.done = threading.Event()  # the ServerApp has ended: Flower's loop ends too
        self.stopped = threading.Event()  # the user wants to end
        self.error: BaseException | None = None

    def run(self, server_app: ServerApp, client_app: ClientApp, run_config: UserConfig) -> None:
        """Start everything, wait, and end everything."""
        server = self._start("server", lambda: self._serve(server_app, run_config))
        fleet = self._start("fleet", lambda: self._work(client_app))
        try:
            while server.is_alive():
                server.join(timeout=0.2)
        except KeyboardInterrupt as err:
            self.stopped.set()
            server.join(timeout=_STOP_WITHIN_S)
            self.done.set()
            fleet.join(timeout=_STOP_WITHIN_S)
            raise SimulationStopped(threads_left=fleet.is_alive()) from err
        fleet.join(timeout=_STOP_WITHIN_S)  # a site given up by the server may still be at work
        if self.error is not None:
            raise self.error

    def _start(self, name: str, target: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=target, name=f"nognet-{name}", daemon=True)
        thread.start()
        return thread

    def _serve(self, server_app: ServerApp, run_config: UserConfig) -> None:
        context = Context(
            run_id=self.world.grid.run.run_id,
            node_id=0,
            node_config={},
            state=RecordDict(),
            run_config=dict(run_config),
        )
        try:
            server_app(grid=_StoppableGrid(self.world.grid, self.stopped), context=context)
        except BaseException as err:  # noqa: BLE001  handed to the main thread, which raises it
            self.error = self.error or err  # a fleet that crashed interrupts the server
        finally:
            self.done.set()

    def _work(self, client_app: ClientApp) -> None:
        def make_backend() -> Backend:
            return _ThreadBackend(self.workers, self.threads)

        try:
            serve_nodes(self.world, client_app, make_backend, self.done)
        except BaseException as err:  # noqa: BLE001  handed to the main thread, which raises it
            self.error = self.error or err
            self.stopped.set()


class _ThreadBackend(Backend):
    """Do each site's work in a thread of this process, with the site's number of CPU threads."""

    def __init__(self, workers: int, threads: Mapping[int, int]) -> None:
        super().__init__({})
        self._workers, self._threads = workers, threads
        self._client_app: Callable[[], ClientApp] | None = None

    def build(self, app_fn: Callable[[], ClientApp]) -> None:
        """Take the function that gives the ClientApp."""
        self._client_app = app_fn

    @property
    def num_workers(self) -> int:
        """Sites that work at the same time."""
        return self._workers

    def is_worker_idle(self) -> bool:
        """Flower asks the queue itself."""
        return True

    def terminate(self) -> None:
        """Nothing is left to end."""

    def process_message(self, message: Message, context: Context) -> tuple[Message, Context]:
        """Let the site answer a copy of the message; its answer is copied too."""
        import torch

        if self._client_app is None:
            raise RuntimeError("the backend was not built")
        torch.set_num_threads(self._threads[message.metadata.dst_node_id])
        reply = self._client_app()(copy.deepcopy(message), context)
        return copy.deepcopy(reply), context


class _StoppableGrid(Grid):
    """Flower's in-memory grid; once stopped, its next use interrupts the server."""

    def __init__(self, inner: Grid, stopped: threading.Event) -> None:
        super().__init__()
        self._inner, self._stopped = inner, stopped

    def _live(self) -> Grid:
        if self._stopped.is_set():
            raise KeyboardInterrupt
        return self._inner

    def set_run(self, run: Run) -> None:
        """Pass on."""
        self._live().set_run(run)

    @property
    def run(self) -> Run:
        """Pass on."""
        return self._live().run

    def create_message(self, *arguments: Any, **named: Any) -> Message:  # noqa: ANN401  Flower's own signature, passed on
        """Pass on."""
        return self._live().create_message(*arguments, **named)

    def get_node_ids(self) -> Iterable[int]:
        """Pass on."""
        return self._live().get_node_ids()

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Pass on."""
        return self._live().get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Pass on."""
        return self._live().push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pass on."""
        return self._live().pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Pass on."""
        return self._live().send_and_receive(messages, timeout=timeout)
