"""The gRPC health service, asked as a container's probe asks it."""

from __future__ import annotations

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from nognet.errors import FederationError
from nognet.supervision.health import HealthPort
from tests.builders.deployment import free_ports, grpc_health


def test_it_says_what_it_was_told_last() -> None:
    (port,) = free_ports(1)
    with HealthPort(port) as health:
        assert grpc_health(port) == "NOT_SERVING"
        health.set(serving=True)
        assert grpc_health(port) == grpc_health(port, "nognet") == "SERVING"
        health.set(serving=False)
        assert grpc_health(port) == "NOT_SERVING"
    assert grpc_health(port) == "UNAVAILABLE"


def test_who_watches_is_told_of_each_change() -> None:
    (port,) = free_ports(1)
    with HealthPort(port) as health, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        changes = stub.Watch(health_pb2.HealthCheckRequest(), timeout=10)
        assert next(changes).status == health_pb2.HealthCheckResponse.NOT_SERVING
        health.set(serving=True)
        assert next(changes).status == health_pb2.HealthCheckResponse.SERVING
        changes.cancel()


def test_an_unknown_service_is_not_found() -> None:
    (port,) = free_ports(1)
    with HealthPort(port):
        assert grpc_health(port, "other") == "NOT_FOUND"


def test_a_taken_port_is_named() -> None:
    (port,) = free_ports(1)
    with (
        HealthPort(port),
        pytest.raises(FederationError, match=rf"can't listen on 127\.0\.0\.1:{port}") as caught,
    ):
        HealthPort(port)
    assert str(caught.value).startswith("--health-port: ")
    assert (caught.value.exit_code, caught.value.code) == (9, "port-taken")


def test_without_a_port_nothing_listens() -> None:
    with HealthPort(None) as health:
        health.set(serving=True)
