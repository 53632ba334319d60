"""Talk to SuperLink's Control API on loopback: sites, runs, their status."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from flwr.app import UserConfigValue

from nognet.errors import FederationError, ProvisionError
from nognet.pki.site_keys import RegisteredSite
from nognet_server.processes import flower_internals as flower
from nognet_server.processes.alive import answers
from nognet_server.processes.bundle import thin_bundle


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands, in Flower's words.

    Attributes:
        status: pending, starting, running, finished.
        sub_status: completed, failed, stopped; empty before the end.
        details: Flower's remark on a failure.
    """

    status: str
    sub_status: str
    details: str

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will happen."""
        return self.status == "finished"


@dataclass(frozen=True)
class RegistrationChange:
    """What `register_sites` changed, by names."""

    added: tuple[str, ...]
    removed: tuple[str, ...]


class _BearerToken:
    """Adds the control token to each request."""

    def __init__(self, token: str) -> None:
        self.token = token

    def intercept(
        self, context: flower.ProtobufRequestContext, call_next: flower.ProtobufCall
    ) -> httpx.Response:
        context.request.headers["authorization"] = f"Bearer {self.token}"
        return call_next(context)


class Control:
    """A client of SuperLink's Control API."""

    def __init__(self, address: str, ca: Path, token: str) -> None:
        self.address = address
        self.ca = ca
        self._client = flower.ControlHttpClient.from_server_address(
            address,
            insecure=False,
            root_certificates=ca.read_bytes(),
            interceptors=[
                flower.RuntimeVersionHttpInterceptor(component_name="flwr CLI"),
                _BearerToken(token),
            ],
        )

    def is_healthy(self) -> bool:
        """Whether SuperLink answers."""
        return answers(self.address, self.ca)

    def register_sites(self, sites: Sequence[RegisteredSite]) -> RegistrationChange:
        """Make SuperLink's register equal to `sites`: new keys in, withdrawn ones out.

        Raises:
            ProvisionError: a key was withdrawn before; that is for good.
        """
        wanted = {(site.name, site.pem) for site in sites}
        nodes = self._client.ListNodes(flower.ListNodesRequest()).nodes_info
        known = {
            (node.name, node.public_key.strip() + b"\n"): node.node_id
            for node in nodes
            if node.status != flower.NodeStatus.UNREGISTERED
        }
        removed = sorted(known.keys() - wanted)
        for key in removed:
            self._client.UnregisterNode(flower.UnregisterNodeRequest(node_id=known[key]))
        added = sorted(wanted - known.keys())
        for name, pem in added:
            self._register(name, pem)
        return RegistrationChange(tuple(n for n, _ in added), tuple(n for n, _ in removed))

    def _register(self, name: str, pem: bytes) -> None:
        request = flower.RegisterNodeRequest(public_key=pem, name=name)
        try:
            self._client.RegisterNode(request)
        except httpx.HTTPStatusError as err:
            refusal = flower.FlowerError.from_json(err.response.text)
            if refusal is None or refusal.code != flower.ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE:
                raise
            raise ProvisionError(
                f"the key of '{name}' was withdrawn or had another name before, and a withdrawn "
                "key stays locked out; the site makes a new one (nognet provision site), which is "
                "registered with --replace",
                code="withdrawn-key",
            ) from err

    def start_run(self, run_config: Mapping[str, UserConfigValue]) -> int:
        """Submit a run of the installed apps; return its number.

        Raises:
            FederationError: SuperLink refused it.
        """
        request = flower.StartRunRequest(
            fab=flower.fab_to_proto(thin_bundle()),
            override_config=flower.user_config_to_proto(dict(run_config)),
        )
        try:
            return int(self._client.StartRun(request).run_id)
        except httpx.HTTPStatusError as err:
            raise FederationError(
                f"SuperLink refused the run ({err.response.status_code}): {err.response.text}",
                code="refused-run",
            ) from err

    def run_status(self, run: int) -> RunStatus:
        """Look up a run.

        Raises:
            httpx.HTTPError: SuperLink can't be reached now.
        """
        runs = self._client.ListRuns(flower.ListRunsRequest(run_id=run)).run_dict
        status = runs[run].status
        return RunStatus(status.status, status.sub_status, status.details)

    def stop_run(self, run: int) -> None:
        """Stop a run.

        Raises:
            httpx.HTTPError: SuperLink can't be reached, or the run has ended already.
        """
        self._client.StopRun(flower.StopRunRequest(run_id=run))

    def node_states(self) -> dict[str, str]:
        """Look up which registered sites are online, by name: ``online``, ``offline``.

        Raises:
            httpx.HTTPError: SuperLink can't be reached now.
        """
        nodes = self._client.ListNodes(flower.ListNodesRequest()).nodes_info
        present = [node for node in nodes if node.status != flower.NodeStatus.UNREGISTERED]
        online = {node.name for node in present if node.status == flower.NodeStatus.ONLINE}
        return {node.name: "online" if node.name in online else "offline" for node in present}

    def stop_unfinished_runs(self) -> None:
        """Stop what an earlier start that didn't end well left running."""
        runs = self._client.ListRuns(flower.ListRunsRequest()).run_dict
        for number, run in runs.items():
            if run.status.status != "finished":
                with contextlib.suppress(httpx.HTTPStatusError):  # it ended just now
                    self.stop_run(number)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
