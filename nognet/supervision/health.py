"""The standard gRPC health service (grpc.health.v1) on a loopback port, for container probes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Self

from nognet.errors import FederationError

SERVICE = "nognet"


class HealthPort:
    """Answers SERVING or NOT_SERVING by what it was told last; without a port, does nothing.

    `Check` and `Watch` answer for the empty service name and for ``nognet``.
    """

    def __init__(self, port: int | None) -> None:
        """Listen on a loopback port.

        Raises:
            FederationError: something listens there already.
        """
        self._serving = False
        self._server = None
        if port is None:
            return
        import grpc
        from grpc_health.v1 import health, health_pb2, health_pb2_grpc

        self._statuses = {
            True: health_pb2.HealthCheckResponse.SERVING,
            False: health_pb2.HealthCheckResponse.NOT_SERVING,
        }
        self._servicer = health.HealthServicer()
        # a Watch holds a thread as long as its client likes
        self._server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, self._server)
        self._tell()
        try:
            self._server.add_insecure_port(f"127.0.0.1:{port}")
        except RuntimeError as err:
            raise FederationError(
                f"--health-port: can't listen on 127.0.0.1:{port}, "
                "another program listens there; stop that one, or give another port",
                code="port-taken",
            ) from err
        self._server.start()

    def set(self, *, serving: bool) -> None:
        """Tell whether all is well; told again, changes nothing."""
        if serving != self._serving:
            self._serving = serving
            self._tell()

    def __enter__(self) -> Self:
        """Serve until the block ends."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.stop(grace=0.5).wait(2.0)

    def _tell(self) -> None:
        if self._server is not None:
            for name in ("", SERVICE):
                self._servicer.set(name, self._statuses[self._serving])
