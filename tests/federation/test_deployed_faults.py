"""What goes wrong in a deployed federation: who may not come in, who dies, who is stopped."""

from __future__ import annotations

import base64
import json
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from flwr.proto.control_pb2 import ListNodesRequest
from nognet_server.processes.control import Control, RegistrationChange
from nognet_server.runs.folder import RunFolder

from nognet.errors import ProvisionError
from nognet.pki.authority import create_coordinator
from nognet.pki.site_keys import create_site_key, read_public_key, registered_sites
from tests.builders.deployment import (
    Deployment,
    Running,
    alive,
    deployment,
    descendants,
    kill,
    pid_running,
    wait_until_gone,
)

pytestmark = [pytest.mark.federation, pytest.mark.slow]


@dataclass(frozen=True)
class Waiting:
    """A server that waits for sites that never come."""

    deployment: Deployment
    server: Running

    @property
    def private(self) -> str:
        return f"https://127.0.0.1:{self.deployment.control_port}"


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Waiting]:
    with deployment(tmp_path_factory.mktemp("waiting")) as built:
        server = built.server()
        server.wait_for("waiting for sites", 120)
        yield Waiting(built, server)


def ca_of(built: Deployment) -> Path:
    return built.folder / "coordinator" / "pki" / "ca.crt"


def test_another_ca_ends_the_client_with_its_cause_and_exit_code_12(
    waiting: Waiting, tmp_path: Path
) -> None:
    other = create_coordinator(tmp_path, ("127.0.0.1",))
    code, output = run_changed_client(waiting.deployment, ca=str(other.ca))
    assert code == 12
    assert "is not signed by the CA in site.yaml" in output


def test_an_unregistered_key_ends_the_client_with_its_cause_and_exit_code_12(
    waiting: Waiting, tmp_path: Path
) -> None:
    private, _ = create_site_key("hospital_a", tmp_path)
    code, output = run_changed_client(waiting.deployment, key=str(private))
    assert code == 12
    assert "the coordinator doesn't know this site's key" in output


def test_the_control_port_in_place_of_the_public_one_ends_the_client(waiting: Waiting) -> None:
    address = f"127.0.0.1:{waiting.deployment.control_port}"
    code, output = run_changed_client(waiting.deployment, address=address)
    assert code == 12
    assert "is not signed by the CA in site.yaml" in output


def run_changed_client(built: Deployment, **link: str) -> tuple[int, str]:
    """Start hospital_a's client with a changed `server:` section and its own state."""
    import yaml

    original = built.site_file("hospital_a")
    values = yaml.safe_load(original.read_text(encoding="utf-8"))
    values["server"] |= link
    values["state"] = f"state-{time.monotonic_ns()}"
    original.with_name("changed.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    running = built._start(
        "changed", "nognet_client.commands", ("--site", str(original.with_name("changed.yaml")))
    )
    code = running.wait(60)
    assert wait_until_gone([running.process.pid]) == []
    return code, running.output


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/fleet/register-node"),
        ("POST", "/v1/fleet/unregister-node"),
        ("POST", "/v1/control/start-run"),
        ("POST", "/v1/control/list-nodes"),
        ("POST", "/v1/runtime/acquire-task"),
        ("POST", "/v1/fleet/../control/start-run"),
        ("POST", "/v1/fleet/%2e%2e/control/start-run"),
        ("POST", "//v1/control/start-run"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/v1/fleet/pull-messages"),
    ],
)
def test_the_public_port_answers_404_to_all_but_its_routes(
    waiting: Waiting, method: str, path: str
) -> None:
    with socket.create_connection(("127.0.0.1", waiting.deployment.port), timeout=10) as raw:
        context = ssl.create_default_context(cafile=str(ca_of(waiting.deployment)))
        with context.wrap_socket(raw, server_hostname="127.0.0.1") as secured:
            # by hand: an HTTP client would tidy the path up
            head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
            secured.sendall(head.encode())
            assert secured.recv(4096).startswith(b"HTTP/1.1 404")


def test_the_control_api_wants_the_token(waiting: Waiting) -> None:
    state = waiting.deployment.folder / "coordinator" / "server-state"
    address, ca = waiting.private.removeprefix("https://"), state / "loopback" / "ca.crt"
    right = Control(address, ca, (state / "control.token").read_text(encoding="ascii"))
    assert len(right._client.ListNodes(ListNodesRequest()).nodes_info) >= 2
    right.close()
    wrong = Control(address, ca, base64.b64encode(b"guess").decode())
    with pytest.raises(httpx.HTTPStatusError) as refused:
        wrong._client.ListNodes(ListNodesRequest())
    wrong.close()
    assert refused.value.response.status_code == 401


def test_a_withdrawn_key_is_locked_out_for_good_and_a_new_one_comes_in(
    waiting: Waiting, tmp_path: Path
) -> None:
    state = waiting.deployment.folder / "coordinator" / "server-state"
    control = Control(
        waiting.private.removeprefix("https://"),
        state / "loopback" / "ca.crt",
        (state / "control.token").read_text(encoding="ascii"),
    )
    sites = registered_sites(waiting.deployment.folder / "coordinator" / "pki" / "sites")
    try:
        assert control.register_sites(sites) == RegistrationChange((), ())
        assert control.register_sites(sites[:1]) == RegistrationChange((), ("hospital_b",))
        assert control.register_sites(sites[:1]) == RegistrationChange((), ())
        with pytest.raises(ProvisionError, match="a withdrawn key stays locked out"):
            control.register_sites(sites)
        new = read_public_key(create_site_key("hospital_b", tmp_path)[1])
        change = control.register_sites((sites[0], new))
        assert change == RegistrationChange(("hospital_b",), ())
    finally:
        control.close()


def test_no_secret_is_on_a_command_line(waiting: Waiting) -> None:
    state = waiting.deployment.folder / "coordinator" / "server-state"
    token = (state / "control.token").read_text(encoding="ascii")
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in waiting.server.family()]
    assert len(lines) == 4
    assert not any(token.encode() in line or b"--token" in line for line in lines)


def test_a_second_server_on_the_same_state_is_refused(waiting: Waiting) -> None:
    second = waiting.deployment.server()
    assert second.wait(60) == 1
    assert "another nognet-server" in second.output


def test_killing_the_supervisor_leaves_no_process_behind(waiting: Waiting) -> None:
    """Last of the module: it ends the server that the other tests talk to."""
    pids = waiting.server.family()
    assert len(pids) == 4
    kill(waiting.server.process.pid)
    waiting.server.process.wait()
    assert wait_until_gone(pids, 5) == []


def test_a_killed_training_process_is_left_out_and_the_run_goes_on(tmp_path: Path) -> None:
    study = {"rounds": 2, "federation": {"minimum_sites": 1, "expected_sites": 2}}
    slow = {"steps_per_round": 60, "batch_size": 2, "warmup_steps": 0}
    with deployment(tmp_path, training=slow, **study) as built:
        server, clients = built.server(), built.clients()
        client = clients["hospital_a"]
        client.wait_for("training, round 1", 120)
        worker = pid_running("nognet_client.processes.worker", client.family())
        (task,) = [pid for pid in descendants(worker) if pid != worker]
        kill(task)
        client.wait_for(r"training, round 1: DIED .*SIGKILL", 10)
        assert server.wait(180) == 0, server.output
        metrics = json.loads(RunFolder(built.runs / "tiny").metrics.read_text(encoding="utf-8"))
    first, second = (played["sites"] for played in metrics["rounds"])
    assert first["hospital_a"]["status"] == "left-out"
    assert first["hospital_a"]["reason"] == "TrainingError:process-killed-9"
    assert first["hospital_b"]["status"] == "ok"
    assert second["hospital_a"]["status"] == "ok"


def test_ctrl_c_leaves_no_process_and_a_run_that_goes_on(tmp_path: Path) -> None:
    with deployment(tmp_path, rounds=3) as built:
        server, clients = built.server(), built.clients()
        server.wait_for("round 2 of 3: training", 120)
        pids = server.family()
        server.process.send_signal(signal.SIGINT)
        assert server.wait(30) == 130
        assert wait_until_gone(pids) == []
        folder = RunFolder(built.runs / "tiny")
        assert f"--resume {folder.path}" in server.output
        interrupted = json.loads(folder.metrics.read_text(encoding="utf-8"))
        assert interrupted["status"] == "interrupted"
        done = len(interrupted["rounds"])

        resumed = built.server("--resume", str(folder.path))
        assert resumed.wait(150) == 0, resumed.output
        assert f"resumed after round {done} of 3" in resumed.output
        metrics = json.loads(folder.metrics.read_text(encoding="utf-8"))
        assert metrics["status"] == "completed"
        assert [played["round"] for played in metrics["rounds"]] == [1, 2, 3]
        assert "reconnected to" in clients["hospital_a"].output

        pids = clients["hospital_b"].family()
        kill(clients["hospital_b"].process.pid)
        clients["hospital_b"].process.wait()
        assert len(pids) >= 3
        assert wait_until_gone(pids, 5) == []
        clients["hospital_a"].process.send_signal(signal.SIGINT)
        assert clients["hospital_a"].wait(20) == 130
        assert alive(clients["hospital_a"].family()) == []
