"""What an operator does beside a run: status, health, logs, stop; and how everything ends."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from nognet_server.runs.folder import RunFolder

from tests.builders.deployment import (
    Deployment,
    Running,
    build_deployment,
    deployment,
    descendants,
    free_ports,
    grpc_health,
    pid_running,
    wait_until_gone,
)
from tests.builders.proxy import TunnelProxy
from tests.server.processes.test_bundle_signature import write_key

pytestmark = [pytest.mark.federation, pytest.mark.slow]
LONG = {"steps_per_round": 3000, "batch_size": 2, "warmup_steps": 0}
PATIENT = {"minimum_sites": 2, "join_timeout_s": 60, "round_timeout_s": 1200}


@dataclass(frozen=True)
class Operated:
    """A run with JSON logs and health ports, in the middle of a long first round."""

    deployment: Deployment
    server: Running
    client: Running
    health_ports: tuple[int, int]

    def ask(self, command: str, *arguments: str) -> tuple[int, Any]:
        """Run a subcommand with --json; give its exit code and its output."""
        where = (
            ("--study", str(self.deployment.study))
            if command == "server"
            else ("--site", str(self.deployment.site_file("hospital_a")))
        )
        done = self.deployment.run(command, *arguments, *where, "--json")
        return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    with deployment(
        tmp_path_factory.mktemp("operated"), training=LONG, federation=PATIENT
    ) as built:
        first, second = free_ports(2)
        options = ("--log-format", "json", "--health-port")
        server = built.server("--study", str(built.study), *options, str(first))
        client = built.client("hospital_a", *options, str(second))
        built.client("hospital_b")
        client.wait_for("training, round 1", 150)
        yield Operated(built, server, client, (first, second))


def test_the_servers_status_tells_round_and_sites(operated: Operated) -> None:
    code, seen = operated.ask("server", "status")
    assert code == 0
    assert (seen["state"], seen["round"], seen["rounds"]) == ("training", 1, 2)
    assert seen["sites"] == {"hospital_a": "online", "hospital_b": "online"}
    assert seen["pid"] == operated.server.process.pid
    assert (seen["exit_code"], seen["rounds_done"]) == (None, 0)
    by_run = operated.deployment.run("server", "status", "--run", seen["run_folder"])
    assert by_run.stdout.startswith("training: round 1 of 2: training")


def test_the_clients_status_tells_task_and_connection(operated: Operated) -> None:
    code, seen = operated.ask("client", "status")
    assert code == 0
    assert (seen["state"], seen["connected"], seen["last_round"]) == ("working", True, 1)
    assert seen["last_task"] == "training, round 1"
    other = operated.deployment.site_file("hospital_b")
    text = operated.deployment.run("client", "status", "--site", str(other)).stdout
    assert "connected since 20" in text


def test_both_are_healthy_by_command_and_by_grpc(operated: Operated) -> None:
    assert operated.ask("server", "health") == (0, {"healthy": True})
    assert operated.ask("client", "health") == (0, {"healthy": True})
    assert [grpc_health(port) for port in operated.health_ports] == ["SERVING"] * 2


def test_every_line_is_json_from_all_processes(operated: Operated) -> None:
    state = operated.deployment.folder / "hospital_a" / "state" / "logs"
    run = RunFolder(operated.deployment.runs / "tiny").logs
    streams = [operated.server.log, operated.client.log]
    children = [state / "supernode.log", state / "worker.log", run / "superlink.log"]
    for path in (*streams, *children, run / "serverapp.log", run / "server.log"):
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line]
        for line in lines:
            assert {"time", "level", "logger", "message"} <= json.loads(line).keys(), (path, line)
    entries = [json.loads(line) for line in operated.client.output.splitlines()]
    training = [entry for entry in entries if entry["message"] == "training, round 1"]
    assert training[0]["site"] == "hospital_a"
    assert training[0]["round"] == 1
    told = [json.loads(line) for line in operated.server.output.splitlines()]
    assert {entry.get("run") for entry in told[-3:]} == {"tiny"}


def test_logs_are_printed(operated: Operated) -> None:
    study = str(operated.deployment.study)
    text = operated.deployment.run("server", "logs", "--study", study).stdout
    assert "INFO    round 1 of 2: training" in text
    lines = operated.deployment.run("server", "logs", "--study", study, "--json", "--lines", "1")
    assert json.loads(lines.stdout)["logger"].startswith("nognet")


def test_a_dead_superlink_is_not_healthy_until_it_is_back(operated: Operated) -> None:
    pid = pid_running("nognet_server.processes.superlink", operated.server.family())
    os.kill(pid, signal.SIGKILL)
    wait_for_health(operated.health_ports[0], "NOT_SERVING")
    wait_for_health(operated.health_ports[0], "SERVING")
    wait_for_health(operated.health_ports[1], "SERVING")
    assert "SIGTERM" not in operated.client.output  # the training went on meanwhile


def wait_for_health(port: int, status: str, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while grpc_health(port) != status:
        assert time.monotonic() < deadline, f"{port} does not become {status}"
        time.sleep(0.1)


def test_stop_ends_the_run_and_the_training_at_the_sites_within_seconds(
    operated: Operated,
) -> None:
    """Last of the module: it ends the run that the others look at."""
    worker = pid_running("nognet_client.processes.worker", operated.client.family())
    tasks = [pid for pid in descendants(worker) if pid != worker]
    assert len(tasks) == 1
    pids = operated.server.family()
    code, ended = operated.ask("server", "stop")
    started = time.monotonic()
    assert (code, ended["state"], ended["exit_code"]) == (0, "interrupted", 130)
    assert operated.server.wait(5) == 130
    assert wait_until_gone(pids, 5) == []
    assert wait_until_gone(tasks, 10) == []
    assert time.monotonic() - started < 10
    assert operated.ask("server", "health") == (1, {"healthy": False})
    assert operated.ask("server", "status")[1]["state"] == "interrupted"
    assert operated.ask("server", "stop")[0] == 1
    assert grpc_health(operated.health_ports[0]) == "UNAVAILABLE"
    wait_for_health(operated.health_ports[1], "NOT_SERVING")
    assert operated.ask("client", "health") == (1, {"healthy": False})
    operated.client.process.send_signal(signal.SIGTERM)
    assert operated.client.wait(20) == 130
    seen = operated.ask("client", "status")[1]
    assert (seen["state"], seen["connected"]) == ("stopped", False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_server_and_client_with_all_their_children(
    tmp_path: Path, number: signal.Signals
) -> None:
    with deployment(tmp_path) as built:
        server, client = built.server(), built.client("hospital_a")
        server.wait_for("waiting for sites: 1 of 2", 120)
        pids = [*server.family(), *client.family()]
        assert len(pids) >= 7
        for running in (server, client):
            running.process.send_signal(number)
        assert [server.wait(20), client.wait(20)] == [130, 130]
        assert wait_until_gone(pids, 5) == []


def test_the_closing_of_the_terminal_ends_all_processes(tmp_path: Path) -> None:
    built = build_deployment(tmp_path)
    pid, terminal = os.forkpty()
    if pid == 0:
        code = "from nognet_server.commands.main import main; main()"
        os.execv(built_python(), [built_python(), "-c", code, "--study", str(built.study)])  # noqa: S606  no shell
    said = b""
    deadline = time.monotonic() + 120
    while b"waiting for sites" not in said:
        assert time.monotonic() < deadline, said
        said += os.read(terminal, 4096)
    pids = descendants(pid)
    assert len(pids) >= 4
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert wait_until_gone(pids, 5) == []


def built_python() -> str:
    import sys

    return sys.executable


def test_a_client_goes_through_a_proxy_that_restarts(
    tmp_path: Path,
) -> None:
    """Through the proxy under a name that only it knows; in each round it is away for a while."""
    slow = {"steps_per_round": 100, "batch_size": 2, "warmup_steps": 0}
    hosts = ("127.0.0.1", "coordinator.test")
    with deployment(tmp_path, hosts=hosts, training=slow) as built:
        name = f"coordinator.test:{built.port}"
        with TunnelProxy({name: ("127.0.0.1", built.port)}) as proxy:
            server, direct = built.server(), built.client("hospital_b")
            site = built.site_file("hospital_a")
            built.edit_server(site, address=name)
            behind = built.client("hospital_a", HTTPS_PROXY=proxy.url)
            for number in (1, 2):
                behind.wait_for(f"training, round {number}", 150)
                proxy.refusal = "503 Service Unavailable"
                proxy.cut()
                time.sleep(4)
                proxy.refusal = None
            assert server.wait(240) == 0, server.output
            checked = built.run(
                "client", "check-connection", "--site", str(site), HTTPS_PROXY=proxy.url
            )
            assert checked.returncode == 9  # the server has ended
            assert "FAILED  way and certificate" in checked.stdout
        assert len(proxy.asked) >= 3
        assert f"connected to {name}" in behind.output
        assert f"lost the coordinator {name}: the proxy of HTTPS_PROXY" in behind.output
        assert f"reconnected to {name}" in behind.output
        assert "SIGTERM" not in behind.output  # the training went on meanwhile
        assert "HTTPS_PROXY" not in direct.output
    metrics = json.loads(RunFolder(built.runs / "tiny").metrics.read_text(encoding="utf-8"))
    for played in metrics["rounds"]:
        assert {entry["status"] for entry in played["sites"].values()} == {"ok"}


def test_trusted_entities_insecure_and_check_connection(tmp_path: Path) -> None:
    """One site trusts the signer, the other somebody else: it refuses the run."""
    federation = {"minimum_sites": 1, "expected_sites": 1, "join_timeout_s": 60}
    with deployment(tmp_path, federation=federation) as built:
        keys = tmp_path / "signers"
        keys.mkdir()
        lines = {}
        for signer in ("right", "wrong"):
            key = write_key(keys / signer, ed25519.Ed25519PrivateKey.generate())
            out = ("--out", str(keys / f"{signer}.json"))
            signed = built.run("server", "sign", "--key", str(key), *out)
            lines[signer] = signed.stdout
            (keys / f"{signer}.yaml").write_text(signed.stdout, encoding="utf-8")
        built.edit_server(built.study, bundle_signature=str(keys / "right.json"))
        insecure = ("--study", str(built.study), "--insecure")
        server = built.server(*insecure)
        wrong = built.client(
            "hospital_b", "--insecure", "--trusted-entities", str(keys / "wrong.yaml")
        )
        wrong.wait_for("connected to", 120)
        site = built.site_file("hospital_b")
        checked = built.run("client", "check-connection", "--insecure", "--site", str(site))
        assert checked.returncode == 0, checked.stdout
        assert "registration: the coordinator knows this site's key" in checked.stdout
        secured = built.run("client", "check-connection", "--site", str(site))
        assert secured.returncode == 12
        assert "answers plain HTTP" in secured.stdout
        server.wait_for(r"hospital_b is not used|hospital_b: ", 60)
        right = built.client(
            "hospital_a", "--insecure", "--trusted-entities", str(keys / "right.yaml")
        )
        assert server.wait(150) == 0, server.output
        assert "training, round 2: done" in right.output
        assert "training" not in wrong.output
    metrics = json.loads(RunFolder(built.runs / "tiny").metrics.read_text(encoding="utf-8"))
    assert set(metrics["final"]["sites"]) == {"hospital_a"}


@pytest.mark.parametrize("address", ["0.0.0.0:9443", "example.org:9443"])
def test_without_tls_any_other_address_is_refused(tmp_path: Path, address: str) -> None:
    built = build_deployment(tmp_path)
    built.edit_server(built.study, listen=address)
    served = built.run("server", "--study", str(built.study), "--insecure")
    assert (served.returncode, served.stdout) == (3, "")
    assert f"--insecure: server.listen is {address}; without TLS only 127.0.0.1" in served.stderr
    site = built.site_file("hospital_a")
    built.edit_server(site, address=address)
    dialled = built.run("client", "--site", str(site), "--insecure")
    assert dialled.returncode == 3
    assert f"--insecure: server.address is {address}" in dialled.stderr
