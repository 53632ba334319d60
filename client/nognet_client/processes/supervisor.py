"""Start and watch a site's SuperNode and worker, and say in one line a change what they do."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from nognet.config import ServerLinkConfig, SiteConfig
from nognet.errors import INTERRUPTED_EXIT_CODE, NognetError, ProvisionError
from nognet.supervision.children import Child, StopRequest, describe_exit
from nognet.supervision.health import HealthPort
from nognet_client.processes.family import ClientOptions, SiteProcesses, site_processes
from nognet_client.processes.site_status import STATUS_NAME, SiteStatus
from nognet_client.processes.startup import wait_for_coordinator

LOOP_S = 0.1
EXIT_LOOP_ENDED = 75
EXIT_RUN_ENDED = 76
QUICK_DEATHS = 5
"""A worker that dies so often in a row can't work: the client ends and says so."""
log = logging.getLogger("nognet.client")


def supervise(
    site: SiteConfig, link: ServerLinkConfig, site_file: Path, options: ClientOptions
) -> int:
    """Keep the site connected until SIGINT, SIGTERM or SIGHUP; return the exit code.

    Raises:
        ProvisionError: the coordinator refuses this site for good.
        FederationError: the port of `--health-port` is taken.
        NognetError: the worker can't run on this machine.
    """
    status = SiteStatus(site.state / STATUS_NAME, link.address, site.name, faults=options.chaos)
    if site.rehearsal:
        log.warning("REHEARSAL: this site takes part in trials only, in no real run")
    if options.chaos:
        log.warning("REHEARSAL: this site fails on purpose: %s", options.chaos)
    with StopRequest() as stop, HealthPort(options.health_port) as health:
        status.change("connecting", f"connecting to {link.address}")
        way = Way(link, stop, health, insecure=options.insecure)
        try:
            with site_processes(site, link, site_file, options) as processes:
                while not stop.wait(LOOP_S):
                    _follow(processes, status)
                    _revive(processes, way, status)
                    health.set(serving=status.link_up)
        except NognetError as err:
            status.change("ended", str(err), level=logging.DEBUG)
            raise
    status.change("stopped", "stopped")
    return INTERRUPTED_EXIT_CODE


def _follow(processes: SiteProcesses, status: SiteStatus) -> None:
    for event in processes.pipe.drain():
        if event.kind == "fatal":
            code = str(event.values.get("code"))
            status.change("ended", event.text, level=logging.ERROR)
            raise ProvisionError(event.text, code=code)
        status.on_event(event)


@dataclass(frozen=True)
class Way:
    """The way to the coordinator, looked at before each start of the SuperNode."""

    link: ServerLinkConfig
    stop: StopRequest
    health: HealthPort
    insecure: bool

    def is_open(self, status: SiteStatus) -> bool:
        """Wait until it is open; a bad certificate ends a client only at first."""
        self.health.set(serving=status.link_up)
        try:
            return wait_for_coordinator(self.link, self.stop, insecure=self.insecure)
        except ProvisionError as err:
            if not status.was_connected:
                raise
            status.change("lost", f"{err}; trying again", level=logging.ERROR)
            self.stop.wait(10.0)
            return False


def _revive(processes: SiteProcesses, way: Way, status: SiteStatus) -> None:
    """Start what has ended, after its back-off; the SuperNode only when the way is open."""
    for child in (processes.supernode, processes.worker):
        code = child.reap()
        if code is not None:
            _follow(processes, status)  # what it said last, perhaps why
            _note_end(child, code, status)
    worker = processes.worker
    if worker.due:
        if worker.failures >= QUICK_DEATHS:
            raise NognetError(
                f"the worker died {worker.failures} times in a row; the end of {worker.spec.log}:\n"
                f"{worker.log_tail()}",
                code="worker-dies",
            )
        worker.start()
    if processes.supernode.due and way.is_open(status):
        processes.supernode.start()


def _note_end(child: Child, code: int, status: SiteStatus) -> None:
    if child.spec.name == "supernode":
        if code == EXIT_RUN_ENDED:
            return  # it said so
        if code != EXIT_LOOP_ENDED:
            log.debug("supernode: %s", describe_exit(code))
        status.change(
            "connecting",
            f"lost the coordinator {status.address}: the connection ended; reconnecting",
        )
    else:
        status.worker_ended(describe_exit(code))
