"""A stranger with the CA certificate and the ports, while two hospitals train: nothing works.

One run goes on through all of it, and has to end as if nobody had been there.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    StreamLogsRequest,
)
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import Metadata, PullObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from nognet_server.processes.bundle import thin_bundle
from nognet_server.processes.connections import HEADERS_WITHIN_S, MAX_STRANGERS
from nognet_server.processes.listener import MAX_REQUEST_BYTES
from nognet_server.runs.folder import RunFolder

from tests.builders.deployment import (
    deployment,
    kill,
    pid_running,
    wait_until_gone,
)
from tests.builders.signed import new_key, pem, signed_headers
from tests.builders.stranger import Target, drip, head, is_cut, status_of, wait_until_up

pytestmark = [pytest.mark.federation, pytest.mark.slow]
SLOW = {"steps_per_round": 150, "batch_size": 2, "warmup_steps": 0}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("attacked")
    with deployment(folder, training=SLOW, rounds=4) as built:
        server = built.server()
        built.clients()
        server.wait_for("round 1 of 4: training", 150)
        yield Target(built, server)


FAB = thin_bundle()
CONTROL = {
    "/v1/control/start-run": StartRunRequest(),
    "/v1/control/register-node": RegisterNodeRequest(public_key=b"k", name="evil"),
    "/v1/control/stop-run": StopRunRequest(run_id=1),
    "/v1/control/list-runs": ListRunsRequest(),
    "/v1/control/list-nodes": ListNodesRequest(),
    "/v1/control/stream-logs": StreamLogsRequest(run_id=1),
}
FLEET = {
    "/v1/fleet/pull-messages": PullMessagesRequest(node=Node(node_id=1)),
    "/v1/fleet/push-messages": PushMessagesRequest(node=Node(node_id=1)),
    "/v1/fleet/pull-object": PullObjectRequest(node=Node(node_id=1), run_id=1, object_id="a" * 64),
    "/v1/fleet/get-run": GetRunRequest(node=Node(node_id=1), run_id=1),
    "/v1/fleet/deactivate-node": DeactivateNodeRequest(node_id=1),
}


@pytest.mark.parametrize("path", CONTROL)
def test_the_control_api_is_not_on_the_public_port(target: Target, path: str) -> None:
    assert target.post(path, CONTROL[path]) == 404
    assert target.post(path, CONTROL[path], {"authorization": "Bearer guess"}) == 404


@pytest.mark.parametrize("path", CONTROL)
@pytest.mark.parametrize("token", [None, "Bearer x", "Bearer guess", "Basic Z3Vlc3M6"])
def test_on_loopback_it_wants_the_token(target: Target, path: str, token: str | None) -> None:
    headers = {} if token is None else {"authorization": token}
    assert target.post_privately(path, CONTROL[path], headers) == 401


@pytest.mark.parametrize("path", ["/v1/runtime/acquire-task", "/v1/runtime/pull-task-input"])
def test_no_task_of_the_serverapp_is_given_away(target: Target, path: str) -> None:
    assert target.post(path, AcquireTaskRequest()) == 404
    assert target.post_privately(path, AcquireTaskRequest(), {}) in (400, 401, 403)


def test_no_node_registers_itself(target: Target) -> None:
    key = new_key()
    request = RegisterNodeFleetRequest(public_key=pem(key))
    assert target.post("/v1/fleet/register-node", request, signed_headers(key)) == 404
    assert target.post_privately("/v1/fleet/register-node", request, signed_headers(key)) >= 400
    assert set(target.nodes()) == {"hospital_a", "hospital_b"}


@pytest.mark.parametrize("path", FLEET)
@pytest.mark.parametrize("signed", [False, True])
def test_without_a_registered_key_no_message_is_had_or_left(
    target: Target, path: str, signed: bool
) -> None:
    headers = signed_headers(new_key()) if signed else {}
    assert target.post(path, FLEET[path], headers) == 401


def test_an_unregistered_key_comes_not_online(target: Target) -> None:
    key = new_key()
    request = ActivateNodeRequest(public_key=pem(key), heartbeat_interval=30)
    assert target.post("/v1/fleet/activate-node", request, signed_headers(key)) == 412
    hospital = target.site_key("hospital_a")
    stolen = ActivateNodeRequest(public_key=pem(hospital), heartbeat_interval=30)
    assert target.post("/v1/fleet/activate-node", stolen, signed_headers(key)) == 412
    claimed = signed_headers(key, claimed=hospital)  # the public key is no secret
    assert target.post("/v1/fleet/activate-node", stolen, claimed) == 401


def test_a_captured_request_holds_no_second_time(target: Target) -> None:
    """Nor does its signature under another request, within Flower's five minutes."""
    node = Node(node_id=target.nodes()["hospital_a"])
    captured = signed_headers(target.site_key("hospital_a"))
    beat = SendNodeHeartbeatRequest(node=node, heartbeat_interval=30)
    assert target.post("/v1/fleet/send-node-heartbeat", beat, captured) == 200
    assert target.post("/v1/fleet/send-node-heartbeat", beat, captured) == 401
    assert target.post("/v1/fleet/pull-messages", PullMessagesRequest(node=node), captured) == 401
    assert target.post("/v1/fleet/push-messages", PushMessagesRequest(node=node), captured) == 401


def test_a_captured_request_holds_no_second_time_over_a_restart(target: Target) -> None:
    key, node = target.site_key("hospital_a"), Node(node_id=target.nodes()["hospital_a"])
    captured = signed_headers(key)
    beat = SendNodeHeartbeatRequest(node=node, heartbeat_interval=30)
    assert target.post("/v1/fleet/send-node-heartbeat", beat, captured) == 200
    superlink = pid_running("nognet_server.processes.superlink", target.server.family())
    kill(superlink)
    assert wait_until_gone([superlink]) == []
    time.sleep(1.0)  # until its last thread has let go of the port
    wait_until_up(target)
    assert target.post("/v1/fleet/send-node-heartbeat", beat, signed_headers(key)) == 200
    assert target.post("/v1/fleet/send-node-heartbeat", beat, captured) == 401


def test_a_site_speaks_not_for_another(target: Target) -> None:
    """A hostile member: its own key is right, the node id is the other's."""
    nodes, key = target.nodes(), target.site_key("hospital_a")
    own, other = Node(node_id=nodes["hospital_a"]), Node(node_id=nodes["hospital_b"])
    for request in (PullMessagesRequest(node=other), PushMessagesRequest(node=other)):
        path = "push" if isinstance(request, PushMessagesRequest) else "pull"
        assert target.post(f"/v1/fleet/{path}-messages", request, signed_headers(key)) == 401
    gone = DeactivateNodeRequest(node_id=other.node_id)
    assert target.post("/v1/fleet/deactivate-node", gone, signed_headers(key)) == 401
    reply = ProtoMessage(metadata=Metadata(src_node_id=other.node_id, run_id=1))
    forged = PushMessagesRequest(node=own, messages_list=[reply])
    assert target.post("/v1/fleet/push-messages", forged, signed_headers(key)) == 403


@pytest.mark.parametrize(
    "body", [b"", b"\xff" * 100, b"{}", b"\x0a\xff\xff\xff\xff\x0f", FAB.content]
)
def test_a_malformed_body_is_an_error_of_its_sender(target: Target, body: bytes) -> None:
    key = target.site_key("hospital_a")
    assert target.post("/v1/fleet/push-messages", body) == 401
    assert 400 <= target.post("/v1/fleet/push-messages", body, signed_headers(key)) < 500
    assert 400 <= target.post("/v1/fleet/get-run", body, signed_headers(key)) < 500


PULL = "POST /v1/fleet/pull-messages HTTP/1.1"
CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (head(PULL, f"Content-Length: {MAX_REQUEST_BYTES + 1}"), (413,)),
        (head(PULL, f"Content-Length: {2**63}"), (400, 413)),
        (head(PULL, f"Content-Length: {2**70}"), (400, 413)),
        (head(PULL, "Content-Length: -1"), (400, 413)),
        (head(PULL, "Content-Length: 5", "Content-Length: 6"), (400, 401)),
        (head(PULL, "Content-Length: 5", CHUNKED), (400, 401)),
        (head(PULL, CHUNKED) + b"ffffffffffffffffff\r\n", (400, 401)),
        (head(PULL, CHUNKED) + b"-1\r\n", (400, 401)),
        (head(PULL, CHUNKED) + b"5;ext=1\r\nabc", (400, 401)),
        (head(PULL, CHUNKED) + b"zz\r\n", (400, 401)),
        (head(PULL, "X: " + "a" * 200_000), ()),
        (b"\x00" * 1000, (400,)),
        (b"GET / HTTP/9.9\r\n\r\n", (400, 404)),
    ],
)
def test_a_body_of_odd_length_is_refused_unread(
    target: Target, sent: bytes, statuses: tuple[int, ...]
) -> None:
    answer = target.raw(sent)
    assert status_of(answer) in {*statuses, None}
    assert answer or not statuses


@pytest.mark.parametrize("host", [(), ("Host: 127.0.0.1",), ("Host: localhost", "Host: evil")])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize(
    "path",
    [
        "//v1/control/start-run",
        "/v1//control/start-run",
        "/v1/fleet/../control/start-run",
        "/v1/fleet/%2e%2e/control/start-run",
        "/v1/fleet/%2E%2E%2fcontrol%2fstart-run",
        "/v1%2fcontrol%2fstart-run",
        "/v1/control/start-run/",
        "/v1/control/start-run.",
        "/v1/control/start-run%00",
        "/V1/Control/Start-Run",
        "/health/../v1/control/start-run",
        "/health;/v1/control/start-run",
        "/health%3f/../v1/control/start-run",
        "https://127.0.0.1/v1/control/start-run",
        "http://localhost:9444/v1/control/start-run",
        "/v1/fleet/register-node",
        "/v1/fleet/pull-messages/../register-node",
        "/v1/runtime/acquire-task",
        "/docs",
        "/openapi.json",
        "*",
    ],
)
def test_no_way_of_writing_a_path_gets_past_the_filter(
    target: Target, path: str, version: str, host: tuple[str, ...]
) -> None:
    answer = target.raw(head(f"POST {path} HTTP/{version}", *host, "Content-Length: 0"))
    assert status_of(answer) in (400, 404), answer


@pytest.mark.parametrize(
    "line",
    [
        "CONNECT 127.0.0.1:9444 HTTP/1.1",
        "TRACE /health HTTP/1.1",
        "PUT /health HTTP/1.1",
        "GET /health HTTP/1.1",
    ],
)
def test_no_method_tunnels_or_upgrades(target: Target, line: str) -> None:
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    answer = target.raw(head(line, *upgrade, "Sec-WebSocket-Key: x"), wait_s=2)
    assert status_of(answer) in (200, 400, 404)
    assert (status_of(answer) == 200) == line.startswith("GET")


def test_hundreds_of_slow_connections_keep_nobody_out(target: Target) -> None:
    """Slow loris: twice as many as are let stand, a byte at a time, half of them before TLS."""
    stop = threading.Event()
    sockets: list[socket.socket] = []
    try:
        for number in range(2 * MAX_STRANGERS):
            raw = socket.create_connection(target.address, timeout=10)
            sockets.append(raw)
            if number % 2:
                secured = target.context.wrap_socket(raw, server_hostname="127.0.0.1")
                secured.sendall(b"POST /v1/fleet/push-object HTTP/1.1\r\n")
                sockets[-1] = secured
        dripping = threading.Thread(target=drip, args=(sockets, stop))
        dripping.start()
        started = time.monotonic()
        assert target.post("/v1/fleet/get-run", FLEET["/v1/fleet/get-run"]) == 401
        node = Node(node_id=target.nodes()["hospital_b"])
        headers = signed_headers(target.site_key("hospital_b"))
        beat = SendNodeHeartbeatRequest(node=node, heartbeat_interval=30)
        assert target.post("/v1/fleet/send-node-heartbeat", beat, headers) == 200
        assert time.monotonic() - started < 10
        time.sleep(HEADERS_WITHIN_S + 2)
        assert all(is_cut(s) for s in sockets)
    finally:
        stop.set()
        dripping.join()
        for opened in sockets:
            opened.close()


def test_the_run_ends_unharmed(target: Target) -> None:
    """Last of the module: the run that all the others attacked."""
    assert target.server.wait(300) == 0, target.server.output
    folder = RunFolder(target.deployment.runs / "tiny")
    metrics = json.loads(folder.metrics.read_text(encoding="utf-8"))
    assert metrics["status"] == "completed"
    statuses = [
        entry["status"] for played in metrics["rounds"] for entry in played["sites"].values()
    ]
    assert statuses == ["ok"] * 8
    assert set(metrics["final"]["sites"]) == {"hospital_a", "hospital_b"}
